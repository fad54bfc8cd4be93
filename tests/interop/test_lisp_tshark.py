"""Our LISP messages read by tshark: nothing malformed, no expert's warning, and the fields that we meant.

What tshark 4.0 does not know is shown by it as reserved or as plain data, and expected so here: the I-bit
of a Map-Request with the xTR-ID and Site-ID behind it and the N-bit of a record (RFC 9437), the L and D
bits of a Map-Request and the T and a bits of a Map-Register (RFC 9301), type 5 (Map-Notify-Ack), and the
P-bit and next protocol of LISP-GPE (RFC 9305). A newer tshark that reads these fails the tests of them,
which then can ask for more.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

import pytest

from followme.lisp import (
    CONTROL_PORT,
    DATA_PORT,
    HMAC_SHA_1_96,
    Action,
    DataHeader,
    EidPrefix,
    EidRecord,
    EncapsulatedControlMessage,
    Locator,
    MapNotify,
    MapNotifyAck,
    MappingRecord,
    MapRegister,
    MapReply,
    MapRequest,
    NextProtocol,
    negative_map_reply,
    sign,
)
from followme.packets import pack_ipv4, pack_udp

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

LINKTYPE_RAW: Final = 101
SOURCE, TARGET = IPv4Address("192.0.2.10"), IPv4Address("192.0.2.20")
RLOC, RLOC6 = IPv4Address("198.51.100.1"), IPv6Address("2001:db8:ff::1")
HOST, HOST6 = EidPrefix.of("10.0.0.5"), EidPrefix.of("2001:db8:e::5")
NET, NET6 = EidPrefix.of("10.1.0.0/16", iid=7), EidPrefix.of("2001:db8:e::/48", iid=0xABCDEF)
NONCE: Final = 0x0102030405060708
XTR = bytes(range(16, 32))
KEY = b"a shared secret"
XTR_AND_SITE = XTR.hex() + "000000000000002a"

positive = MappingRecord(
    NET6,
    (Locator(RLOC, 1, 70, 3, 4, local=True), Locator(RLOC6, 2, 30, probed=True, reachable=False)),
    ttl=1440,
    authoritative=True,
    map_version=0x123,
)
register = MapRegister(
    NONCE, (positive,), proxy_map_reply=True, use_ttl=True, merge=True, want_map_notify=True, xtr_id=XTR, site_id=42
)
ack = sign(MapNotifyAck(NONCE, (positive,)), KEY)
inner = pack_ipv4(SOURCE, TARGET, 17, pack_udp(SOURCE, TARGET, 7, 9, b"payload"))

POSITIVE: Final = {
    "lisp.mapping.ttl": "1440",
    "lisp.mapping.loccnt": "2",
    "lisp.mapping.eid.masklen": "48",
    "lisp.mapping.act": "0",
    "lisp.mapping.auth": "1",
    "lisp.mapping.ver": "291",
    "lisp.mapping.res1": "0x0000",
    "lisp.mapping.res2": "0x0000",
    "lisp.lcaf.iid": "11259375",
    "lisp.lcaf.iid.ipv6": "2001:db8:e::",
    "lisp.loc.locator": "198.51.100.1,2001:db8:ff::1",
    "lisp.loc.priority": "1,2",
    "lisp.loc.weight": "70,30",
    "lisp.loc.multicast_priority": "3,255",
    "lisp.loc.multicast_weight": "4,0",
    "lisp.loc.flags.local": "1,0",
    "lisp.loc.flags.probe": "0,1",
    "lisp.loc.flags.reach": "1,0",
}
NONCE_SEEN: Final = {"lisp.nonce": "0x0102030405060708"}

CASES: dict[str, tuple[int, bytes, Mapping[str, str]]] = {
    "map-request": (
        CONTROL_PORT,
        MapRequest(
            NONCE,
            (RLOC, RLOC6),
            (EidRecord(HOST), EidRecord(NET)),
            HOST6,
            authoritative=True,
            pitr=True,
            smr_invoked=True,
        ).encode(),
        NONCE_SEEN
        | {
            "lisp.type": "1",
            "lisp.irc": "1",
            "lisp.records": "2",
            "lisp.mreq.flags.auth": "1",
            "lisp.mreq.flags.mrp": "0",
            "lisp.mreq.flags.probe": "0",
            "lisp.mreq.flags.smr": "0",
            "lisp.mreq.flags.pitr": "1",
            "lisp.mreq.flags.smri": "1",
            "lisp.mreq.res": "0x000000",
            "lisp.mreq.srceid_ipv6": "2001:db8:e::5",
            "lisp.mreq.itr_rloc_ipv4": "198.51.100.1",
            "lisp.mreq.itr_rloc_ipv6": "2001:db8:ff::1",
            "lisp.mreq.record.prefix.length": "32,16",
            "lisp.mreq.record.prefix.ipv4": "10.0.0.5",
            "lisp.mreq.record.res": "0x00,0x00",
            "lisp.lcaf.iid": "7",
            "lisp.lcaf.iid.ipv4": "10.1.0.0",
            "data.data": "",
        },
    ),
    "map-request with map-reply": (
        CONTROL_PORT,
        MapRequest(NONCE, (RLOC,), (EidRecord(HOST),), map_reply=positive).encode(),
        NONCE_SEEN | POSITIVE | {"lisp.type": "1", "lisp.mreq.flags.mrp": "1", "data.data": ""},
    ),
    "solicit-map-request": (
        CONTROL_PORT,
        MapRequest(NONCE, (RLOC,), (EidRecord(HOST),), HOST, smr=True).encode(),
        {"lisp.type": "1", "lisp.mreq.flags.smr": "1", "lisp.mreq.srceid.ipv4": "10.0.0.5", "data.data": ""},
    ),
    "rloc-probe": (
        CONTROL_PORT,
        MapRequest(NONCE, (RLOC6,), (EidRecord(HOST6),), probe=True).encode(),
        {
            "lisp.type": "1",
            "lisp.mreq.flags.probe": "1",
            "lisp.mreq.srceid.afi": "0",
            "lisp.mreq.record.prefix.ipv6": "2001:db8:e::5",
            "data.data": "",
        },
    ),
    "subscription, the N- and I-bit as reserved ones": (
        CONTROL_PORT,
        MapRequest(NONCE, (RLOC,), (EidRecord(HOST, notify=True),), xtr_id=XTR, site_id=42).encode(),
        {
            "lisp.type": "1",
            "lisp.mreq.res": "0x000080",
            "lisp.mreq.record.res": "0x80",
            "lisp.mreq.record.prefix.ipv4": "10.0.0.5",
            "data.data": XTR_AND_SITE,
        },
    ),
    "L- and D-bit as reserved ones": (
        CONTROL_PORT,
        MapRequest(NONCE, (RLOC,), (EidRecord(HOST),), local_xtr=True, dont_map_reply=True).encode(),
        {"lisp.type": "1", "lisp.mreq.res": "0x000003", "data.data": ""},
    ),
    "map-reply": (
        CONTROL_PORT,
        MapReply(NONCE, (positive,), probe=True, echo_nonce=True).encode(),
        NONCE_SEEN
        | POSITIVE
        | {
            "lisp.type": "2",
            "lisp.records": "1",
            "lisp.mrep.flags.probe": "1",
            "lisp.mrep.flags.enlr": "1",
            "lisp.mrep.flags.sec": "0",
            "lisp.mrep.res": "0x000000",
            "data.data": "",
        },
    ),
    "negative map-reply": (
        CONTROL_PORT,
        negative_map_reply(NONCE, HOST, Action.DROP_POLICY_DENIED, ttl=1).encode(),
        NONCE_SEEN
        | {
            "lisp.type": "2",
            "lisp.mapping.ttl": "1",
            "lisp.mapping.loccnt": "0",
            "lisp.mapping.act": "4",
            "lisp.mapping.auth": "0",
            "lisp.mapping.eid.ipv4": "10.0.0.5",
            "lisp.mrep.flags.probe": "0",
            "data.data": "",
        },
    ),
    "map-register": (
        CONTROL_PORT,
        sign(register, KEY).encode(),
        NONCE_SEEN
        | POSITIVE
        | {
            "lisp.type": "3",
            "lisp.records": "1",
            "lisp.mreg.flags.pmr": "1",
            "lisp.mreg.flags.sec": "0",
            "lisp.mreg.flags.xtrid": "1",
            "lisp.mreg.flags.wmn": "1",
            "lisp.mreg.flags.rtr": "0",
            "lisp.mreg.res": "0x000006",  # T and a, which it counts among the reserved bits, without M behind
            "lisp.keyid": "0x0002",
            "lisp.authlen": "16",
            "lisp.auth": sign(register, KEY).authentication.hex(),
            "lisp.xtrid": XTR.hex(),
            "lisp.siteid": "000000000000002a",
            "data.data": "",
        },
    ),
    "map-notify": (
        CONTROL_PORT,
        sign(MapNotify(NONCE, (positive,)), KEY, HMAC_SHA_1_96).encode(),
        NONCE_SEEN
        | POSITIVE
        | {
            "lisp.type": "4",
            "lisp.mnot.flags.xtrid": "0",
            "lisp.mnot.res": "0x000000",
            "lisp.keyid": "0x0001",
            "lisp.authlen": "20",
            "data.data": "",
        },
    ),
    "map-notify with xTR-ID": (
        CONTROL_PORT,
        sign(MapNotify(NONCE, (positive,), XTR, 42), KEY).encode(),
        POSITIVE
        | {
            "lisp.type": "4",
            "lisp.mnot.flags.xtrid": "1",
            "lisp.xtrid": XTR.hex(),
            "lisp.siteid": "000000000000002a",
            "data.data": "",
        },
    ),
    "map-notify-ack, a type it does not know": (
        CONTROL_PORT,
        ack.encode(),
        {"lisp.type": "5", "data.data": ack.encode().hex()},
    ),
    "map-notify-ack, read as the map-notify whose form it has": (
        CONTROL_PORT,
        b"\x40" + ack.encode()[1:],
        NONCE_SEEN | POSITIVE | {"lisp.type": "4", "lisp.authlen": "16", "data.data": ""},
    ),
    "ECM, IPv4": (
        CONTROL_PORT,
        EncapsulatedControlMessage(
            IPv4Address("10.1.0.1"),
            IPv4Address("10.0.0.5"),
            MapRequest(NONCE, (RLOC,), (EidRecord(HOST),)),
            source_port=50000,
        ).encode(),
        NONCE_SEEN
        | {
            "lisp.type": "8,1",
            "lisp.ecm.flags.sec": "0",
            "lisp.ecm.flags.ddt": "0",
            "ip.dst": "192.0.2.20,10.0.0.5",
            "ip.checksum.status": "1,1",
            "udp.srcport": "50001,50000",
            "udp.checksum.status": "1,1",
            "lisp.mreq.record.prefix.ipv4": "10.0.0.5",
            "data.data": "",
        },
    ),
    "ECM, IPv6": (
        CONTROL_PORT,
        EncapsulatedControlMessage(
            IPv6Address("2001:db8::9"),
            IPv6Address("2001:db8:e::5"),
            MapRequest(NONCE, (RLOC6,), (EidRecord(HOST6),)),
            ddt=True,
        ).encode(),
        {
            "lisp.type": "8,1",
            "lisp.ecm.flags.ddt": "1",
            "ipv6.dst": "2001:db8:e::5",
            "udp.checksum.status": "1,1",
            "lisp.mreq.record.prefix.ipv6": "2001:db8:e::5",
            "data.data": "",
        },
    ),
    "data header, nonce, status and instance": (
        DATA_PORT,
        DataHeader(nonce=0xABCDEF, echo_nonce=True, locator_status=0x81, instance_id=7).encode() + inner,
        {
            "lisp-data.flags.nonce": "1",
            "lisp-data.flags.lsb": "1",
            "lisp-data.flags.enr": "1",
            "lisp-data.flags.iid": "1",
            "lisp-data.nonce": "11259375",
            "lisp-data.iid": "7",
            "lisp-data.lsb8": "0x81",
            "udp.dstport": "4341,9",
        },
    ),
    "data header, map versions": (
        DATA_PORT,
        DataHeader(map_versions=(0x123, 0x456), locator_status=0x80000001).encode() + inner,
        {
            "lisp-data.flags.mv": "1",
            "lisp-data.srcmapver": "291",
            "lisp-data.dstmapver": "1110",
            "lisp-data.lsb": "0x80000001",
            "udp.dstport": "4341,9",
        },
    ),
    "LISP-GPE, the P-bit as a reserved one": (
        DATA_PORT,
        DataHeader(instance_id=7, next_protocol=NextProtocol.IPV4).encode() + inner,
        {"lisp-data.flags.iid": "1", "lisp-data.flags.res": "0x04", "lisp-data.iid": "7", "udp.dstport": "4341,9"},
    ),
}
FIELDS: Final = tuple(
    sorted({"_ws.expert.message", "_ws.malformed"}.union(*[seen for _, _, seen in CASES.values()]))
)


def pcap(packets: Sequence[bytes]) -> bytes:
    """A capture file of raw IP packets."""
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, LINKTYPE_RAW)
    return head + b"".join(struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet for packet in packets)


def dissected(capture: Path) -> list[dict[str, str]]:
    """For each packet in ``capture`` the ``FIELDS`` that tshark read; several of a name joined by commas."""
    arguments = [
        "-o",
        "ip.check_checksum:TRUE",
        "-o",
        "udp.check_checksum:TRUE",
        "-T",
        "fields",
        "-E",
        "separator=/t",
    ]
    for field in FIELDS:
        arguments += ["-e", field]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(capture), *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What tshark read, by case."""
    capture = tmp_path_factory.mktemp("lisp") / "messages.pcap"
    packets = [
        pack_ipv4(SOURCE, TARGET, 17, pack_udp(SOURCE, TARGET, 50001, port, data))
        for port, data, _ in CASES.values()
    ]
    capture.write_bytes(pcap(packets))
    return dict(zip(CASES, dissected(capture), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_tshark_finds_nothing_wrong(seen: dict[str, dict[str, str]], case: str) -> None:
    assert (seen[case]["_ws.malformed"], seen[case]["_ws.expert.message"]) == ("", "")


@pytest.mark.parametrize("case", CASES)
def test_tshark_reads_what_was_meant(seen: dict[str, dict[str, str]], case: str) -> None:
    expected = CASES[case][2]
    assert {field: seen[case][field] for field in expected} == dict(expected)


def test_tshark_would_find_something_wrong(tmp_path: Path) -> None:
    data = CASES["ECM, IPv4"][1]
    spoilt = [data[:-1] + b"\xff", data[:12] + b"\xff" + data[13:], CASES["map-reply"][1][:-3]]
    capture = tmp_path / "spoilt.pcap"
    capture.write_bytes(
        pcap([pack_ipv4(SOURCE, TARGET, 17, pack_udp(SOURCE, TARGET, 1, CONTROL_PORT, each)) for each in spoilt])
    )
    for fields in dissected(capture):
        assert fields["_ws.malformed"] or fields["_ws.expert.message"]
