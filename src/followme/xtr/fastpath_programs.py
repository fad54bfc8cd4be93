"""The two programs of the fast path: a packet into the tunnel, and a packet out of it.

Both take whole IPv4 packets without options that need nothing but the usual, and leave all others (super-packets
of TCP among them) untouched to the kernel's path, which is right for everything.
"""

from __future__ import annotations

import functools
import ipaddress
import struct

from followme.xtr.bpf import FP, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Helper, Program
from followme.xtr.device import DATA_PORT, OVERHEAD

PASS, DROP = 0, 2
ENTRY = struct.Struct("=I4s4s4s4sI")
"""Of the trie: kind, our RLOC, theirs, two words of the LISP header, sum of the outer header's fixed words."""
KIND_PASS, KIND_ENCAP = 0, 1
_GROWTH = OVERHEAD[4]
_LEN, _PKTTYPE, _PROTOCOL, _VLAN, _DATA, _END, _GSO_SIZE = 0, 4, 16, 20, 76, 80, 176  # struct __sk_buff
_ETHERNET, _INNER = 14, 14 + OVERHEAD[4]
_MAC_MODE, _FIXED_GSO, _ENCAP_IP4, _ENCAP_UDP = 1, 1, 2, 16
_FIB_OUTPUT, _FIB_SKIP_NEIGH = 2, 4
_FIB, _FIB_BYTES, _NEXTHOP, _NEXTHOP_BYTES, _KEY, _MTU = -64, 64, -88, 20, -96, -100  # on the stack
_INET = 2
_HOST_WORD = 0x0008  # ETH_P_IP as a word of a little-endian machine
_PORT_WORD = int.from_bytes(DATA_PORT.to_bytes(2), "little")
_GPE_WORD, _PLAIN_WORD = 0x0100000C, 0x00000008


@functools.lru_cache(maxsize=4096)
def entry(
    local: ipaddress.IPv4Address, remote: ipaddress.IPv4Address, instance_id: int, *, plain: bool = False
) -> bytes:
    """The value that sends to ``remote`` with a header of LISP-GPE (RFC 9305) or, ``plain``, of RFC 9300."""
    first = bytes([0x08, 0, 0, 0]) if plain else bytes([0x0C, 0, 0, 1])
    ends = local.packed + remote.packed
    fixed = sum(struct.unpack("=4H", ends)) + struct.unpack("=H", bytes([64, 17]))[0]
    return ENTRY.pack(KIND_ENCAP, local.packed, remote.packed, first, struct.pack("!I", instance_id << 8), fixed)


LEAVE = ENTRY.pack(KIND_PASS, bytes(4), bytes(4), bytes(4), bytes(4), 0)
"""The trie's value that leaves a prefix to the kernel, whatever covers it."""


def encapsulate(trie: int, tunnel: int, up: int) -> Program:
    """For the ingress of the LAN's device. ``tunnel``, ``up``: numbers of devices; ``trie``: a descriptor.

    The DSCP and the ECN bits are copied to the outer header; its TTL is 64 as the kernel's (RFC 9300, 5.3).
    """
    code = Program()
    _begin(code, _ETHERNET + 20)
    _inner_is_usual(code, R7, _ETHERNET)
    code.load(1, R2, R7, _ETHERNET + 16)
    code.if_above(R2, 223, "pass")  # multicast
    code.load(2, R8, R7, _ETHERNET + 2)
    code.network_order(R8, 16)
    code.load(4, R2, R6, _LEN)
    code.add(R2, -_ETHERNET)
    code.unless_register_equal(R2, R8, "pass")  # padded by Ethernet
    code.load(4, R2, R7, _ETHERNET + 16)
    code.store(4, FP, _KEY + 4, R2)
    code.put(4, FP, _KEY, 32)
    code.map(R1, trie)
    _stack(code, R2, _KEY)
    code.call(Helper.MAP_LOOKUP)
    code.if_equal(R0, 0, "pass")
    code.copy(R9, R0)
    code.load(4, R2, R9, 0)
    code.unless_equal(R2, KIND_ENCAP, "pass")
    code.store(4, FP, _MTU, R8)
    code.copy(R1, R6)
    code.set(R2, tunnel)
    _stack(code, R3, _MTU)
    code.set(R4, 0)
    code.set(R5, 0)
    code.call(Helper.CHECK_MTU)
    code.unless_equal(R0, 0, "pass")
    _clear(code, _FIB, _FIB_BYTES)
    code.put(1, FP, _FIB, _INET)
    code.put(1, FP, _FIB + 1, 17)
    code.add(R8, _GROWTH)
    code.store(2, FP, _FIB + 6, R8)
    code.put(4, FP, _FIB + 8, up)
    for offset, field in ((16, 4), (32, 8)):
        code.load(4, R2, R9, field)
        code.store(4, FP, _FIB + offset, R2)
    _look_up(code, _FIB_OUTPUT | _FIB_SKIP_NEIGH)
    code.copy(R1, R6)
    code.call(Helper.HASH)
    code.copy(R7, R0)
    _adjust(code, _GROWTH, _FIXED_GSO | _ENCAP_IP4 | _ENCAP_UDP)
    code.load(4, R4, R6, _DATA)
    code.load(4, R2, R6, _END)
    code.copy(R3, R4)
    code.add(R3, _INNER + 20)
    code.if_register_above(R3, R2, "drop")
    _decrement_ttl(code, R4, _INNER)
    _outer(code)
    _send(code)
    return code


def _outer(code: Program) -> None:
    """Headers at the packet (R4), of the entry (R9), the outer length (R8) and the flow's hash (R7)."""
    code.load(1, R1, R4, _INNER + 1)
    code.shift_left(R1, 8)
    code.set_bits(R1, 0x45)
    code.store(2, R4, _ETHERNET, R1)
    code.copy(R2, R8)
    code.network_order(R2, 16)
    code.store(2, R4, _ETHERNET + 2, R2)
    code.add_register(R1, R2)
    code.copy(R2, R7)
    code.mask(R2, 0xFFFF)
    code.store(2, R4, _ETHERNET + 4, R2)  # identification: DF is not set, and routers may fragment
    code.add_register(R1, R2)
    code.put(2, R4, _ETHERNET + 6, 0)
    code.put(2, R4, _ETHERNET + 8, int.from_bytes(bytes([64, 17]), "little"))
    code.load(4, R2, R9, 20)
    code.add_register(R1, R2)
    for _ in range(2):
        code.copy(R2, R1)
        code.mask(R1, 0xFFFF)
        code.shift_right(R2, 16)
        code.add_register(R1, R2)
    code.invert(R1)
    code.store(2, R4, _ETHERNET + 10, R1)
    code.mask(R7, 0x3FFF0000)
    code.shift_right(R7, 16)
    code.set_bits(R7, 0xC000)
    code.network_order(R7, 16)
    code.store(2, R4, _ETHERNET + 20, R7)
    code.put(2, R4, _ETHERNET + 22, _PORT_WORD)
    code.add(R8, -20)
    code.network_order(R8, 16)
    code.store(2, R4, _ETHERNET + 24, R8)
    code.put(2, R4, _ETHERNET + 26, 0)
    for offset, field in ((12, 4), (16, 8), (28, 12), (32, 16)):
        code.load(4, R2, R9, field)
        code.store(4, R4, _ETHERNET + offset, R2)


def decapsulate(tunnel: int, local: ipaddress.IPv4Address, *, plain: bool) -> Program:
    """For the ingress of the core's device. Routes as if the packet came in by ``tunnel`` (a device's number).

    Takes headers without nonce, map-version and checksum only; with ``plain`` those of RFC 9300, too, if they
    have an instance id.
    """
    code = Program()
    _begin(code, _INNER + 20)
    code.load(2, R2, R7, _ETHERNET + 22)
    code.unless_equal(R2, _PORT_WORD, "pass")
    code.load(1, R2, R7, _ETHERNET)
    code.unless_equal(R2, 0x45, "pass")
    code.load(1, R2, R7, _ETHERNET + 9)
    code.unless_equal(R2, 17, "pass")
    code.load(2, R2, R7, _ETHERNET + 6)
    code.mask(R2, 0xFF3F)
    code.unless_equal(R2, 0, "pass")  # a fragment
    code.load(4, R2, R7, _ETHERNET + 16)
    code.constant(R3, int.from_bytes(local.packed, "little"))
    code.unless_register_equal(R2, R3, "pass")
    code.load(1, R2, R7, _ETHERNET + 1)
    code.mask(R2, 3)
    code.if_equal(R2, 3, "pass")  # congestion experienced: the kernel tells the inner packet (RFC 6040)
    code.load(2, R2, R7, _ETHERNET + 26)
    code.unless_equal(R2, 0, "pass")
    code.load(4, R2, R7, _ETHERNET + 28)
    if plain:
        code.if_equal(R2, _PLAIN_WORD, "lisp")
    code.unless_equal(R2, _GPE_WORD, "pass")
    code.label("lisp")
    code.load(1, R2, R7, _ETHERNET + 35)
    code.unless_equal(R2, 0, "pass")
    _inner_is_usual(code, R7, _INNER)
    code.load(2, R2, R7, _ETHERNET + 2)
    code.network_order(R2, 16)
    code.load(4, R3, R6, _LEN)
    code.add(R3, -_ETHERNET)
    code.unless_register_equal(R2, R3, "pass")
    code.load(2, R8, R7, _INNER + 2)
    code.network_order(R8, 16)
    code.add(R3, -_GROWTH)
    code.unless_register_equal(R8, R3, "pass")
    _clear(code, _FIB, _FIB_BYTES)
    code.put(1, FP, _FIB, _INET)
    code.load(1, R2, R7, _INNER + 9)
    code.store(1, FP, _FIB + 1, R2)
    code.store(2, FP, _FIB + 6, R8)
    code.put(4, FP, _FIB + 8, tunnel)
    code.load(1, R2, R7, _INNER + 1)
    code.mask(R2, 0x1C)
    code.store(1, FP, _FIB + 12, R2)
    for offset, field in ((16, 12), (32, 16)):
        code.load(4, R2, R7, _INNER + field)
        code.store(4, FP, _FIB + offset, R2)
    _look_up(code, _FIB_SKIP_NEIGH)
    _adjust(code, -_GROWTH, _FIXED_GSO)
    code.load(4, R7, R6, _DATA)
    code.load(4, R8, R6, _END)
    code.copy(R2, R7)
    code.add(R2, _ETHERNET + 20)
    code.if_register_above(R2, R8, "drop")
    _decrement_ttl(code, R7, _ETHERNET)
    _send(code)
    return code


def _begin(code: Program, length: int) -> None:
    """R6: the context; R7, R8: the packet and its end, with ``length`` bytes at least."""
    code.copy(R6, R1)
    for offset, wanted in ((_PKTTYPE, 0), (_PROTOCOL, _HOST_WORD), (_VLAN, 0), (_GSO_SIZE, 0)):
        code.load(4, R2, R6, offset)
        code.unless_equal(R2, wanted, "pass")
    code.load(4, R7, R6, _DATA)
    code.load(4, R8, R6, _END)
    code.copy(R2, R7)
    code.add(R2, length)
    code.if_register_above(R2, R8, "pass")


def _inner_is_usual(code: Program, packet: int, at: int) -> None:
    code.load(1, R2, packet, at)
    code.unless_equal(R2, 0x45, "pass")  # options are the kernel's
    code.load(1, R2, packet, at + 8)
    code.if_equal(R2, 0, "pass")
    code.if_equal(R2, 1, "pass")  # the kernel answers by ICMP


def _look_up(code: Program, flags: int) -> None:
    """A route to a neighbour by the kernel's tables; all else (local, tunnel, MTU, blackhole) is left to it."""
    code.copy(R1, R6)
    _stack(code, R2, _FIB)
    code.set(R3, _FIB_BYTES)
    code.set(R4, flags)
    code.call(Helper.FIB_LOOKUP)
    code.unless_equal(R0, 0, "pass")
    code.load(1, R2, FP, _FIB)
    code.unless_equal(R2, _INET, "pass")  # a gateway of IPv6


def _adjust(code: Program, difference: int, flags: int) -> None:
    code.copy(R1, R6)
    code.set(R2, difference)
    code.set(R3, _MAC_MODE)
    code.set(R4, flags)
    code.call(Helper.ADJUST_ROOM)
    code.unless_equal(R0, 0, "pass")


def _decrement_ttl(code: Program, packet: int, at: int) -> None:
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


def _send(code: Program) -> None:
    """To the neighbour that was looked up; the kernel resolves its MAC if it has to."""
    _clear(code, _NEXTHOP, 24)
    code.put(4, FP, _NEXTHOP, _INET)
    code.load(4, R2, FP, _FIB + 32)
    code.store(4, FP, _NEXTHOP + 4, R2)
    code.load(4, R1, FP, _FIB + 8)
    _stack(code, R2, _NEXTHOP)
    code.set(R3, _NEXTHOP_BYTES)
    code.set(R4, 0)
    code.call(Helper.REDIRECT_NEIGH)
    code.exit()
    code.label("drop")
    code.exit(DROP)
    code.label("pass")
    code.exit(PASS)


def _stack(code: Program, to: int, offset: int) -> None:
    code.copy(to, FP)
    code.add(to, offset)


def _clear(code: Program, offset: int, length: int) -> None:
    for at in range(offset, offset + length, 8):
        code.put(8, FP, at, 0)
