"""Whatever the bytes, a parser gives a packet or ``PacketError``; whatever the packet, bytes give it back."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from followme.packets import PacketError, peek
from followme.packets.arp import Arp, pack_arp, parse_arp
from followme.packets.checksum import internet_checksum
from followme.packets.dhcp import Dhcp, pack_dhcp, parse_dhcp
from followme.packets.dhcp_frames import client_frame, is_client_frame, parse_client_frame
from followme.packets.ethernet import pack_ethernet, parse_ethernet
from followme.packets.icmp import Echo, pack_echo, parse_echo
from followme.packets.ipv4 import pack_ipv4, parse_ipv4
from followme.packets.probe import Probe, pack_probe, parse_probe
from followme.packets.udp import pack_udp, parse_udp

KEY = bytes(range(16))
MAC = b"\2\0\0\0\0\1"
A, B = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")

PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "ethernet": (parse_ethernet, pack_ethernet(MAC, MAC, 0x8100, bytes(20))),
    "peek": (peek, client_frame(Dhcp(1, 1, MAC))),
    "arp": (parse_arp, pack_arp(Arp(1, MAC, A.packed, MAC, B.packed))),
    "ipv4": (parse_ipv4, pack_ipv4(A, B, 17, b"payload")),
    "ipv4 unverified": (lambda data: parse_ipv4(data, verify=False), pack_ipv4(A, B, 17, b"payload")),
    "udp": (lambda data: parse_udp(data, addresses=(A, B)), pack_udp(A, B, 1, 2, b"payload")),
    "icmp": (parse_echo, pack_echo(Echo(8, 1, 2, b"payload"))),
    "dhcp": (parse_dhcp, pack_dhcp(Dhcp(1, 1, MAC, options={53: b"\1", 52 + 9: b"id", 12: b"name"}))),
    "dhcp frame": (parse_client_frame, client_frame(Dhcp(1, 1, MAC, options={53: b"\1"}))),
    "is dhcp frame": (is_client_frame, client_frame(Dhcp(1, 1, MAC, options={53: b"\1"}))),
    "probe": (lambda data: parse_probe(data, KEY), pack_probe(Probe(1, 2, 3, 4), KEY)),
}

octets = st.integers(0, 255)
addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
macs = st.binary(min_size=6, max_size=6)


def assert_parsed_or_refused(parser: Callable[[bytes], object], data: bytes) -> None:
    """Any exception but the library's own would pass through here and fail the test."""
    refusal = "nothing was refused"
    try:
        parser(data)
    except PacketError as refused:
        refusal = str(refused)
    assert refusal, "a refusal says what was wrong"


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=400))
def test_any_bytes(name: str, data: bytes) -> None:
    assert_parsed_or_refused(PARSERS[name][0], data)


@pytest.mark.parametrize("name", PARSERS)
@given(edits=st.lists(st.tuples(st.integers(0, 400), octets), max_size=6), cut=st.integers(0, 400))
def test_good_packets_with_damage(name: str, edits: list[tuple[int, int]], cut: int) -> None:
    parser, good = PARSERS[name]
    parser(good)
    damaged = bytearray(good)
    for at, value in edits:
        damaged[at % len(damaged)] = value
    assert_parsed_or_refused(parser, bytes(damaged))
    assert_parsed_or_refused(parser, bytes(damaged[:cut]))


@given(options=st.binary(max_size=200), fields=st.binary(min_size=192, max_size=192))
def test_any_dhcp_options(options: bytes, fields: bytes) -> None:
    head = pack_dhcp(Dhcp(1, 1, MAC))
    assert_parsed_or_refused(parse_dhcp, head[:44] + fields + head[236:240] + b"\x34\1\3" + options)


@given(
    flags=st.integers(0, 0xFFFF),
    four=st.tuples(addresses, addresses, addresses, addresses),
    chaddr=macs,
    options=st.dictionaries(
        st.integers(1, 254).filter(lambda code: code not in (50, 51, 52, 53, 54)),
        st.binary(max_size=300),
        max_size=3,
    ),
)
def test_dhcp_round_trip(
    flags: int,
    four: tuple[IPv4Address, IPv4Address, IPv4Address, IPv4Address],
    chaddr: bytes,
    options: dict[int, bytes],
) -> None:
    ciaddr, yiaddr, siaddr, giaddr = four
    message = Dhcp(2, 7, chaddr, 1, flags, ciaddr, yiaddr, siaddr, giaddr, options)
    assert parse_dhcp(pack_dhcp(message)) == message


@given(
    src=addresses,
    dst=addresses,
    ports=st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    data=st.binary(),
)
def test_udp_in_ipv4_round_trip(
    src: IPv4Address, dst: IPv4Address, ports: tuple[int, int], data: bytes
) -> None:
    packet = parse_ipv4(pack_ipv4(src, dst, 17, pack_udp(src, dst, *ports, data)))
    assert (packet.src, packet.dst) == (src, dst)
    assert parse_udp(packet.payload, addresses=(src, dst)) == (*ports, data)


@given(data=st.binary(max_size=3000))
def test_checksum_is_that_of_the_loop_in_rfc_1071(data: bytes) -> None:
    total = 0
    padded = data + b"\0" * (len(data) % 2)
    for at in range(0, len(padded), 2):
        total += padded[at] << 8 | padded[at + 1]
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert internet_checksum(data) == ~total & 0xFFFF


@given(data=st.binary(min_size=14, max_size=60), tag=st.booleans())
def test_peek_agrees_with_the_slow_parsers(data: bytes, tag: bool) -> None:
    frame = data[:12] + (b"\x81\0\0\1" if tag else b"") + b"\x08\0\x45" + data[12:]
    try:
        seen = peek(frame)
    except PacketError:
        assert len(frame) < (38 if tag else 34)
        return
    head = parse_ethernet(frame)
    start = head.payload_offset
    assert seen[:3] == head[:3]
    assert seen[3:] == (frame[start + 12 : start + 16], frame[start + 16 : start + 20], frame[start + 9])
