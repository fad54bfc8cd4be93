"""DHCP: the codec against os-ken's, and where a server's answers go."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from os_ken.lib.packet import dhcp as os_dhcp

from followme.packets import PacketError
from followme.packets.checksum import internet_checksum
from followme.packets.dhcp import (
    BOOTREPLY,
    BOOTREQUEST,
    BROADCAST_FLAG,
    OPTION_CLIENT_ID,
    OPTION_DNS,
    OPTION_HOSTNAME,
    OPTION_LEASE_TIME,
    OPTION_MESSAGE_TYPE,
    OPTION_OVERLOAD,
    OPTION_PARAMETER_LIST,
    OPTION_REQUESTED_IP,
    OPTION_ROUTER,
    OPTION_SERVER_ID,
    Dhcp,
    MessageType,
    pack_dhcp,
    parse_dhcp,
)
from followme.packets.dhcp_frames import (
    answer,
    client_frame,
    is_client_frame,
    parse_client_frame,
    reply_frame,
)
from followme.packets.ethernet import BROADCAST, parse_ethernet
from followme.packets.ipv4 import parse_ipv4
from followme.packets.udp import parse_udp, udp_frame

MAC = bytes.fromhex("020000000001")
SERVER_MAC = bytes.fromhex("0200000000fe")
SERVER, OFFERED = IPv4Address("10.1.0.1"), IPv4Address("10.1.0.7")
EVERYONE = IPv4Address("255.255.255.255")
FIXED = 240

REQUEST = Dhcp(
    op=BOOTREQUEST,
    xid=0xDEADBEEF,
    chaddr=MAC,
    secs=3,
    options={
        OPTION_MESSAGE_TYPE: b"\3",
        OPTION_REQUESTED_IP: OFFERED.packed,
        OPTION_SERVER_ID: SERVER.packed,
        OPTION_CLIENT_ID: b"\1" + MAC,
        OPTION_HOSTNAME: b"phone",
        OPTION_PARAMETER_LIST: b"\1\3\6",
    },
)


def message(options: bytes, *, sname: bytes = b"", file: bytes = b"") -> bytes:
    """The bytes of a discover with ``options`` behind the cookie."""
    fixed = pack_dhcp(Dhcp(op=BOOTREQUEST, xid=1, chaddr=MAC))[:FIXED]
    return fixed[:44] + sname.ljust(64, b"\0") + file.ljust(128, b"\0") + fixed[236:] + options


def sent(frame: bytes) -> tuple[bytes, IPv4Address, IPv4Address, int, int]:
    """Destination MAC, source and destination address and ports of a frame, checksums verified."""
    packet = parse_ipv4(frame, 14)
    datagram = parse_udp(packet.payload, addresses=(packet.src, packet.dst))
    return parse_ethernet(frame).dst, packet.src, packet.dst, datagram.src_port, datagram.dst_port


# --- the codec ---------------------------------------------------------------------------------------------


def test_a_request_reads_as_it_was_written() -> None:
    packed = pack_dhcp(REQUEST)
    assert len(packed) == 300
    parsed = parse_dhcp(packed)
    assert parsed == REQUEST
    assert parsed.message_type is MessageType.REQUEST
    assert (parsed.requested_ip, parsed.server_id, parsed.client_id) == (OFFERED, SERVER, b"\1" + MAC)
    assert (parsed.hostname, parsed.parameter_list, parsed.lease_time_s) == ("phone", (1, 3, 6), None)


def test_absent_options_read_as_absent() -> None:
    bare = parse_dhcp(pack_dhcp(Dhcp(op=BOOTREQUEST, xid=1, chaddr=MAC)))
    assert bare.message_type is None
    assert (bare.requested_ip, bare.server_id, bare.client_id, bare.hostname) == (None, None, None, None)
    assert bare.parameter_list == ()
    assert parse_dhcp(message(b"\x35\1\x0d\xff")).message_type is None  # RFC 6926's type, unknown here


def test_os_ken_reads_what_we_write() -> None:
    reply = answer(REQUEST, MessageType.ACK, server=SERVER, yiaddr=OFFERED, lease_s=600)
    theirs, _, _ = os_dhcp.dhcp.parser(pack_dhcp(reply))
    assert (theirs.op, theirs.xid, theirs.yiaddr, theirs.chaddr) == (
        2,
        0xDEADBEEF,
        "10.1.0.7",
        "02:00:00:00:00:01",
    )
    assert [(option.tag, option.value) for option in theirs.options.option_list] == [
        (OPTION_MESSAGE_TYPE, b"\5"),
        (OPTION_SERVER_ID, SERVER.packed),
        (OPTION_LEASE_TIME, (600).to_bytes(4, "big")),
        (OPTION_CLIENT_ID, b"\1" + MAC),
    ]


def test_we_read_what_os_ken_writes() -> None:
    options = os_dhcp.options(
        [
            os_dhcp.option(OPTION_MESSAGE_TYPE, b"\1"),
            os_dhcp.option(OPTION_HOSTNAME, b"phone"),
        ]
    )
    theirs = os_dhcp.dhcp(op=1, chaddr="02:00:00:00:00:01", xid=5, flags=0x8000, options=options)
    parsed = parse_dhcp(bytes(theirs.serialize(bytearray(), None)))
    assert (parsed.xid, parsed.chaddr, parsed.broadcast) == (5, MAC, True)
    assert (parsed.message_type, parsed.hostname) == (MessageType.DISCOVER, "phone")


def test_the_message_type_goes_first() -> None:
    packed = pack_dhcp(Dhcp(BOOTREQUEST, 1, MAC, options={OPTION_HOSTNAME: b"x", OPTION_MESSAGE_TYPE: b"\1"}))
    assert packed[FIXED : FIXED + 6] == b"\x35\1\1\x0c\1x"


def test_long_options_are_split_and_joined() -> None:
    long = bytes(range(256)) * 2
    packed = pack_dhcp(Dhcp(BOOTREQUEST, 1, MAC, options={43: long, 60: b""}))
    assert packed[FIXED : FIXED + 2] == b"\x2b\xff"
    assert packed[FIXED + 257 : FIXED + 259] == b"\x2b\xff"
    assert packed[FIXED + 514 : FIXED + 516] == b"\x2b\x02"
    assert parse_dhcp(packed).options == {43: long, 60: b""}


def test_overloaded_fields_are_read_in_the_order_of_rfc_3396() -> None:
    data = message(b"\0\x34\1\3\x2b\1a\xff", file=b"\x2b\1b\x0c\5phone\xff", sname=b"\x2b\1c\xff\x2b\1d")
    assert parse_dhcp(data).options == {43: b"abc", OPTION_HOSTNAME: b"phone"}
    only_file = message(b"\x34\1\1\xff", file=b"\x2b\1b\xff", sname=b"server name")
    assert parse_dhcp(only_file).options == {43: b"b"}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "0 bytes"),
        (message(b"")[:239], "239 bytes"),
        (message(bytes(1233)), "1473 bytes"),
        (message(b""), "no end"),
        (message(bytes(60)), "no end"),
        (message(b"\x35"), "runs out of the options"),
        (message(b"\x35\2\1"), "runs out of the options"),
        (message(b"\x35\2\1\1\xff"), "option 53 of 2 bytes"),
        (message(b"\x35\0\xff"), "option 53 of 0 bytes"),
        (message(b"\x32\3abc\xff"), "option 50 of 3 bytes"),
        (message(b"\x33\4abcd\x33\1a\xff"), "option 51 of 5 bytes"),
        (message(b"\x34\1\4\xff"), "overload 04"),
        (message(b"\x34\1\1\xff"), "file field has no end"),
        (message(b"\x34\1\2\xff", sname=b"\x2b\xff"), "runs out of the sname"),
        (message(b"\x34\1\1\xff", file=b"\x34\1\2\xff"), "inside an overloaded"),
        (b"\3" + message(b"\xff")[1:], "op 3"),
        (message(b"\xff")[:1] + b"\6" + message(b"\xff")[2:], "hardware type 6"),
        (message(b"\xff")[:2] + b"\x10" + message(b"\xff")[3:], "with 16 bytes"),
        (message(b"\xff")[:236] + b"\0" + message(b"\xff")[237:], "magic cookie"),
    ],
)
def test_broken_messages_are_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(PacketError, match=complaint):
        parse_dhcp(data)


@pytest.mark.parametrize("code", [0, 255, 256, -1, OPTION_OVERLOAD])
def test_options_that_are_none_are_not_sent(code: int) -> None:
    with pytest.raises(PacketError, match=f"option {code} cannot"):
        pack_dhcp(Dhcp(BOOTREQUEST, 1, MAC, options={code: b""}))


def test_what_fits_in_no_frame_is_not_sent() -> None:
    with pytest.raises(PacketError, match="at most 1472"):
        pack_dhcp(Dhcp(BOOTREQUEST, 1, MAC, options={43: bytes(1230)}))
    with pytest.raises(PacketError, match="chaddr of 5"):
        Dhcp(BOOTREQUEST, 1, MAC[:5])
    with pytest.raises(PacketError, match="xid"):
        Dhcp(BOOTREQUEST, 2**32, MAC)


# --- frames ------------------------------------------------------------------------------------------------


def test_client_frames_are_recognised_and_read() -> None:
    frame = client_frame(REQUEST)
    assert sent(frame) == (BROADCAST, IPv4Address(0), EVERYONE, 68, 67)
    vlan = frame[:12] + b"\x81\x00\x00\x07" + frame[12:]
    for one in (frame, vlan):
        assert is_client_frame(one)
        assert parse_client_frame(one) == REQUEST


def test_other_frames_are_no_clients() -> None:
    frame = client_frame(REQUEST)
    other_way = reply_frame(
        answer(REQUEST, MessageType.OFFER, server=SERVER, yiaddr=OFFERED),
        server_mac=SERVER_MAC,
        server=SERVER,
    )
    tcp = frame[:23] + b"\6" + frame[24:]
    fragment = frame[:20] + b"\0\1" + frame[22:]
    ipv6 = frame[:12] + b"\x86\xdd" + frame[14:]
    version = frame[:14] + b"\x65" + frame[15:]
    for other in (other_way, tcp, fragment, ipv6, version, frame[:41], b""):
        assert not is_client_frame(other)
        with pytest.raises(PacketError):
            parse_client_frame(other)


def test_a_damaged_or_misplaced_message_is_refused() -> None:
    frame = client_frame(REQUEST)
    assert is_client_frame(frame[:-20] + b"\x55" + frame[-19:])
    with pytest.raises(PacketError, match="UDP checksum"):
        parse_client_frame(frame[:-20] + b"\x55" + frame[-19:])
    reply = pack_dhcp(answer(REQUEST, MessageType.ACK, server=SERVER))
    on_client_ports = udp_frame(BROADCAST, MAC, IPv4Address(0), EVERYONE, 68, 67, reply)
    with pytest.raises(PacketError, match="reply on a client's ports"):
        parse_client_frame(on_client_ports)


def test_a_first_fragment_is_refused() -> None:
    """Its end is missing, though its own bytes may be in order."""
    frame = client_frame(REQUEST)
    more = bytearray(frame[14:34])
    more[6:8], more[10:12] = b"\x20\x00", b"\0\0"
    more[10:12] = internet_checksum(bytes(more)).to_bytes(2, "big")
    with pytest.raises(PacketError, match="whole UDP datagrams"):
        parse_client_frame(frame[:14] + bytes(more) + frame[34:])


def offer(request: Dhcp, kind: MessageType = MessageType.OFFER) -> bytes:
    reply = answer(request, kind, server=SERVER, yiaddr=OFFERED, lease_s=60)
    return reply_frame(reply, server_mac=SERVER_MAC, server=SERVER, ciaddr=request.ciaddr)


def test_answers_go_where_rfc_2131_section_4_1_says() -> None:
    own = IPv4Address("10.1.0.200")
    plain = Dhcp(BOOTREQUEST, 9, MAC)
    assert sent(offer(plain)) == (MAC, SERVER, OFFERED, 67, 68)
    asks_broadcast = Dhcp(BOOTREQUEST, 9, MAC, flags=BROADCAST_FLAG)
    assert sent(offer(asks_broadcast)) == (BROADCAST, SERVER, EVERYONE, 67, 68)
    has_address = Dhcp(BOOTREQUEST, 9, MAC, flags=BROADCAST_FLAG, ciaddr=own)
    assert sent(offer(has_address)) == (MAC, SERVER, own, 67, 68)
    assert sent(offer(has_address, MessageType.ACK)) == (MAC, SERVER, own, 67, 68)
    assert sent(offer(has_address, MessageType.NAK)) == (BROADCAST, SERVER, EVERYONE, 67, 68)


def test_an_answer_through_a_relay_goes_to_the_relay() -> None:
    relay = IPv4Address("10.3.0.1")
    request = Dhcp(BOOTREQUEST, 9, MAC, giaddr=relay)
    nak = answer(request, MessageType.NAK, server=SERVER)
    assert nak.broadcast
    assert sent(reply_frame(nak, server_mac=SERVER_MAC, server=SERVER, relay_mac=b"\2relay")) == (
        b"\2relay",
        SERVER,
        relay,
        67,
        67,
    )
    with pytest.raises(PacketError, match="without its MAC"):
        reply_frame(nak, server_mac=SERVER_MAC, server=SERVER)


def test_answer_fills_the_fields_of_table_3() -> None:
    own = IPv4Address("10.1.0.200")
    request = Dhcp(
        BOOTREQUEST, 9, MAC, secs=4, flags=BROADCAST_FLAG, ciaddr=own, options={OPTION_CLIENT_ID: b"id"}
    )
    extra = {OPTION_ROUTER: SERVER.packed, OPTION_DNS: SERVER.packed}
    ack = answer(request, MessageType.ACK, server=SERVER, yiaddr=OFFERED, lease_s=60, options=extra)
    assert (ack.op, ack.xid, ack.secs, ack.chaddr, ack.ciaddr, ack.yiaddr) == (
        BOOTREPLY,
        9,
        0,
        MAC,
        own,
        OFFERED,
    )
    assert (ack.broadcast, ack.client_id, ack.lease_time_s, ack.server_id) == (True, b"id", 60, SERVER)
    assert ack.options[OPTION_ROUTER] == SERVER.packed
    assert answer(request, MessageType.OFFER, server=SERVER, yiaddr=OFFERED).ciaddr == IPv4Address(0)
    nak = answer(request, MessageType.NAK, server=SERVER, yiaddr=OFFERED)
    assert (nak.yiaddr, nak.ciaddr, nak.lease_time_s) == (IPv4Address(0), IPv4Address(0), None)


def test_answer_refuses_what_no_server_says() -> None:
    with pytest.raises(PacketError, match="DISCOVER"):
        answer(REQUEST, MessageType.DISCOVER, server=SERVER)
    with pytest.raises(PacketError, match="lease"):
        answer(REQUEST, MessageType.ACK, server=SERVER, lease_s=-1)
