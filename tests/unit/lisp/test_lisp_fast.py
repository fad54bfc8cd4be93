"""The hot path: which Map-Requests it reads, and which it leaves to ``decode``."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from followme.lisp import (
    EidPrefix,
    EidRecord,
    EncapsulatedControlMessage,
    FastRequest,
    Lcaf,
    Locator,
    MappingRecord,
    MapReply,
    MapRequest,
    UnknownMessage,
    decode,
    map_reply_fast,
    parse_map_request_fast,
)

from .vectors import HOST, NET, NET6, NONCE, RLOC, RLOC6, VECTORS, XTR, octets, rewrite

REQUEST = MapRequest(NONCE, (RLOC,), (EidRecord(HOST),))


def carried(request: MapRequest) -> bytes:
    return EncapsulatedControlMessage(IPv4Address("10.1.0.1"), IPv4Address("10.0.0.5"), request, 50000).encode()


def test_octets() -> None:
    assert parse_map_request_fast(octets("ecm, IPv4")) == FastRequest(bytes(range(1, 9)), HOST, RLOC.packed, 50000)


@pytest.mark.parametrize(
    "eid", [HOST, NET, NET6, EidPrefix.of("2001:db8::1", iid=0xABCDEF), EidPrefix.of("0.0.0.0/0")]
)
@pytest.mark.parametrize("rloc", [RLOC, RLOC6])
@pytest.mark.parametrize(
    "source", [None, HOST, EidPrefix.of("10.0.0.1", 9), EidPrefix.of("::1"), EidPrefix.of("::1", 9)]
)
def test_common_requests(eid: EidPrefix, rloc: IPv4Address | IPv6Address, source: EidPrefix | None) -> None:
    request = MapRequest(NONCE, (rloc,), (EidRecord(eid),), source)
    expected = FastRequest(NONCE.to_bytes(8, "big"), eid, rloc.packed, 50000)
    assert parse_map_request_fast(carried(request)) == expected
    carried6 = EncapsulatedControlMessage(IPv6Address(1), IPv6Address(2), request, 50000).encode()
    assert parse_map_request_fast(carried6) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"authoritative": True},
        {"probe": True},
        {"smr": True},
        {"local_xtr": True},
        {"dont_map_reply": True},
        {"map_reply": MappingRecord(HOST)},
        {"xtr_id": XTR},
        {"itr_rlocs": (RLOC, RLOC6)},
        {"itr_rlocs": (Lcaf(10, bytes(12)), RLOC)},
        {"itr_rlocs": (Lcaf(10, bytes(12)),)},
        {"itr_rlocs": (None,)},
        {"records": (EidRecord(HOST), EidRecord(NET))},
        {"records": (EidRecord(HOST, notify=True),)},
    ],
)
def test_uncommon_requests_are_left_to_decode(change: dict[str, object]) -> None:
    data = carried(replace(REQUEST, **change))  # type: ignore[arg-type]
    assert parse_map_request_fast(data) is None
    message = decode(data)
    assert isinstance(message, EncapsulatedControlMessage)
    assert message.message == replace(REQUEST, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in VECTORS if not name.startswith("ecm")])
def test_what_is_no_ecm_is_left_to_decode(name: str) -> None:
    assert parse_map_request_fast(octets(name)) is None


@pytest.mark.parametrize("name", ["ecm, IPv4", "ecm, IPv6, DDT"])
def test_wrong_octets_are_never_read(name: str) -> None:
    whole = octets(name)
    assert parse_map_request_fast(whole) is not None
    for size in range(len(whole)):
        assert parse_map_request_fast(whole[:size]) is None
    # All after the ECM header is under a checksum, but for the traffic class, flow label and hops of IPv6.
    for at in range(4, len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x55
        read = parse_map_request_fast(bytes(changed))
        assert read is None or (name == "ecm, IPv6, DDT" and at in {5, 6, 7, 11})


@pytest.mark.parametrize("eid", [HOST, NET, NET6, EidPrefix.of("2001:db8::1")])
def test_a_record_that_is_no_prefix(eid: EidPrefix) -> None:
    whole = MapRequest(NONCE, (RLOC,), (EidRecord(eid),)).encode()
    too_long = len(eid.address) * 8 + 1
    for wrong in (whole + b"\0", whole[:-1], whole[:21] + bytes((too_long,)) + whole[22:]):
        # Sent as a message of unknown type, it gets checksums that are right.
        data = EncapsulatedControlMessage(IPv4Address(1), IPv4Address(2), UnknownMessage(wrong)).encode()
        assert parse_map_request_fast(data) is None


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 0x18), (0, 0x14), (0, 0x12), (0, 0x11), (1, 0x10), (2, 0x40), (2, 0x20), (2, 1), (3, 0), (3, 2)],
)
def test_flags_and_counts_without_what_they_announce(at: int, value: int) -> None:
    whole = bytearray(REQUEST.encode())
    whole[at] = value
    data = EncapsulatedControlMessage(IPv4Address(1), IPv4Address(2), UnknownMessage(bytes(whole))).encode()
    assert parse_map_request_fast(data) is None


@pytest.mark.parametrize("at", [12, 18, 26])
def test_other_families(at: int) -> None:
    """The AFI of the source EID, of the ITR-RLOC and of the record."""
    whole = bytearray(MapRequest(NONCE, (RLOC,), (EidRecord(HOST),), HOST).encode())
    assert whole[at : at + 2] == b"\0\1"
    whole[at + 1] = 6
    data = EncapsulatedControlMessage(IPv4Address(1), IPv4Address(2), UnknownMessage(bytes(whole))).encode()
    assert parse_map_request_fast(data) is None


@pytest.mark.parametrize("at", [12, 38])
@pytest.mark.parametrize(("change", "value"), [(4, 12), (7, 16), (8, 1), (13, 6)])
def test_other_lcafs(at: int, change: int, value: int) -> None:
    """Another type, length, an instance-ID above 24 bits, another AFI inside; of source EID and record."""
    whole = bytearray(MapRequest(NONCE, (RLOC,), (EidRecord(NET),), EidPrefix.of("10.1.2.3", 7)).encode())
    assert whole[at : at + 2] == b"\x40\x03"
    whole[at + change] = value
    data = EncapsulatedControlMessage(IPv4Address(1), IPv4Address(2), UnknownMessage(bytes(whole))).encode()
    assert parse_map_request_fast(data) is None


@pytest.mark.parametrize(
    ("at", "value"),
    [(6, b"\0\x39"), (6, b"\1\x38"), (10, b"\x20\0"), (10, b"\x10\0"), (10, b"\0\1"), (13, b"\6")],
)
def test_inner_ipv4_that_is_no_whole_udp_packet(at: int, value: bytes) -> None:
    """Another length, a fragment, another protocol, all under a header checksum that is right."""
    assert parse_map_request_fast(rewrite(octets("ecm, IPv4"), 12, b"\x3f", slice(4, 24))) is not None
    assert parse_map_request_fast(rewrite(octets("ecm, IPv4"), at, value, slice(4, 24))) is None


def test_a_prefix_is_masked() -> None:
    data = bytearray(octets("ecm, IPv4"))
    data[30:32] = b"\0\0"  # no UDP checksum
    data[53] = 8
    read = parse_map_request_fast(bytes(data))
    assert read is not None
    assert read.eid == EidPrefix.of("10.0.0.0/8")


def test_reply() -> None:
    record = MappingRecord(HOST, (Locator(RLOC),))
    assert map_reply_fast(NONCE.to_bytes(8, "big"), record.encode()) == MapReply(NONCE, (record,)).encode()
