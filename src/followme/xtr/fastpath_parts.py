"""What the programs of the fast path are made of. R6 is the context throughout; a jump to ``pass`` leaves the
packet to the kernel.
"""

from __future__ import annotations

from followme.xtr.bpf import FP, R0, R1, R2, R3, R4, R6, R7, R8, Helper, Program
from followme.xtr.device import OVERHEAD

PASS, DROP = 0, 2
GROWTH = OVERHEAD[4]
LEN, PKTTYPE, PROTOCOL, VLAN, DATA, END, GSO_SIZE = 0, 4, 16, 20, 76, 80, 176
"""Offsets in ``struct __sk_buff``."""
ETHERNET, INNER = 14, 14 + OVERHEAD[4]
FIXED_GSO, ENCAP_IP4, ENCAP_UDP = 1, 2, 16
FIB_OUTPUT = 2
FIB, FIB_BYTES, NEXTHOP, NEXTHOP_BYTES, KEY, MTU, FOUND, SEGMENT = -64, 64, -88, 20, -96, -100, -104, -108
"""Places on the stack: ``struct bpf_fib_lookup``, ``struct bpf_redir_neigh`` and single words."""
INET, TCP = 2, 6
HOST_WORD = 0x0008
"""ETH_P_IP as a word of a little-endian machine."""
VERIFYING = 63
"""In one of 64 ticks of the kernel packets go by its neighbour also where they could be handed to the peer: only
so does it see that the neighbour is in use, and verify it (RFC 4861, 7.3)."""
_MAC_MODE = 1
_FIB_SKIP_NEIGH, _FIB_NO_NEIGH = 4, 7
_FIB_SOURCE_MAC, _FIB_MAC = 52, 58


def begin(code: Program, length: int, *, whole: bool = True) -> None:
    """R7, R8: the packet and its end, with ``length`` bytes at least. ``whole``: no super-packet."""
    code.copy(R6, R1)
    wants = [(PKTTYPE, 0), (PROTOCOL, HOST_WORD), (VLAN, 0)] + [(GSO_SIZE, 0)] * whole
    for offset, wanted in wants:
        code.load(4, R2, R6, offset)
        code.unless_equal(R2, wanted, "pass")
    code.load(4, R7, R6, DATA)
    code.load(4, R8, R6, END)
    code.copy(R2, R7)
    code.add(R2, length)
    code.if_register_above(R2, R8, "pass")


def inner_is_usual(code: Program, packet: int, at: int) -> None:
    code.load(1, R2, packet, at)
    code.unless_equal(R2, 0x45, "pass")  # options are the kernel's
    code.load(1, R2, packet, at + 8)
    code.if_equal(R2, 0, "pass")
    code.if_equal(R2, 1, "pass")  # the kernel answers by ICMP


def segment(code: Program, packet: int, at: int) -> None:
    """R2 from the size of the super-packet's payloads to that of its longest segment, from the IP header on. The
    TCP header's fixed part must be there."""
    code.load(1, R3, packet, at + 9)
    code.unless_equal(R3, TCP, "pass")
    code.copy(R3, packet)
    code.add(R3, at + 40)
    code.load(4, R4, R6, END)
    code.if_register_above(R3, R4, "pass")
    code.load(1, R3, packet, at + 32)
    code.shift_right(R3, 4)
    code.shift_left(R3, 2)
    code.add_register(R2, R3)
    code.add(R2, 20)


def inner_route(code: Program, packet: int, at: int, length: int, tunnel: int) -> None:
    """The question after the route of the inner packet at ``at``, as if it came in by ``tunnel``."""
    clear(code, FIB, FIB_BYTES)
    code.put(1, FP, FIB, INET)
    code.load(1, R2, packet, at + 9)
    code.store(1, FP, FIB + 1, R2)
    code.store(2, FP, FIB + 6, length)
    code.put(4, FP, FIB + 8, tunnel)
    code.load(1, R2, packet, at + 1)
    code.mask(R2, 0x1C)
    code.store(1, FP, FIB + 12, R2)
    for offset, field in ((16, 12), (32, 16)):
        code.load(4, R2, packet, at + field)
        code.store(4, FP, FIB + offset, R2)


def look_up(code: Program, flags: int, peer: int) -> None:
    """A route to a neighbour by the kernel's tables; all else (local, tunnel, MTU, blackhole) is left to it."""
    flags |= 0 if peer else _FIB_SKIP_NEIGH
    code.copy(R1, R6)
    stack(code, R2, FIB)
    code.set(R3, FIB_BYTES)
    code.set(R4, flags)
    code.call(Helper.FIB_LOOKUP)
    if peer:
        code.store(4, FP, FOUND, R0)
        code.if_equal(R0, _FIB_NO_NEIGH, "found")
    code.unless_equal(R0, 0, "pass")
    code.label("found")
    code.load(1, R2, FP, FIB)
    code.unless_equal(R2, INET, "pass")  # a gateway of IPv6


def adjust(code: Program, difference: int, flags: int) -> None:
    code.copy(R1, R6)
    code.set(R2, difference)
    code.set(R3, _MAC_MODE)
    code.set(R4, flags)
    code.call(Helper.ADJUST_ROOM)
    code.unless_equal(R0, 0, "pass")


def decrement_ttl(code: Program, packet: int, at: int) -> None:
    """And correct the header's checksum (RFC 1624)."""
    code.load(1, R2, packet, at + 8)
    code.add(R2, -1)
    code.store(1, packet, at + 8, R2)
    code.load(2, R2, packet, at + 10)
    code.add(R2, 1)
    code.copy(R3, R2)
    code.shift_right(R3, 16)
    code.add_register(R2, R3)
    code.store(2, packet, at + 10, R2)


def send(code: Program, packet: int, peer: int) -> None:
    """To the neighbour that was looked up; the kernel resolves its MAC if it has to. Or, with its MAC known, to
    the other end of ``peer``."""
    if peer:
        for to, at in ((0, _FIB_MAC), (6, _FIB_SOURCE_MAC)):
            for word in range(0, 6, 2):
                code.load(2, R2, FP, FIB + at + word)
                code.store(2, packet, to + word, R2)
        code.load(4, R2, FP, FOUND)
        code.unless_equal(R2, 0, "neighbour")
        code.load(4, R2, FP, FIB + 8)
        code.unless_equal(R2, peer, "neighbour")
        code.call(Helper.JIFFIES64)
        code.mask(R0, VERIFYING)
        code.if_equal(R0, 0, "neighbour")
        code.set(R1, peer)
        code.set(R2, 0)
        code.call(Helper.REDIRECT_PEER)
        code.exit()
        code.label("neighbour")
    clear(code, NEXTHOP, 24)
    code.put(4, FP, NEXTHOP, INET)
    code.load(4, R2, FP, FIB + 32)
    code.store(4, FP, NEXTHOP + 4, R2)
    code.load(4, R1, FP, FIB + 8)
    stack(code, R2, NEXTHOP)
    code.set(R3, NEXTHOP_BYTES)
    code.set(R4, 0)
    code.call(Helper.REDIRECT_NEIGH)
    code.exit()
    code.label("drop")
    code.exit(DROP)
    code.label("pass")
    code.exit(PASS)


def stack(code: Program, to: int, offset: int) -> None:
    code.copy(to, FP)
    code.add(to, offset)


def clear(code: Program, offset: int, length: int) -> None:
    for at in range(offset, offset + length, 8):
        code.put(8, FP, at, 0)
