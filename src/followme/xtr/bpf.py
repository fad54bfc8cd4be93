"""eBPF without a compiler: instructions as data, and the few calls that load a program and fill a map.

An instruction is eight bytes: operation, registers, offset, immediate (RFC 9669, 3). ``Program`` collects them,
with jumps to labels. The kernel's verifier checks each program before it runs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from dataclasses import dataclass, field
from enum import IntEnum

from followme.xtr.errors import DataPlaneError

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)
_SIZES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}.get(platform.machine())
_KEY = struct.Struct("=I4s")
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD = 0, 2, 3, 5
_LPM_TRIE, _NO_PREALLOC, _SCHED_CLS = 11, 1, 3
_LOG_BYTES = 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


class Helper(IntEnum):
    """Functions of the kernel (``uapi/linux/bpf.h``)."""

    MAP_LOOKUP = 1
    HASH = 34
    CHANGE_HEAD = 43
    ADJUST_ROOM = 50
    FIB_LOOKUP = 69
    JIFFIES64 = 118
    REDIRECT_NEIGH = 152
    REDIRECT_PEER = 155
    CHECK_MTU = 163


@dataclass(slots=True)
class Program:
    """Instructions in order. Registers are ``R0`` to ``FP``; offsets and sizes in bytes."""

    _code: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    _labels: dict[str, int] = field(default_factory=dict)
    _jumps: dict[int, str] = field(default_factory=dict)

    def label(self, name: str) -> None:
        if name in self._labels:
            raise ValueError(f"label {name} is there already")
        self._labels[name] = len(self._code)

    def load(self, size: int, to: int, base: int, offset: int) -> None:
        self._add(0x61 | _SIZES[size], to, base, offset)

    def store(self, size: int, base: int, offset: int, source: int) -> None:
        self._add(0x63 | _SIZES[size], base, source, offset)

    def put(self, size: int, base: int, offset: int, value: int) -> None:
        self._add(0x62 | _SIZES[size], base, 0, offset, value)

    def set(self, to: int, value: int) -> None:
        self._add(0xB7, to, value=value)

    def copy(self, to: int, source: int) -> None:
        self._add(0xBF, to, source)

    def add(self, to: int, value: int) -> None:
        self._add(0x07, to, value=value)

    def add_register(self, to: int, source: int) -> None:
        self._add(0x0F, to, source)

    def mask(self, to: int, value: int) -> None:
        self._add(0x57, to, value=value)

    def set_bits(self, to: int, value: int) -> None:
        self._add(0x47, to, value=value)

    def shift_left(self, to: int, bits: int) -> None:
        self._add(0x67, to, value=bits)

    def shift_right(self, to: int, bits: int) -> None:
        self._add(0x77, to, value=bits)

    def invert(self, to: int) -> None:
        self._add(0xA7, to, value=-1)

    def network_order(self, to: int, bits: int) -> None:
        """Cut ``to`` to 16 or 32 bits and turn it between the host's order and the network's."""
        self._add(0xDC, to, value=bits)

    def constant(self, to: int, value: int) -> None:
        """A number of up to 64 bits without sign."""
        self._wide(to, 0, value)

    def map(self, to: int, handle: int) -> None:
        self._wide(to, 1, handle)

    def jump(self, label: str) -> None:
        self._jump(0x05, R0, label)

    def unless_equal(self, register: int, value: int, label: str) -> None:
        self._jump(0x55, register, label, value=value)

    def if_equal(self, register: int, value: int, label: str) -> None:
        self._jump(0x15, register, label, value=value)

    def if_above(self, register: int, value: int, label: str) -> None:
        self._jump(0x25, register, label, value=value)

    def if_register_above(self, register: int, other: int, label: str) -> None:
        self._jump(0x2D, register, label, other)

    def unless_register_equal(self, register: int, other: int, label: str) -> None:
        self._jump(0x5D, register, label, other)

    def call(self, helper: Helper) -> None:
        self._add(0x85, value=helper)

    def exit(self, verdict: int | None = None) -> None:
        """End with ``verdict``, or with what is in R0."""
        if verdict is not None:
            self.set(R0, verdict)
        self._add(0x95)

    def assemble(self) -> bytes:
        """In this machine's order. Raises ``ValueError`` for a jump to nowhere."""
        code = bytearray()
        for at, (operation, to, source, offset, value) in enumerate(self._code):
            if at in self._jumps:
                if self._jumps[at] not in self._labels:
                    raise ValueError(f"no label {self._jumps[at]}")
                offset = self._labels[self._jumps[at]] - at - 1
            code += struct.pack("=BBhI", operation, to | source << 4, offset, value & 0xFFFFFFFF)
        return bytes(code)

    def _add(self, operation: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> None:
        self._code.append((operation, to, source, offset, value))

    def _wide(self, to: int, kind: int, value: int) -> None:
        self._add(0x18, to, kind, value=value)
        self._add(0, value=value >> 32)

    def _jump(self, operation: int, register: int, label: str, other: int = 0, value: int = 0) -> None:
        self._jumps[len(self._code)] = label
        self._add(operation, register, other, value=value)


class Trie:
    """A map of IPv4 prefixes to values of one size: the longest prefix that fits is found."""

    def __init__(self, value_size: int, entries: int) -> None:
        attributes = struct.pack("=IIIII", _LPM_TRIE, 8, value_size, entries, _NO_PREALLOC)
        self.handle = _call(_MAP_CREATE, _buffer(attributes), "make a map of prefixes")
        self._size = value_size
        # Made once, as a map-cache of 100 000 entries is written at a start.
        self._key, self._value = ctypes.create_string_buffer(_KEY.size), ctypes.create_string_buffer(value_size)
        self._setting, self._deleting = (
            _buffer(struct.pack("=IxxxxQQQ", self.handle, _at(self._key), value, 0))
            for value in (_at(self._value), 0)
        )

    def set(self, network: bytes, length: int, value: bytes) -> None:
        """Add or replace in one step. Raises ``DataPlaneError`` if there is no room."""
        if len(value) != self._size:
            raise ValueError(f"{len(value)} bytes; the map's values have {self._size}")
        _KEY.pack_into(self._key, 0, length, network)
        self._value.raw = value
        _call(_MAP_UPDATE, self._setting, "fill the map of prefixes")

    def delete(self, network: bytes, length: int) -> None:
        """Harmless where there is none."""
        _KEY.pack_into(self._key, 0, length, network)
        _call(_MAP_DELETE, self._deleting, "empty the map of prefixes", accept=errno.ENOENT)

    def close(self) -> None:
        """The kernel keeps the map while a program uses it."""
        os.close(self.handle)


def load(program: Program) -> int:
    """A descriptor of the program, to be attached with tc; the caller closes it.

    Raises ``DataPlaneError`` with the verifier's last words.
    """
    code, licence = program.assemble(), _buffer(b"GPL\0")  # bpf_fib_lookup is for programs under the GPL only
    kept, log = _buffer(code), ctypes.create_string_buffer(_LOG_BYTES)

    def attributes(level: int) -> ctypes.Array[ctypes.c_char]:
        where = (_LOG_BYTES, _at(log)) if level else (0, 0)
        head = _SCHED_CLS, len(code) // 8, _at(kept), _at(licence)
        return _buffer(struct.pack("=IIQQIIQII16s", *head, level, *where, 0, 0, b"lisp"))

    try:
        return _call(_PROG_LOAD, attributes(0), "load a program")
    except DataPlaneError as error:
        try:
            return _call(_PROG_LOAD, attributes(1), "load a program")
        except DataPlaneError:
            lines = [line for line in log.value.decode(errors="replace").splitlines() if line.strip()]
            said = f"; the verifier says: {' / '.join(lines[-3:])}" if lines else ""
            raise DataPlaneError(f"{error}{said}") from None


def _call(command: int, attributes: ctypes.Array[ctypes.c_char], what: str, accept: int = 0) -> int:
    if _SYSCALL is None or sys.byteorder != "little":
        raise DataPlaneError(f"cannot {what}: eBPF on {platform.machine()} is not known here")
    result = int(_libc.syscall(_SYSCALL, command, attributes, len(attributes)))
    if result < 0 and (code := ctypes.get_errno()) != accept:
        hint = "; it needs root or CAP_BPF with CAP_NET_ADMIN" if code == errno.EPERM else ""
        raise DataPlaneError(f"cannot {what} of eBPF: {os.strerror(code)}{hint}")
    return result


def _buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, len(data))


def _at(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)
