"""The programs of the fast path: a packet into the tunnel, a packet out of it, and a super-packet that the
kernel took out of it.

They take whole IPv4 packets without options that need nothing but the usual, and leave all others untouched to
the kernel's path, which is right for everything. Super-packets (GSO, GRO) are taken of TCP only; into the tunnel
only with a ``peer``, as else it does not pay; and out of it by the kernel, as it alone can take its mark off.

``peer`` is the number of a veth whose other end is in another namespace, or 0: a packet that goes out by it is
handed to that other end at once (``bpf_redirect_peer``), which spares the device's queue and a softirq.
"""

from __future__ import annotations

import functools
import ipaddress
import struct

from followme.xtr.bpf import FP, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Helper, Program
from followme.xtr.device import DATA_PORT
from followme.xtr.fastpath_parts import (
    DATA,
    ENCAP_IP4,
    ENCAP_UDP,
    END,
    ETHERNET,
    FIB,
    FIB_BYTES,
    FIB_OUTPUT,
    FIXED_GSO,
    GROWTH,
    GSO_SIZE,
    HOST_WORD,
    INET,
    INNER,
    KEY,
    LEN,
    MTU,
    PROTOCOL,
    SEGMENT,
    adjust,
    begin,
    clear,
    decrement_ttl,
    inner_is_usual,
    inner_route,
    look_up,
    segment,
    send,
    stack,
)

ENTRY = struct.Struct("=I4s4s4s4sI")
"""Of the trie: kind, our RLOC, theirs, two words of the LISP header, sum of the outer header's fixed words."""
KIND_PASS, KIND_ENCAP = 0, 1
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


def encapsulate(trie: int, tunnel: int, up: int, *, peer: int = 0) -> Program:
    """For the ingress of the LAN's device. ``tunnel``, ``up``: numbers of devices; ``trie``: a descriptor.

    The DSCP and the ECN bits are copied to the outer header; its TTL is 64 as the kernel's (RFC 9300, 5.3).
    """
    code = Program()
    begin(code, ETHERNET + 20, whole=not peer)
    inner_is_usual(code, R7, ETHERNET)
    code.load(1, R2, R7, ETHERNET + 16)
    code.if_above(R2, 223, "pass")  # multicast
    code.load(2, R8, R7, ETHERNET + 2)
    code.network_order(R8, 16)
    code.load(4, R2, R6, LEN)
    code.add(R2, -ETHERNET)
    code.unless_register_equal(R2, R8, "pass")  # padded by Ethernet
    code.load(4, R2, R7, ETHERNET + 16)
    code.store(4, FP, KEY + 4, R2)
    code.put(4, FP, KEY, 32)
    code.map(R1, trie)
    stack(code, R2, KEY)
    code.call(Helper.MAP_LOOKUP)
    code.if_equal(R0, 0, "pass")
    code.copy(R9, R0)
    code.load(4, R2, R9, 0)
    code.unless_equal(R2, KIND_ENCAP, "pass")
    code.copy(R2, R8)
    if peer:
        code.load(4, R2, R6, GSO_SIZE)
        code.unless_equal(R2, 0, "super")
        code.copy(R2, R8)
        code.label("measured")
    code.store(4, FP, SEGMENT, R2)
    code.store(4, FP, MTU, R2)
    code.copy(R1, R6)
    code.set(R2, tunnel)
    stack(code, R3, MTU)
    code.set(R4, 0)
    code.set(R5, 0)
    code.call(Helper.CHECK_MTU)
    code.unless_equal(R0, 0, "pass")
    code.load(4, R2, FP, SEGMENT)
    code.load(4, R3, FP, MTU)  # now the device's: no super-packet is refused by the helper
    code.if_register_above(R2, R3, "pass")
    clear(code, FIB, FIB_BYTES)
    code.put(1, FP, FIB, INET)
    code.put(1, FP, FIB + 1, 17)
    code.add(R8, GROWTH)
    code.load(4, R2, FP, SEGMENT)
    code.add(R2, GROWTH)
    code.store(2, FP, FIB + 6, R2)
    code.put(4, FP, FIB + 8, up)
    for offset, field in ((16, 4), (32, 8)):
        code.load(4, R2, R9, field)
        code.store(4, FP, FIB + offset, R2)
    look_up(code, FIB_OUTPUT, peer)
    code.copy(R1, R6)
    code.call(Helper.HASH)
    code.copy(R7, R0)
    adjust(code, GROWTH, FIXED_GSO | ENCAP_IP4 | ENCAP_UDP)
    code.load(4, R4, R6, DATA)
    code.load(4, R2, R6, END)
    code.copy(R3, R4)
    code.add(R3, INNER + 20)
    code.if_register_above(R3, R2, "drop")
    decrement_ttl(code, R4, INNER)
    _outer(code)
    send(code, R4, peer)
    if peer:
        code.label("super")
        code.if_above(R8, 0xFFFF - GROWTH, "pass")
        segment(code, R7, ETHERNET)
        code.jump("measured")
    return code


def _outer(code: Program) -> None:
    """Headers at the packet (R4), of the entry (R9), the outer length (R8) and the flow's hash (R7)."""
    code.load(1, R1, R4, INNER + 1)
    code.shift_left(R1, 8)
    code.set_bits(R1, 0x45)
    code.store(2, R4, ETHERNET, R1)
    code.copy(R2, R8)
    code.network_order(R2, 16)
    code.store(2, R4, ETHERNET + 2, R2)
    code.add_register(R1, R2)
    code.copy(R2, R7)
    code.mask(R2, 0xFFFF)
    code.store(2, R4, ETHERNET + 4, R2)  # identification: DF is not set, and routers may fragment
    code.add_register(R1, R2)
    code.put(2, R4, ETHERNET + 6, 0)
    code.put(2, R4, ETHERNET + 8, int.from_bytes(bytes([64, 17]), "little"))
    code.load(4, R2, R9, 20)
    code.add_register(R1, R2)
    for _ in range(2):
        code.copy(R2, R1)
        code.mask(R1, 0xFFFF)
        code.shift_right(R2, 16)
        code.add_register(R1, R2)
    code.invert(R1)
    code.store(2, R4, ETHERNET + 10, R1)
    code.mask(R7, 0x3FFF0000)
    code.shift_right(R7, 16)
    code.set_bits(R7, 0xC000)
    code.network_order(R7, 16)
    code.store(2, R4, ETHERNET + 20, R7)
    code.put(2, R4, ETHERNET + 22, _PORT_WORD)
    code.add(R8, -20)
    code.network_order(R8, 16)
    code.store(2, R4, ETHERNET + 24, R8)
    code.put(2, R4, ETHERNET + 26, 0)
    for offset, field in ((12, 4), (16, 8), (28, 12), (32, 16)):
        code.load(4, R2, R9, field)
        code.store(4, R4, ETHERNET + offset, R2)


def decapsulate(tunnel: int, local: ipaddress.IPv4Address, *, plain: bool, peer: int = 0) -> Program:
    """For the ingress of the core's device. Routes as if the packet came in by ``tunnel`` (a device's number).

    Takes headers without nonce, map-version and checksum only; with ``plain`` those of RFC 9300, too, if they
    have an instance id.
    """
    code = Program()
    begin(code, INNER + 20)
    code.load(2, R2, R7, ETHERNET + 22)
    code.unless_equal(R2, _PORT_WORD, "pass")
    code.load(1, R2, R7, ETHERNET)
    code.unless_equal(R2, 0x45, "pass")
    code.load(1, R2, R7, ETHERNET + 9)
    code.unless_equal(R2, 17, "pass")
    code.load(2, R2, R7, ETHERNET + 6)
    code.mask(R2, 0xFF3F)
    code.unless_equal(R2, 0, "pass")  # a fragment
    code.load(4, R2, R7, ETHERNET + 16)
    code.constant(R3, int.from_bytes(local.packed, "little"))
    code.unless_register_equal(R2, R3, "pass")
    code.load(1, R2, R7, ETHERNET + 1)
    code.mask(R2, 3)
    code.if_equal(R2, 3, "pass")  # congestion experienced: the kernel tells the inner packet (RFC 6040)
    code.load(2, R2, R7, ETHERNET + 26)
    code.unless_equal(R2, 0, "pass")
    code.load(4, R2, R7, ETHERNET + 28)
    if plain:
        code.if_equal(R2, _PLAIN_WORD, "lisp")
    code.unless_equal(R2, _GPE_WORD, "pass")
    code.label("lisp")
    code.load(1, R2, R7, ETHERNET + 35)
    code.unless_equal(R2, 0, "pass")
    inner_is_usual(code, R7, INNER)
    code.load(2, R2, R7, ETHERNET + 2)
    code.network_order(R2, 16)
    code.load(4, R3, R6, LEN)
    code.add(R3, -ETHERNET)
    code.unless_register_equal(R2, R3, "pass")
    code.load(2, R8, R7, INNER + 2)
    code.network_order(R8, 16)
    code.add(R3, -GROWTH)
    code.unless_register_equal(R8, R3, "pass")
    inner_route(code, R7, INNER, R8, tunnel)
    look_up(code, 0, peer)
    adjust(code, -GROWTH, FIXED_GSO)
    code.load(4, R7, R6, DATA)
    code.load(4, R8, R6, END)
    code.copy(R2, R7)
    code.add(R2, ETHERNET + 20)
    code.if_register_above(R2, R8, "drop")
    decrement_ttl(code, R7, ETHERNET)
    send(code, R7, peer)
    return code


def onward(tunnel: int, peer: int) -> Program:
    """For the ingress of the tunnel device: super-packets of TCP that the kernel took out of the tunnel, of which
    it has taken the tunnel's mark off. Each of its segments must fit the way on."""
    code = Program()
    code.copy(R6, R1)
    code.load(4, R2, R6, PROTOCOL)
    code.unless_equal(R2, HOST_WORD, "pass")
    code.load(4, R9, R6, GSO_SIZE)
    code.if_equal(R9, 0, "pass")
    code.load(4, R7, R6, DATA)
    code.load(4, R8, R6, END)
    code.copy(R2, R7)
    code.add(R2, 20)
    code.if_register_above(R2, R8, "pass")
    inner_is_usual(code, R7, 0)
    code.copy(R2, R9)
    segment(code, R7, 0)
    code.copy(R9, R2)
    inner_route(code, R7, 0, R9, tunnel)
    look_up(code, 0, peer)
    code.copy(R1, R6)
    code.set(R2, ETHERNET)
    code.set(R3, 0)
    code.call(Helper.CHANGE_HEAD)
    code.unless_equal(R0, 0, "pass")
    code.load(4, R7, R6, DATA)
    code.load(4, R8, R6, END)
    code.copy(R2, R7)
    code.add(R2, ETHERNET + 20)
    code.if_register_above(R2, R8, "drop")
    code.put(2, R7, 12, HOST_WORD)
    decrement_ttl(code, R7, ETHERNET)
    send(code, R7, peer)
    return code
