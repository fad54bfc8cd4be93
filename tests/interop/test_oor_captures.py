"""Our reading and writing of LISP against what Open Overlay Router put on the wire and took from it.

``oor_captures.txt`` has the octets and says how they were made; docs/lisp.md says what worked.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import pytest

from followme.lisp import (
    DATA_PORT,
    HMAC_SHA_1_96,
    Action,
    DataHeader,
    EidPrefix,
    EidRecord,
    EncapsulatedControlMessage,
    Lcaf,
    Locator,
    MapNotify,
    MappingRecord,
    MapRegister,
    MapReply,
    MapRequest,
    decode,
    decode_data_header,
    parse_map_request_fast,
    sign,
    verify,
)
from followme.mapsystem.server import MapServer
from followme.mapsystem.sites import Site, SitePrefix

KEY: Final = b"interop-secret"
OURS, THEIRS = IPv4Address("192.0.2.2"), IPv4Address("192.0.2.3")


def _read() -> dict[str, bytes]:
    captures: dict[str, str] = {}
    name = ""
    for line in (Path(__file__).parent / "oor_captures.txt").read_text().splitlines():
        if line.endswith(":") and not line.startswith("#"):
            name = line[:-1]
            captures[name] = ""
        elif line.startswith("  "):
            captures[name] += line.strip()
    return {name: bytes.fromhex(text) for name, text in captures.items()}


CAPTURES: Final = _read()
MESSAGES: Final = [name for name in CAPTURES if "data" not in name]
SIGNED: Final = [name for name in MESSAGES if "map-register" in name or "map-notify" in name]
ANSWERED: Final = {
    "map-register": "ours map-notify",
    "map-register ipv6": "ours map-notify ipv6",
    "map-register iid": "ours map-notify iid",
    "map-register elp": "ours map-notify elp",
}


def _record(eid: str, *locators: Locator, iid: int = 0, ttl: int = 10) -> MappingRecord:
    return MappingRecord(EidPrefix.of(eid, iid), locators, ttl, authoritative=True)


def _ask(eid: str, source: str | None, iid: int = 0) -> MapRequest:
    source_eid = None if source is None else EidPrefix.of(source, iid)
    return MapRequest(0, (THEIRS,), (EidRecord(EidPrefix.of(eid, iid)),), source_eid)


def _up(priority: int = 1, weight: int = 100, address: IPv4Address = THEIRS, *, probed: bool = False) -> Locator:
    return Locator(address, priority, weight, local=True, probed=probed)


FAR = Locator(IPv4Address("192.0.2.33"), 3, 25)
NET, NET6 = _record("10.2.0.0/24", _up()), _record("fd00:2::/64", _up(2, 50))
NET_IID = _record("10.2.0.0/24", _up(), FAR, iid=7)
PATH = Lcaf(10, bytes.fromhex("0000 0001 c000022c 0000 0001 c0000203"))
NET_PATH = _record("fd00:2::/64", _up(2, 50), Locator(PATH, 4, 0, 255, 0, local=True), iid=7)

# What each message says, but for its nonce and authentication.
MEANT: Final[dict[str, MapRegister | MapNotify | MapRequest | MapReply]] = {
    "map-register": MapRegister(0, (NET,), want_map_notify=True),
    "map-register ipv6": MapRegister(0, (NET6,), want_map_notify=True),
    "map-register iid": MapRegister(0, (NET_IID,), proxy_map_reply=True, want_map_notify=True),
    "map-register elp": MapRegister(0, (NET_PATH,), proxy_map_reply=True, want_map_notify=True),
    "ms map-notify": MapNotify(
        0,
        (
            _record("10.1.0.0/24", Locator(OURS), ttl=1440),
            _record("fd00:1::/64", Locator(OURS), ttl=1440),
        ),
        xtr_id=CAPTURES["ms map-notify"][-24:-8],
        site_id=1,
    ),
    "ecm map-request": _ask("10.1.0.10/32", "10.2.0.10"),
    "ecm map-request ipv6": _ask("fd00:1::10/128", "fd00:2::10"),
    "ecm map-request iid": _ask("10.1.0.10/32", "10.2.0.10", 7),
    "ecm smr-invoked": replace(_ask("10.1.0.0/24", "10.2.0.0"), smr_invoked=True),
    "probe": replace(_ask("10.1.0.0/24", None), probe=True),
    "probe iid": replace(_ask("10.1.0.0/24", None, 7), probe=True),
    "smr iid": replace(_ask("10.1.0.0/24", "10.2.0.0", 7), smr=True),
    "map-reply": MapReply(0, (NET,)),
    "map-reply ipv6": MapReply(0, (NET6,)),
    "probe-reply": MapReply(0, (_record("10.2.0.0/24", _up(probed=True)),), probe=True),
    "probe-reply iid": MapReply(0, (_record("10.2.0.0/24", _up(probed=True), FAR, iid=7),), probe=True),
    # Asked for 10.1.0.10; a proxy reply without the A-bit, the locator without the L-bit: the map server's word.
    "ms proxy map-reply": MapReply(0, (MappingRecord(EidPrefix.of("10.1.0.0/24"), (Locator(OURS),), 1440),)),
    # Asked for 10.9.9.9: its prefix is wrong. Who asks must see that this is no answer.
    "ms negative map-reply": MapReply(
        0, (MappingRecord(EidPrefix.of("11.8.0.0/13"), (), 15, Action.NATIVELY_FORWARD, authoritative=True),)
    ),
}


def _plain(name: str) -> MapRegister | MapNotify | MapRequest | MapReply:
    """The message, out of its ECM if it is in one."""
    outer = decode(CAPTURES[name])
    message = outer.message if isinstance(outer, EncapsulatedControlMessage) else outer
    assert isinstance(message, MapRegister | MapNotify | MapRequest | MapReply)
    return message


@pytest.mark.parametrize("name", MEANT)
def test_what_a_message_says(name: str) -> None:
    message = _plain(name)
    if isinstance(message, MapRegister | MapNotify):
        assert (message.key_id, message.algorithm_id, len(message.authentication)) == (0, HMAC_SHA_1_96, 20)
        message = replace(message, authentication=b"", algorithm_id=0)
    assert message == replace(MEANT[name], nonce=message.nonce)


@pytest.mark.parametrize("name", MESSAGES)
def test_written_as_it_was_read(name: str) -> None:
    written = _plain(name).encode()
    assert written == CAPTURES[name][-len(written) :]
    if not name.startswith("ecm"):
        assert len(written) == len(CAPTURES[name])


@pytest.mark.parametrize("name", SIGNED)
def test_the_same_authentication(name: str) -> None:
    data = CAPTURES[name]
    assert verify(data, KEY)
    assert not verify(data, KEY + b"!")
    assert not verify(data[:-1] + bytes([data[-1] ^ 1]), KEY)
    message = _plain(name)
    assert isinstance(message, MapRegister | MapNotify)
    assert sign(replace(message, authentication=b""), KEY, HMAC_SHA_1_96).encode() == data


def _map_server() -> MapServer:
    prefixes = [EidPrefix.of(net, iid) for net in ("10.2.0.0/24", "fd00:2::/64") for iid in (0, 7)]
    site = Site("b", {0: KEY}, 2, tuple(SitePrefix(prefix) for prefix in prefixes), replay_protection=False)
    return MapServer([site], nonce=1)


@pytest.mark.parametrize("name", ANSWERED)
def test_our_map_server_answers_what_was_taken_there(name: str) -> None:
    server = _map_server()
    (answer,) = server.receive(CAPTURES[name], (str(THEIRS), 4342), 1.0).datagrams
    assert (answer.host, answer.port) == (str(THEIRS), 4342)
    assert answer.data == CAPTURES[ANSWERED[name]]


@pytest.mark.parametrize(
    "name", ["ecm map-request", "ecm map-request ipv6", "ecm map-request iid", "ecm smr-invoked"]
)
def test_the_hot_path_reads_its_requests(name: str) -> None:
    fast, message = parse_map_request_fast(CAPTURES[name]), decode(CAPTURES[name])
    assert fast is not None
    assert isinstance(message, EncapsulatedControlMessage)
    assert isinstance(message.message, MapRequest)
    assert fast.nonce == message.message.nonce.to_bytes(8, "big")
    assert (fast.eid, fast.itr_rloc) == (message.message.records[0].eid, THEIRS.packed)
    assert fast.reply_port == message.source_port == 4342


def _payload(packet: bytes) -> tuple[bytes, bytes]:
    """UDP header and payload of an IPv4 packet without options, for the port of LISP data."""
    assert (packet[0], packet[9], packet[22:24]) == (0x45, 17, DATA_PORT.to_bytes(2, "big"))
    return packet[20:28], packet[28:]


@pytest.mark.parametrize(
    ("name", "iid", "version"), [("data ipv4", None, 4), ("data ipv6", None, 6), ("data iid", 7, 4)]
)
def test_its_data_header(name: str, iid: int | None, version: int) -> None:
    _, data = _payload(CAPTURES[name])
    assert decode_data_header(data) == DataHeader(instance_id=iid)
    assert DataHeader(instance_id=iid).encode() == data[:8]
    assert data[8] >> 4 == version


@pytest.mark.parametrize(("name", "iid"), [("ours data ipv4", 0), ("ours data iid", 7)])
def test_our_data_header_that_it_took(name: str, iid: int) -> None:
    # Ours says "instance 0" where Open Overlay Router leaves the instance out.
    udp, data = _payload(CAPTURES[name])
    assert DataHeader(instance_id=iid).encode() == data[:8]
    assert udp[6:8] == b"\0\0"


@pytest.mark.parametrize("name", ["data ipv4", "data ipv6", "data iid"])
def test_its_udp_checksum_is_not_zero_and_right(name: str) -> None:
    """RFC 9300, 5.3 wants 0 of an ITR but allows this; ours sends 0, as the test before says."""
    packet = CAPTURES[name]
    udp, data = _payload(packet)
    summed = packet[12:20] + b"\0\x11" + udp[4:6] + udp + data
    assert udp[6:8] != b"\0\0"
    assert int.from_bytes(summed, "big") % 0xFFFF == 0
