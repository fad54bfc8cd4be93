"""What the LAN shows, and which of its frames reach Python at all."""

from __future__ import annotations

import ctypes
import socket
import struct
from ipaddress import ip_address

import pytest

from followme.packets.arp import Arp, pack_arp
from followme.xtr.lan import Seen, read_frame
from followme.xtr.lanfilter import Instruction, Interest, packed, program

from .bpf import passes
from .play import MAC, MAC2, OWN_MAC, eid, packet

ALL = b"\xff" * 6


def frame(source: str, target: str, mac: bytes = MAC) -> bytes:
    six = ip_address(source).version == 6
    return ALL + mac + (b"\x86\xdd" if six else b"\x08\x00") + packet(source, target, 60)


def arp(sender: str, target: str, mac: bytes = MAC, op: int = 1) -> bytes:
    body = pack_arp(Arp(op, mac, ip_address(sender).packed, bytes(6), ip_address(target).packed))
    return ALL + mac + b"\x08\x06" + body


def code(watched: tuple[str, ...] = ()) -> list[Instruction]:
    return program(Interest(
        OWN_MAC,
        ranges=(eid("10.4.0.0/16"), eid("fd00:4::/32")),
        quiet=(eid("10.3.0.0/24"),),
        loud=frozenset([eid("10.3.0.10/32")]),
        known=frozenset([eid("10.4.0.7/32"), eid("fd00:4::7/128")]),
        watched=frozenset(map(eid, watched)),
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("source", "through"),
    [
        ("10.3.0.5", False),  # at home in our subnet
        ("10.3.0.10", True),  # of our subnet, but it had moved out
        ("10.4.0.7", False),  # moved in, known
        ("10.4.0.8", True),  # new
        ("10.5.0.8", False),  # may not roam here
        ("fd00:4::7", False),
        ("fd00:4::8", True),
        ("fd00:5::8", False),
    ],
)
def test_only_first_packets_of_newcomers_come_through(source: str, through: bool) -> None:
    target = "fd00:1::9" if ":" in source else "10.1.0.9"
    assert passes(code(), frame(source, target)) is through
    assert not passes(code(), frame(source, target, OWN_MAC))  # bounced, or our own
    assert not passes(code(), frame(source, target), pkttype=4)  # outgoing


def test_arp_and_neighbour_discovery_come_through() -> None:
    assert passes(code(), arp("10.3.0.5", "10.3.0.1"))
    assert not passes(code(), arp("10.3.0.5", "10.3.0.1", OWN_MAC))
    nd = bytearray(frame("fe80::7", "ff02::1"))
    nd[20], nd[54] = 58, 136
    assert passes(code(), bytes(nd))
    nd[54] = 128
    assert not passes(code(), bytes(nd))


def test_packets_to_watched_eids_come_through() -> None:
    assert not passes(code(), frame("10.3.0.5", "10.1.0.9"))
    watching = code(("10.1.0.0/24", "fd00:1::/64"))
    assert passes(watching, frame("10.3.0.5", "10.1.0.9"))
    assert not passes(watching, frame("10.3.0.5", "10.2.0.9"))
    assert passes(watching, frame("fd00:3::5", "fd00:1::9"))


def test_the_largest_program_is_one_that_the_kernel_takes() -> None:
    many = [eid(f"10.4.{n >> 8}.{n & 255}/32") for n in range(5000)]
    many += [eid(f"fd00:4::{n:x}/128") for n in range(500)]
    ranges = [eid(f"10.{n}.0.0/16") for n in range(100)] + [eid(f"fd00:{n:x}::/127") for n in range(100)]
    watched = [*many, *ranges]
    hosts = frozenset(many)
    largest = program(Interest(OWN_MAC, tuple(ranges), tuple(ranges), hosts, hosts, frozenset(watched)))
    assert len(largest) <= 4096
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        buffer = ctypes.create_string_buffer(packed(largest))
        head = struct.pack("HxxxxxxP", len(largest), ctypes.addressof(buffer))
        sock.setsockopt(socket.SOL_SOCKET, 26, head)


def test_frames_are_read() -> None:
    assert read_frame(frame("10.4.0.8", "10.1.0.9"), 0) == Seen(MAC, eid("10.4.0.8/32"), eid("10.1.0.9/32"))
    assert read_frame(arp("10.4.0.8", "10.4.0.8"), 0) == Seen(MAC, eid("10.4.0.8/32"))
    assert read_frame(arp("0.0.0.0", "10.4.0.8"), 0) is None  # a probe claims nothing (RFC 5227)
    spoken_for = MAC2.join([arp("10.4.0.8", "10.4.0.1")[:6], arp("10.4.0.8", "10.4.0.1")[12:]])
    assert read_frame(spoken_for, 0) is None  # the frame's sender is not ARP's
    for source in ("0.0.0.0", "224.0.0.1", "127.0.0.1", "255.255.255.255", "fe80::1", "ff02::1", "::"):
        seen = read_frame(frame(source, "fd00::1" if ":" in source else "10.1.0.9"), 0)
        assert seen is not None
        assert seen.source is None
