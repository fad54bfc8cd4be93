"""Messages and their octets, laid out by hand from the figures of RFC 9301 (5.2 to 5.8) and RFC 9437 (5)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from followme.lisp import (
    Action,
    EidPrefix,
    EidRecord,
    EncapsulatedControlMessage,
    Lcaf,
    LcafEid,
    Locator,
    MapNotify,
    MapNotifyAck,
    MappingRecord,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    UnknownMessage,
)

NONCE = 0x0102030405060708
XTR = bytes(range(0x10, 0x20))
RLOC = IPv4Address("192.0.2.1")
RLOC6 = IPv6Address("2001:db8::1")
HOST = EidPrefix.of("10.0.0.5/32")
NET = EidPrefix.of("10.1.0.0/16", iid=7)
NET6 = EidPrefix.of("2001:db8:e::/48")

_NONCE = "01020304 05060708 "
_RLOC6 = "20010db8 00000000 00000000 00000001 "
_HOST = "0001 0a000005 "
_NET = "4003 00 00 02 20 000a 00000007 0001 0a010000 "
_NET6 = "0002 20010db8 000e0000 00000000 00000000 "
_XTR = "10111213 14151617 18191a1b 1c1d1e1f 00000000 0000002a "
_POSITIVE = "000005a0 02 20 1000 0000 " + _HOST + "01 64 ff 00 0005 0001 c0000201 02 32 ff 00 0002 0002 " + _RLOC6
_NEGATIVE = "0000000f 00 10 2000 0fff " + _NET

positive = MappingRecord(
    HOST,
    (Locator(RLOC, 1, 100, local=True), Locator(RLOC6, 2, 50, probed=True, reachable=False)),
    ttl=1440,
    authoritative=True,
)
negative = MappingRecord(NET, ttl=15, action=Action.NATIVELY_FORWARD, map_version=0xFFF)

VECTORS: dict[str, tuple[str, Message]] = {
    "map-request": (
        "10000001 " + _NONCE + "0000 0001 c0000201 00 20 " + _HOST,
        MapRequest(NONCE, (RLOC,), (EidRecord(HOST),)),
    ),
    "map-request, every flag": (
        "1fd06102 "
        + _NONCE
        + _NET
        + "0001 c0000201 0002 "
        + _RLOC6
        + "80 10 "
        + _NET
        + "00 30 "
        + _NET6
        + _POSITIVE
        + _XTR,
        MapRequest(
            NONCE,
            (RLOC, RLOC6),
            (EidRecord(NET, notify=True), EidRecord(NET6)),
            EidPrefix.of("10.1.0.0/32", iid=7),
            authoritative=True,
            probe=True,
            smr=True,
            pitr=True,
            smr_invoked=True,
            local_xtr=True,
            dont_map_reply=True,
            map_reply=positive,
            xtr_id=XTR,
            site_id=42,
        ),
    ),
    "solicit-map-request": (
        "11000001 " + _NONCE + _HOST + "0001 c0000201 00 10 " + _NET,
        MapRequest(NONCE, (RLOC,), (EidRecord(NET),), HOST, smr=True),
    ),
    "rloc-probe": (
        "12000001 " + _NONCE + "0000 0002 " + _RLOC6 + "00 30 " + _NET6,
        MapRequest(NONCE, (RLOC6,), (EidRecord(NET6),), probe=True),
    ),
    "subscription": (
        "10100001 " + _NONCE + "0000 0001 c0000201 80 20 " + _HOST + _XTR,
        MapRequest(NONCE, (RLOC,), (EidRecord(HOST, notify=True),), xtr_id=XTR, site_id=42),
    ),
    "map-request for an unknown LCAF": (
        "10000001 " + _NONCE + "0000 0001 c0000201 00 18 4003 01 02 0c 03 0004 deadbeef",
        MapRequest(NONCE, (RLOC,), (EidRecord(LcafEid(Lcaf(12, b"\xde\xad\xbe\xef", 2, 1, 3), 24)),)),
    ),
    "map-reply": (
        "2c000002 " + _NONCE + _POSITIVE + _NEGATIVE,
        MapReply(NONCE, (positive, negative), probe=True, echo_nonce=True),
    ),
    "map-reply with LISP-SEC": (
        "22000001 " + _NONCE + _NEGATIVE + "00010203",
        MapReply(NONCE, (negative,), security=b"\0\1\2\3"),
    ),
    "map-reply, locator without address, locator in an LCAF": (
        "20000001 "
        + _NONCE
        + "00000001 02 30 6000 0000 "
        + _NET6
        + "ff 00 ff 00 0000 0000 00 00 00 00 0001 4003 00 00 05 00 0002 abcd",
        MapReply(
            NONCE,
            (
                MappingRecord(
                    NET6,
                    (Locator(None, 255, 0, reachable=False), Locator(Lcaf(5, b"\xab\xcd"), 0, 0, 0, 0)),
                    ttl=1,
                    action=Action.DROP,
                ),
            ),
        ),
    ),
    "map-register": (
        "3e000d01 " + _NONCE + "03 02 0010 " + "aa" * 16 + _POSITIVE + _XTR,
        MapRegister(
            NONCE,
            (positive,),
            proxy_map_reply=True,
            security=True,
            use_ttl=True,
            merge=True,
            want_map_notify=True,
            xtr_id=XTR,
            site_id=42,
            key_id=3,
            algorithm_id=2,
            authentication=b"\xaa" * 16,
        ),
    ),
    "map-notify": (
        "40000001 " + _NONCE + "00 01 0014 " + "bb" * 20 + _NEGATIVE,
        MapNotify(NONCE, (negative,), algorithm_id=1, authentication=b"\xbb" * 20),
    ),
    "map-notify with xTR-ID": (
        "48000001 " + _NONCE + "00 00 0000 " + _NEGATIVE + _XTR,
        MapNotify(NONCE, (negative,), xtr_id=XTR, site_id=42),
    ),
    "map-notify-ack": (
        "50000001 " + _NONCE + "00 02 0010 " + "cc" * 16 + _POSITIVE,
        MapNotifyAck(NONCE, (positive,), algorithm_id=2, authentication=b"\xcc" * 16),
    ),
    "info-request": (
        "70000000 " + _NONCE + "00000000",
        UnknownMessage(bytes.fromhex("70000000" + _NONCE + "00000000")),
    ),
    # The inner checksums were summed word by word, not by the library.
    "ecm, IPv4": (
        "80000000 45000038 00004000 401126af 0a010001 0a000005 c350 10f6 0024 2b1b "
        "10000001 " + _NONCE + "0000 0001 c0000201 00 20 " + _HOST,
        EncapsulatedControlMessage(
            IPv4Address("10.1.0.1"),
            IPv4Address("10.0.0.5"),
            MapRequest(NONCE, (RLOC,), (EidRecord(HOST),)),
            source_port=50000,
        ),
    ),
    "ecm, IPv6, DDT": (
        "84000000 60000000 0030 11 40 20010db8 00000000 00000000 00000009 "
        "20010db8 000e0000 00000000 00000005 10f6 10f6 0030 7203 "
        "10000001 " + _NONCE + "0000 0001 c0000201 00 30 " + _NET6,
        EncapsulatedControlMessage(
            IPv6Address("2001:db8::9"),
            IPv6Address("2001:db8:e::5"),
            MapRequest(NONCE, (RLOC,), (EidRecord(NET6),)),
            ddt=True,
        ),
    ),
}


def octets(name: str) -> bytes:
    return bytes.fromhex(VECTORS[name][0])


def rewrite(data: bytes, at: int, value: bytes, header: slice) -> bytes:
    """``data`` with ``value`` at ``at``, and an IPv4 header checksum that is right again."""
    changed = bytearray(data)
    changed[at : at + len(value)] = value
    words = changed[header]
    words[10:12] = b"\0\0"
    total = sum(words[i] << 8 | words[i + 1] for i in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    changed[header.start + 10 : header.start + 12] = (0xFFFF - total).to_bytes(2, "big")
    return bytes(changed)
