"""Ports (7.2.1) and PORT_STATUS (7.4.3)."""

from __future__ import annotations

from struct import Struct
from typing import ClassVar, Final

from . import constants as of
from .errors import OpenFlowError
from .message import Message, need
from .record import record

PORT_SIZE: Final = 64
_PORT: Final = Struct("!I4x6s2x16s8I")
_REASON: Final = Struct("!B7x")


@record
class Port:
    """``ofp_port``: speeds in kbit/s; ``config`` and ``state`` hold OFPPC_* and OFPPS_*."""

    port_no: int
    hw_addr: bytes
    name: str
    config: int = 0
    state: int = 0
    curr: int = 0
    advertised: int = 0
    supported: int = 0
    peer: int = 0
    curr_speed: int = 0
    max_speed: int = 0

    def pack(self) -> bytes:
        if len(self.hw_addr) != 6:
            raise OpenFlowError(f"a MAC address has 6 bytes, not {len(self.hw_addr)}")
        return _PORT.pack(
            self.port_no,
            self.hw_addr,
            pack_text(self.name, 16),
            self.config,
            self.state,
            self.curr,
            self.advertised,
            self.supported,
            self.peer,
            self.curr_speed,
            self.max_speed,
        )


@record
class PortStatus(Message):
    """A port came, went or changed (7.4.3)."""

    type: ClassVar[int] = of.OFPT_PORT_STATUS
    reason: int
    port: Port

    def _body(self) -> bytes:
        return _REASON.pack(self.reason) + self.port.pack()


def pack_text(text: str, size: int) -> bytes:
    """UTF-8 with the NUL that the specification asks for, to be filled up to ``size`` bytes by ``struct``."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) >= size or b"\0" in encoded:
        raise OpenFlowError(f"{text!r} does not fit {size - 1} bytes and a NUL")
    return encoded


def parse_text(data: bytes) -> str:
    """A string that ends at its first NUL, or fills its place: some switches leave out the NUL."""
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def parse_port(data: bytes, offset: int) -> Port:
    """The port at ``offset``, whose 64 bytes must be there."""
    port_no, hw_addr, name, *rest = _PORT.unpack_from(data, offset)
    return Port(port_no, hw_addr, parse_text(name), *rest)


def parse_port_status(data: bytes) -> PortStatus:
    need(data, 16 + PORT_SIZE, exactly=True)
    return PortStatus(data[8], parse_port(data, 16))
