"""Ethernet, ARP, IPv4, UDP and ICMP: our bytes are those of os-ken, and broken ones are refused."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from os_ken.lib.packet import arp as os_arp
from os_ken.lib.packet import ethernet as os_ethernet
from os_ken.lib.packet import icmp as os_icmp
from os_ken.lib.packet import ipv4 as os_ipv4
from os_ken.lib.packet import packet as os_packet
from os_ken.lib.packet import udp as os_udp

from followme.packets import PacketError, peek
from followme.packets.arp import (
    ARP_REPLY,
    ARP_REQUEST,
    RARP_REQUEST,
    Arp,
    arp_reply_frame,
    arp_request_frame,
    pack_arp,
    parse_arp,
)
from followme.packets.checksum import internet_checksum
from followme.packets.ethernet import (
    BROADCAST,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_RARP,
    pack_ethernet,
    parse_ethernet,
)
from followme.packets.icmp import ECHO_REPLY, ECHO_REQUEST, Echo, echo_reply, pack_echo, parse_echo
from followme.packets.ipv4 import PROTO_UDP, pack_ipv4, parse_ipv4
from followme.packets.udp import pack_udp, parse_udp, udp_frame

A_MAC, B_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
A, B = IPv4Address("10.1.0.7"), IPv4Address("10.2.0.9")
A_TEXT, B_TEXT = "02:00:00:00:00:01", "02:00:00:00:00:02"


def tagged(frame: bytes) -> bytes:
    return frame[:12] + b"\x81\x00\x00\x2a" + frame[12:]


def os_udp_frame(payload: bytes) -> bytes:
    packet = os_packet.Packet()
    packet.add_protocol(os_ethernet.ethernet(dst=B_TEXT, src=A_TEXT, ethertype=0x0800))
    packet.add_protocol(os_ipv4.ipv4(src=str(A), dst=str(B), proto=17, ttl=64, flags=2))
    packet.add_protocol(os_udp.udp(src_port=5000, dst_port=6000))
    packet.add_protocol(payload)
    packet.serialize()
    return bytes(packet.data)


# --- Ethernet --------------------------------------------------------------------------------------------


def test_ethernet_head_and_payload() -> None:
    head = parse_ethernet(pack_ethernet(B_MAC, A_MAC, ETHERTYPE_RARP, b"payload"))
    assert head == (B_MAC, A_MAC, 0x8035, 14)


def test_ethernet_looks_through_one_tag_only() -> None:
    frame = pack_ethernet(B_MAC, A_MAC, ETHERTYPE_ARP, b"payload")
    assert parse_ethernet(tagged(frame)) == (B_MAC, A_MAC, ETHERTYPE_ARP, 18)
    assert parse_ethernet(tagged(tagged(frame))).ethertype == 0x8100


@pytest.mark.parametrize("frame", [b"", bytes(13), tagged(bytes(14))[:17]])
def test_ethernet_refuses_half_a_head(frame: bytes) -> None:
    with pytest.raises(PacketError, match="Ethernet frame"):
        parse_ethernet(frame)


def test_ethernet_refuses_to_pack_what_does_not_fit() -> None:
    with pytest.raises(PacketError, match="both take 6"):
        pack_ethernet(B_MAC, A_MAC[:5], 0x0800, b"")
    with pytest.raises(PacketError, match="16 bits"):
        pack_ethernet(B_MAC, A_MAC, 0x10000, b"")


# --- ARP ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [ARP_REQUEST, ARP_REPLY, RARP_REQUEST])
def test_arp_bytes_are_those_of_os_ken(op: int) -> None:
    arp = Arp(op, A_MAC, A.packed, B_MAC, B.packed)
    theirs = os_arp.arp(opcode=op, src_mac=A_TEXT, src_ip=str(A), dst_mac=B_TEXT, dst_ip=str(B))
    theirs_bytes = bytes(theirs.serialize(bytearray(), None))
    assert pack_arp(arp) == theirs_bytes
    assert parse_arp(b"head" + theirs_bytes + bytes(18), 4) == arp
    assert (arp.sender, arp.target) == (A, B)


def test_arp_reply_answers_the_asker() -> None:
    request_frame = arp_request_frame(A_MAC, A, B)
    head = parse_ethernet(request_frame)
    assert (head.dst, head.src, head.ethertype) == (BROADCAST, A_MAC, ETHERTYPE_ARP)
    reply_frame = arp_reply_frame(parse_arp(request_frame, head.payload_offset), B_MAC)
    assert parse_ethernet(reply_frame)[:2] == (A_MAC, B_MAC)
    assert parse_arp(reply_frame, 14) == Arp(ARP_REPLY, B_MAC, B.packed, A_MAC, A.packed)


def test_arp_knows_gratuitous_and_probe() -> None:
    assert parse_arp(arp_request_frame(A_MAC, A, A), 14).is_gratuitous
    assert not parse_arp(arp_request_frame(A_MAC, A, B), 14).is_gratuitous
    assert parse_arp(arp_request_frame(A_MAC, IPv4Address(0), B), 14).is_probe
    assert not parse_arp(arp_request_frame(A_MAC, A, B), 14).is_probe


@pytest.mark.parametrize("at", [0, 2, 4, 5])
def test_arp_refuses_other_hardware_and_protocols(at: int) -> None:
    good = bytearray(pack_arp(Arp(1, A_MAC, A.packed, B_MAC, B.packed)))
    good[at] ^= 0x40
    with pytest.raises(PacketError, match="only Ethernet"):
        parse_arp(bytes(good))


def test_arp_refuses_short_input_and_short_addresses() -> None:
    with pytest.raises(PacketError, match="27 bytes"):
        parse_arp(bytes(27))
    with pytest.raises(PacketError, match="addresses of 6"):
        pack_arp(Arp(1, A_MAC, A.packed, b"", B.packed))


# --- IPv4 and UDP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"odd", b"even", bytes(1472)])
def test_udp_frame_bytes_are_those_of_os_ken(payload: bytes) -> None:
    ours = udp_frame(B_MAC, A_MAC, A, B, 5000, 6000, payload)
    theirs = os_udp_frame(payload)
    # os-ken draws an identification where none is given, and pads the frame; the rest must be equal.
    packet = parse_ipv4(theirs, 14)
    assert ours == pack_ethernet(
        B_MAC, A_MAC, ETHERTYPE_IPV4, pack_ipv4(A, B, PROTO_UDP, packet.payload, identification=0)
    )
    assert ours[:18] == theirs[:18]
    assert ours[34:] == theirs[34 : len(ours)]
    assert parse_udp(packet.payload, addresses=(A, B)) == (5000, 6000, payload)


def test_ipv4_header_checksum_is_that_of_os_ken() -> None:
    theirs = os_udp_frame(b"payload")
    packet = parse_ipv4(theirs, 14)
    ours = pack_ipv4(A, B, PROTO_UDP, packet.payload, identification=packet.identification)
    assert ours == theirs[14 : 14 + len(ours)]


def test_ipv4_drops_ethernet_padding_and_reads_fragments() -> None:
    packet = pack_ipv4(A, B, 99, b"payload", ttl=3)
    parsed = parse_ipv4(packet + bytes(19))
    assert parsed.payload == b"payload"
    assert (parsed.src, parsed.dst, parsed.proto, parsed.ttl) == (A, B, 99, 3)
    assert (parsed.header_len, parsed.total_len, parsed.dont_fragment) == (20, 27, True)
    assert not parsed.is_fragment
    fragment = packet[:6] + b"\x20\x03" + packet[8:]
    parsed = parse_ipv4(fragment, verify=False)
    assert parsed.is_fragment
    assert (parsed.more_fragments, parsed.fragment_offset, parsed.dont_fragment) == (True, 24, False)


def test_ipv4_steps_over_options() -> None:
    plain = pack_ipv4(A, B, 99, b"payload")
    with_options = bytearray(
        b"\x46" + plain[1:2] + (31).to_bytes(2, "big") + plain[4:20] + b"\1\1\1\0" + b"payload"
    )
    with_options[10:12] = bytes(2)
    with_options[10:12] = internet_checksum(bytes(with_options[:24])).to_bytes(2, "big")
    parsed = parse_ipv4(bytes(with_options))
    assert (parsed.header_len, parsed.payload) == (24, b"payload")


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 0x65, "version 6"),
        (0, 0x44, "header of 16"),
        (0, 0x4F, "header of 60"),
        (3, 19, "total length 19"),
        (3, 28, "total length 28"),
        (8, 1, "checksum"),
    ],
)
def test_ipv4_refuses(at: int, value: int, message: str) -> None:
    packet = bytearray(pack_ipv4(A, B, 99, b"payload"))
    packet[at] = value
    with pytest.raises(PacketError, match=message):
        parse_ipv4(bytes(packet))


def test_ipv4_refuses_to_pack_what_does_not_fit() -> None:
    with pytest.raises(PacketError, match="at most"):
        pack_ipv4(A, B, 17, bytes(65516))
    with pytest.raises(PacketError, match="ttl 256"):
        pack_ipv4(A, B, 17, b"", ttl=256)


def test_udp_checksum_is_verified_if_there_is_one() -> None:
    datagram = pack_udp(A, B, 1, 2, b"payload")
    with pytest.raises(PacketError, match="checksum"):
        parse_udp(datagram[:-1] + b"D", addresses=(A, B))
    with pytest.raises(PacketError, match="checksum"):
        parse_udp(datagram, addresses=(A, A))
    unsummed = datagram[:6] + bytes(2) + datagram[8:]
    assert parse_udp(unsummed, addresses=(A, A)).payload == b"payload"
    assert parse_udp(datagram[:-1] + b"D").payload == b"payloaD"


def test_udp_checksum_of_zero_goes_out_as_all_ones() -> None:
    # The last word makes up the sum: with its own checksum in the place of the two last bytes it becomes 0.
    bare = pack_udp(A, B, 1, 2, bytes(2))
    datagram = pack_udp(A, B, 1, 2, bare[6:8])
    assert datagram[6:8] == b"\xff\xff"
    assert parse_udp(datagram, addresses=(A, B)).payload == bare[6:8]


@pytest.mark.parametrize("length", [0, 7, 16])
def test_udp_refuses_a_length_that_is_not_there(length: int) -> None:
    datagram = pack_udp(A, B, 1, 2, b"payload")
    with pytest.raises(PacketError, match=f"UDP length {length}"):
        parse_udp(datagram[:4] + length.to_bytes(2, "big") + datagram[6:])


def test_udp_refuses_half_a_header_and_large_ports() -> None:
    with pytest.raises(PacketError, match="7 bytes"):
        parse_udp(bytes(7))
    with pytest.raises(PacketError, match="65536"):
        pack_udp(A, B, 65536, 2, b"")


# --- ICMP --------------------------------------------------------------------------------------------------


def test_icmp_bytes_are_those_of_os_ken() -> None:
    echo = Echo(ECHO_REQUEST, 77, 3, b"payload")
    theirs = os_icmp.icmp(ECHO_REQUEST, 0, 0, os_icmp.echo(77, 3, b"payload"))
    assert pack_echo(echo) == bytes(theirs.serialize(bytearray(), None))
    assert parse_echo(b"head" + pack_echo(echo), 4) == echo
    assert echo_reply(echo) == Echo(ECHO_REPLY, 77, 3, b"payload")
    assert echo_reply(echo).is_reply
    assert not echo.is_reply


def test_icmp_refuses() -> None:
    good = pack_echo(Echo(ECHO_REQUEST, 77, 3, b"payload"))
    for bad, message in [
        (good[:7], "7 bytes"),
        (b"\3" + good[1:], "type 3"),
        (good[:1] + b"\1" + good[2:], "code 1"),
        (good[:-1] + b"D", "checksum"),
    ]:
        with pytest.raises(PacketError, match=message):
            parse_echo(bad)
    with pytest.raises(PacketError, match="type 3"):
        pack_echo(Echo(3, 1, 1, b""))
    with pytest.raises(PacketError, match="16 bits"):
        pack_echo(Echo(ECHO_REQUEST, 1, 65536, b""))


# --- peek --------------------------------------------------------------------------------------------------


def test_peek_sees_ipv4_plain_and_tagged() -> None:
    frame = udp_frame(B_MAC, A_MAC, A, B, 5000, 6000, b"payload")
    expected = (B_MAC, A_MAC, ETHERTYPE_IPV4, A.packed, B.packed, 17)
    assert peek(frame) == expected
    assert peek(tagged(frame)) == expected


def test_peek_needs_no_more_than_the_addresses() -> None:
    frame = udp_frame(B_MAC, A_MAC, A, B, 5000, 6000, b"payload")
    assert peek(frame[:34])[3:] == (A.packed, B.packed, 17)
    assert peek(tagged(frame)[:38])[3:] == (A.packed, B.packed, 17)
    for cut in (frame[:33], frame[:14], tagged(frame)[:37], tagged(frame)[:33]):
        with pytest.raises(PacketError, match="too short for IPv4"):
            peek(cut)


def test_peek_gives_no_addresses_of_other_protocols() -> None:
    frame = arp_request_frame(A_MAC, A, B)
    expected = (BROADCAST, A_MAC, ETHERTYPE_ARP, b"", b"", 0)
    assert peek(frame) == expected
    assert peek(tagged(frame)) == expected
    assert peek(frame[:14]) == expected
    assert peek(tagged(frame)[:18]) == expected


@pytest.mark.parametrize("start", [0x44, 0x65, 0x05])
def test_peek_refuses_what_is_not_ipv4(start: int) -> None:
    frame = bytearray(udp_frame(B_MAC, A_MAC, A, B, 5000, 6000, b"payload"))
    frame[14] = start
    for bad in (bytes(frame), tagged(bytes(frame))):
        with pytest.raises(PacketError, match="IPv4 header starts"):
            peek(bad)


@pytest.mark.parametrize("frame", [b"", bytes(13), tagged(bytes(14))[:17]])
def test_peek_refuses_half_a_head(frame: bytes) -> None:
    with pytest.raises(PacketError, match="shorter than its head"):
        peek(frame)
