"""Which frames of the LAN the control plane must see: a classic BPF program, made anew when that changes.

Let through are ARP, IPv6 neighbour discovery, the first packets of a source that may roam here and is not
known yet, and packets to an EID whose use is being watched for. All else, which is the steady traffic, ends
in the kernel. Frames that we sent, or that come back with our own MAC (bounced by a hypervisor's bridge), are
never let through: their IP source is somebody far away.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from followme.lisp import EidPrefix

SNAP = 128
"""Octets of a frame that are needed."""
MAX_RANGES = 16
"""Prefixes of a kind and family; the config has no more."""
# Hosts of a kind that fit into the kernel's 4096 instructions, by octets of the address (and into the memory that
# it lets a socket have, else a smaller share of them). Beyond that, known
# sources are let through, which costs time; one that comes home is noticed by its ARP only; and a watched
# mapping counts as unused.
_KNOWN = {4: 1024, 16: 64}
_LOUD = {4: 512, 16: 32}
WATCHED = {4: 64, 16: 32}

_LDW, _LDH, _LDB = 0x20, 0x28, 0x30
_JEQ, _JA, _AND, _RET = 0x15, 0x05, 0x54, 0x06
_SO_ATTACH_FILTER = 26
_PKTTYPE = 0xFFFFF000 + 4
_OUTGOING = 4
_REACH = 255
"""Instructions that a conditional jump can pass over."""

Instruction = tuple[int, int, int, int]
_ACCEPT: Instruction = (_RET, 0, 0, SNAP)
_REJECT: Instruction = (_RET, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Interest:
    """What to look for. ``ranges`` may roam here; in ``quiet`` (our own subnets) only those in ``loud`` (away from
    home) are of interest; ``known`` are here already; packets to ``watched`` count as use."""

    own_mac: bytes
    ranges: tuple[EidPrefix, ...]
    quiet: tuple[EidPrefix, ...]
    loud: frozenset[EidPrefix]
    known: frozenset[EidPrefix]
    watched: frozenset[EidPrefix]


def program(interest: Interest, share: float = 1.0) -> list[Instruction]:
    """At most 4096 instructions; ``share`` (0 to 1) of the hosts that these have room for."""
    code: list[Instruction] = [
        (_LDW, 0, 0, _PKTTYPE),
        (_JEQ, 0, 1, _OUTGOING),
        _REJECT,
        (_LDW, 0, 0, 8),
        (_JEQ, 0, 3, int.from_bytes(interest.own_mac[2:])),
        (_LDH, 0, 0, 6),
        (_JEQ, 0, 1, int.from_bytes(interest.own_mac[:2])),
        _REJECT,
        (_LDH, 0, 0, 12),
        (_JEQ, 0, 1, 0x0806),
        _ACCEPT,
    ]
    for ethertype, octets, source, target in ((0x0800, 4, 26, 30), (0x86DD, 16, 22, 38)):
        body = [
            *_matches(_of(interest.watched, octets, share * WATCHED[octets]), target, _ACCEPT),
            *_matches(_of(interest.known, octets, share * _KNOWN[octets]), source, _REJECT),
            *_matches(_of(interest.loud, octets, share * _LOUD[octets]), source, _ACCEPT),
            *_matches(_of(interest.quiet, octets, MAX_RANGES), source, _REJECT),
            *_matches(_of(interest.ranges, octets, MAX_RANGES), source, _ACCEPT),
            _REJECT,
        ]
        if octets == 16:
            # Neighbour solicitation and advertisement, which have no extension headers (RFC 4861, 4.3, 4.4).
            solicited: list[Instruction] = [(_LDB, 0, 0, 54)]
            solicited += [(_JEQ, 0, 1, 135), _ACCEPT, (_JEQ, 0, 1, 136), _ACCEPT]
            body = [(_LDB, 0, 0, 20), (_JEQ, 0, len(solicited), 58), *solicited, *body]
        # A conditional jump is too short.
        code += [(_LDH, 0, 0, 12), (_JEQ, 1, 0, ethertype), (_JA, 0, 0, len(body)), *body]
    code.append(_REJECT)
    return code


def packed(code: list[Instruction]) -> bytes:
    """The program as the kernel takes it."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def attach(sock: socket.socket, code: list[Instruction]) -> None:
    """Have the program decide what the socket gets, in one step. Raises ``OSError``."""
    program = ctypes.create_string_buffer(packed(code))
    sock.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))
    )


def _of(prefixes: Iterable[EidPrefix], octets: int, limit: float) -> list[EidPrefix]:
    return [prefix for prefix in prefixes if len(prefix.address) == octets][: int(limit)]


def _matches(prefixes: list[EidPrefix], offset: int, then: Instruction) -> list[Instruction]:
    """``then`` if the address at ``offset`` lies in one of the prefixes. IPv4 hosts take one instruction each."""
    hosts = [prefix for prefix in prefixes if len(prefix.address) == 4 and prefix.length == 32]
    code: list[Instruction] = [(_LDW, 0, 0, offset)] if hosts else []
    for start in range(0, len(hosts), _REACH):
        some = hosts[start : start + _REACH]
        code += [(_JEQ, len(some) - at, 0, int.from_bytes(one.address)) for at, one in enumerate(some)]
        code += [(_JA, 0, 0, 1), then]
    for prefix in prefixes:
        if len(prefix.address) != 4 or prefix.length != 32:
            code += _match(prefix, offset, [then])
    return code


def _match(prefix: EidPrefix, offset: int, then: list[Instruction]) -> list[Instruction]:
    """``then`` if the address at ``offset`` lies in the prefix, else go on behind it."""
    words = []
    for index in range(0, len(prefix.address), 4):
        bits = min(max(prefix.length - index * 8, 0), 32)
        if bits:
            words.append((offset + index, bits, int.from_bytes(prefix.address[index : index + 4])))
    code: list[Instruction] = list(then)
    for at, bits, value in words:
        test: list[Instruction] = [(_LDW, 0, 0, at)]
        if bits < 32:
            test.append((_AND, 0, 0, 0xFFFFFFFF << 32 - bits & 0xFFFFFFFF))
        code = [*test, (_JEQ, 0, len(code), value), *code]
    return code
