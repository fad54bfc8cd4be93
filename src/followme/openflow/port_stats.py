"""The counters of ports (7.3.5.6), asked for by OFPMP_PORT_STATS."""

from __future__ import annotations

from struct import Struct
from typing import Final

from . import constants as of
from .record import record

PORT_STATS_SIZE: Final = 112
_REQUEST: Final = Struct("!I4x")
_STATS: Final = Struct("!I4x12QII")

UNSUPPORTED: Final = (1 << 64) - 1
"""What a counter says that the switch does not keep (7.3.5.6)."""


@record
class PortStatsRequest:
    """Which port; all of them by default."""

    port_no: int = of.OFPP_ANY

    def pack(self) -> bytes:
        return _REQUEST.pack(self.port_no)


@record
class PortStats:
    """``ofp_port_stats``: what went through a port since it is up; a counter may be ``UNSUPPORTED``."""

    port_no: int
    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_frame_err: int = 0
    rx_over_err: int = 0
    rx_crc_err: int = 0
    collisions: int = 0
    duration_sec: int = 0
    duration_nsec: int = 0

    def pack(self) -> bytes:
        return _STATS.pack(
            self.port_no, self.rx_packets, self.tx_packets, self.rx_bytes, self.tx_bytes, self.rx_dropped,
            self.tx_dropped, self.rx_errors, self.tx_errors, self.rx_frame_err, self.rx_over_err, self.rx_crc_err,
            self.collisions, self.duration_sec, self.duration_nsec,
        )  # fmt: skip


def parse_port_stats(data: bytes, offset: int) -> PortStats:
    """The entry at ``offset``, whose 112 bytes must be there."""
    return PortStats(*_STATS.unpack_from(data, offset))


def parse_port_stats_request(data: bytes, offset: int) -> PortStatsRequest:
    """The request's body at ``offset``, whose 8 bytes must be there."""
    return PortStatsRequest(*_REQUEST.unpack_from(data, offset))
