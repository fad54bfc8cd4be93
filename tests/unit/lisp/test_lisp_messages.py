"""Each message against octets laid out by hand, in both directions, and what is refused in both."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest

from followme.lisp import (
    EidPrefix,
    EidRecord,
    EncapsulatedControlMessage,
    Lcaf,
    LcafEid,
    LispError,
    Locator,
    MapNotify,
    MappingRecord,
    MapReply,
    MapRequest,
    UnknownMessage,
    decode,
    negative_map_reply,
    parse_map_request_fast,
)

from .vectors import HOST, NET, NONCE, RLOC, RLOC6, VECTORS, XTR, octets, rewrite

REQUEST = MapRequest(NONCE, (RLOC,), (EidRecord(HOST),))


@pytest.mark.parametrize("name", VECTORS)
def test_octets_and_message(name: str) -> None:
    text, message = VECTORS[name]
    assert decode(bytes.fromhex(text)) == message
    assert message.encode().hex() == bytes.fromhex(text).hex()


@pytest.mark.parametrize("name", [name for name in VECTORS if name != "info-request"])
def test_cut_short_anywhere(name: str) -> None:
    whole = octets(name)
    for size in range(len(whole)):
        if name == "map-reply with LISP-SEC" and size >= len(whole) - 4:
            continue  # what ends that message has no length of its own here
        with pytest.raises(LispError):
            decode(whole[:size])


@pytest.mark.parametrize(
    "name", [name for name in VECTORS if name not in {"info-request", "map-reply with LISP-SEC"}]
)
def test_something_after_the_end(name: str) -> None:
    with pytest.raises(LispError, match=r"after the end|are there"):
        decode(octets(name) + b"\0")


@pytest.mark.parametrize(
    ("name", "at", "value", "said"),
    [
        ("map-request", 3, 255, "255 EID records at octet 20: 2040 octets needed, 8 left"),
        ("map-request", 3, 0, "asks for nothing"),
        ("map-request", 2, 31, "ITR-RLOC"),
        ("map-request", 13, 9, "Source EID at octet 12: AFI 9 is not supported"),
        ("map-request", 15, 3, "AFI 3 is not supported"),
        ("map-request", 21, 33, "mask-len 33 of an address of 32 bits"),
        ("map-request", 23, 0, "without an EID"),
        ("map-reply", 3, 255, "255 mapping records"),
        ("map-reply", 16, 255, "255 locators at octet 28: 2040 octets needed"),
        ("map-reply", 17, 129, "mask-len 129"),
        ("map-reply", 23, 0, "without an EID"),
        ("map-reply", 35, 77, "AFI 77 is not supported"),
        ("map-request, every flag", 20, 1, "instance-ID 16777223 does not fit 24 bits"),
        ("map-register", 14, 0xFF, "Authentication Data at octet 16: 65296 octets needed"),
        ("map-notify-ack", 3, 0, "after the end"),
        ("ecm, IPv4", 0, 0x88, "LISP-SEC is not supported"),
        ("ecm, IPv4", 4, 0x35, "IP version 3"),
        ("ecm, IPv4", 4, 0x44, "header of 16 octets"),
        ("ecm, IPv4", 7, 0x39, "total length 57, 56 octets are there"),
        ("ecm, IPv4", 12, 0x41, "inner IPv4 header at octet 4: the checksum is wrong"),
        ("ecm, IPv4", 29, 0x25, "length 37, 36 octets are there"),
        ("ecm, IPv4", 40, 0x77, "inner UDP at octet 24: the checksum is wrong"),
        ("ecm, IPv6, DDT", 9, 0x31, "payload length 49, 48 octets are there"),
        ("ecm, IPv6, DDT", 10, 0, "next header 0 is not UDP"),
        ("ecm, IPv6, DDT", 60, 0x77, "inner UDP at octet 44: the checksum is wrong"),
    ],
)
def test_one_octet_wrong(name: str, at: int, value: int, said: str) -> None:
    data = bytearray(octets(name))
    assert data[at] != value
    data[at] = value
    with pytest.raises(LispError) as refused:
        decode(bytes(data))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [(10, b"\x20\0", "a fragment"), (10, b"\0\1", "a fragment"), (13, b"\6", "not UDP")],
)
def test_inner_ipv4_that_is_no_whole_udp_packet(at: int, value: bytes, said: str) -> None:
    with pytest.raises(LispError, match=said):
        decode(rewrite(octets("ecm, IPv4"), at, value, slice(4, 24)))


def test_inner_udp_checksum_of_zero_is_none_in_ipv4_and_refused_in_ipv6() -> None:
    data = bytearray(octets("ecm, IPv4"))
    data[30:32] = b"\0\0"
    assert decode(bytes(data)) == VECTORS["ecm, IPv4"][1]
    data = bytearray(octets("ecm, IPv6, DDT"))
    data[50:52] = b"\0\0"
    with pytest.raises(LispError, match="no checksum, which IPv6 requires"):
        decode(bytes(data))


def test_an_ecm_in_an_ecm_is_refused_both_ways() -> None:
    inner = EncapsulatedControlMessage(IPv4Address(1), IPv4Address(2), REQUEST)
    with pytest.raises(LispError, match="an ECM in an ECM"):
        replace(inner, message=inner).encode()
    nested = replace(inner, message=UnknownMessage(b"\x70" + inner.encode()[1:])).encode()
    data = bytearray(nested)
    data[32] = 0x80
    data[30:32] = b"\0\0"
    with pytest.raises(LispError, match="an ECM in an ECM"):
        decode(bytes(data))


def test_nothing_at_all_is_no_message() -> None:
    with pytest.raises(LispError, match="an empty datagram"):
        decode(b"")


def test_types_not_read_are_kept() -> None:
    for kind in (0, 6, 7, 9, 15):
        message = decode(bytes((kind << 4, 1, 2)))
        assert isinstance(message, UnknownMessage)
        assert message.type == kind
        assert message.encode() == bytes((kind << 4, 1, 2))


def test_host_bits_of_a_prefix_are_cleared() -> None:
    data = bytearray(octets("map-request"))
    data[21] = 8
    message = decode(bytes(data))
    assert isinstance(message, MapRequest)
    assert message.records == (EidRecord(EidPrefix.of("10.0.0.0/8")),)


def test_reserved_bits_are_ignored() -> None:
    data = bytearray(octets("map-request"))
    data[1] |= 0x2F
    data[2] |= 0x80
    data[20] |= 0x7F
    assert decode(bytes(data)) == REQUEST


def test_an_instance_range_is_kept_as_it_is() -> None:
    lcaf = bytes.fromhex("4003 00 00 02 14 0006 00001000 0000")
    data = octets("map-request")[:20] + b"\0\0" + lcaf
    message = decode(data)
    assert isinstance(message, MapRequest)
    assert message.records[0].eid.length == 0
    assert message.encode() == data


@pytest.mark.parametrize(
    "lcaf",
    ["4003 00 00 02 00 0004 00000007", "4003 00 00 0c 00 000a 00000007 0001 0a000000"],
)
def test_an_lcaf_that_looks_like_an_instance_id(lcaf: str) -> None:
    """Too short for one, and of another type."""
    data = octets("map-request")[:20] + b"\0\x08" + bytes.fromhex(lcaf)
    message = decode(data)
    assert isinstance(message, MapRequest)
    assert isinstance(message.records[0].eid, LcafEid)
    assert message.encode() == data


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (replace(REQUEST, itr_rlocs=()), "IRC: 0 ITR-RLOCs"),
        (replace(REQUEST, itr_rlocs=(RLOC,) * 33), "33 ITR-RLOCs"),
        (replace(REQUEST, records=()), "0 records"),
        (replace(REQUEST, records=REQUEST.records * 256), "256 records"),
        (replace(REQUEST, nonce=1 << 64), "Nonce: 18446744073709551616 does not fit 64 bits"),
        (replace(REQUEST, source_eid=NET), r"Source EID: \[7\]10.1.0.0/16 is not one address"),
        (replace(REQUEST, site_id=1), "a Site-ID goes only with an xTR-ID"),
        (replace(REQUEST, xtr_id=b"short"), "xTR-ID: 5 octets where there are 16"),
        (replace(REQUEST, xtr_id=XTR, site_id=1 << 64), "Site-ID"),
        (replace(REQUEST, records=(EidRecord(EidPrefix(0, b"abc", 8)),)), "3 octets with a mask-len of 8"),
        (replace(REQUEST, records=(EidRecord(EidPrefix(0, b"abcd", 33)),)), "mask-len of 33"),
        (replace(REQUEST, records=(EidRecord(EidPrefix(0, b"abcd", 8)),)), "bits are set beyond"),
        (replace(REQUEST, records=(EidRecord(EidPrefix(1 << 24, b"abcd", 32)),)), "instance-ID"),
        (MapReply(1, (MappingRecord(HOST),) * 256), "Record Count"),
        (MapReply(1, (MappingRecord(HOST, (Locator(RLOC),) * 256),)), "Locator Count"),
        (MapReply(1, (MappingRecord(HOST, ttl=-1),)), "Record TTL: -1"),
        (MapReply(1, (MappingRecord(HOST, action=8),)), "ACT: 8"),
        (MapReply(1, (MappingRecord(HOST, map_version=4096),)), "Map-Version"),
        (MapReply(1, (MappingRecord(HOST, (Locator(RLOC, priority=256),)),)), "Priority: 256"),
        (MapReply(1, (MappingRecord(HOST, (Locator(Lcaf(256, b"")),)),)), "LCAF Type"),
        (MapReply(1, (MappingRecord(HOST, (Locator(Lcaf(1, bytes(65536))),)),)), "65536 octets of payload"),
        (MapNotify(1, (), site_id=1), "a Site-ID goes only with an xTR-ID"),
        (MapNotify(1, (), authentication=bytes(65536)), "more than 65535 octets"),
        (MapNotify(1, (), key_id=256), "Key ID: 256"),
        (EncapsulatedControlMessage(RLOC, RLOC6, REQUEST), "differ in family"),
        (EncapsulatedControlMessage(RLOC, RLOC, REQUEST, source_port=65536), "source port: 65536"),
        (EncapsulatedControlMessage(RLOC, RLOC, UnknownMessage(b"")), "message: it has no octets"),
        (EncapsulatedControlMessage(RLOC, RLOC, UnknownMessage(bytes(65508))), "65508 octets do not fit"),
        (EncapsulatedControlMessage(RLOC, RLOC, UnknownMessage(bytes(65530))), "do not fit one packet"),
    ],
)
def test_a_field_that_fits_no_message(message: MapRequest, said: str) -> None:
    with pytest.raises(LispError, match=said):
        message.encode()


def test_as_many_as_fit() -> None:
    full = MapReply(1, (MappingRecord(HOST, (Locator(RLOC),) * 255),) + (MappingRecord(NET),) * 254)
    assert decode(full.encode()) == full
    asks = replace(REQUEST, itr_rlocs=(RLOC,) * 32, records=REQUEST.records * 255)
    assert decode(asks.encode()) == asks


def test_the_largest_instance_id() -> None:
    asks = replace(REQUEST, records=(EidRecord(EidPrefix.of("10.0.0.0/8", 0xFFFFFF)),))
    assert decode(asks.encode()) == asks


def test_the_largest_ecm() -> None:
    largest = EncapsulatedControlMessage(RLOC, RLOC, UnknownMessage(bytes(65507)))
    assert decode(largest.encode()) == largest


def test_an_ecm_with_nothing_in_it() -> None:
    data = bytearray(octets("ecm, IPv4")[:32])
    data[28:32] = b"\0\x08\0\0"
    with pytest.raises(LispError, match="an empty datagram"):
        decode(rewrite(bytes(data), 6, b"\0\x1c", slice(4, 24)))


def test_a_udp_checksum_that_comes_to_zero_is_sent_as_ones() -> None:
    zero = EncapsulatedControlMessage(RLOC, RLOC, replace(REQUEST, nonce=0))
    checksum = int.from_bytes(zero.encode()[30:32], "big")
    # The checksum itself, as one more word of the sum, brings it to 0.
    complete = replace(zero, message=replace(REQUEST, nonce=checksum))
    assert complete.encode()[30:32] == b"\xff\xff"
    assert decode(complete.encode()) == complete
    assert parse_map_request_fast(complete.encode()) is not None


def test_negative_map_reply() -> None:
    reply = negative_map_reply(NONCE, NET)
    assert (
        reply.encode().hex() == "2000000101020304050607080000000f001020000000400300000220000a0000000700010a010000"
    )


def test_subscribes_if_any_record_does() -> None:
    assert not REQUEST.subscribes
    assert replace(REQUEST, records=(EidRecord(HOST), EidRecord(NET, notify=True))).subscribes


def test_eid_prefix() -> None:
    prefix = EidPrefix.of("2001:db8::/32", iid=9)
    assert prefix.network == IPv6Network("2001:db8::/32")
    assert (str(prefix), str(HOST)) == ("[9]2001:db8::/32", "10.0.0.5/32")
    assert {(0, bytes((10, 0, 0, 5)), 32): "found"}[HOST] == "found"
    assert HOST.host
    assert not prefix.host
    assert EidPrefix.of(IPv6Address(1)).length == 128
    assert prefix.covers(EidPrefix.of("2001:db8:1::/48", iid=9))
    assert prefix.covers(prefix)
    assert not prefix.covers(EidPrefix.of("2001:db8:1::/48"))
    assert not prefix.covers(EidPrefix.of("2001::/16", iid=9))
    assert not prefix.covers(EidPrefix.of("2001:db9::/32", iid=9))
    assert not prefix.covers(EidPrefix.of("10.0.0.0/32", iid=9))


@pytest.mark.parametrize(
    ("text", "iid"), [("10.0.0.1/8", 0), ("nonsense", 0), ("10.0.0.0/8", 1 << 24), ("10.0.0.0/8", -1)]
)
def test_no_eid_prefix(text: str, iid: int) -> None:
    with pytest.raises(LispError):
        EidPrefix.of(text, iid)
