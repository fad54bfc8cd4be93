"""The path monitor's probe: the UDP payload that travels from one edge network to another.

     0      4        5          8        12            16         24        32      48
     | FMCP | version | reserved | source | destination | sequence | sent ns | HMAC |

All integers are big-endian. The HMAC is HMAC-SHA-256 over the first 32 bytes, cut to its leftmost 128 bits
(RFC 2104 section 5), keyed by a secret of the run: a host that sees probes can send none that count.
"""

from __future__ import annotations

import hmac
from struct import Struct
from typing import Final, NamedTuple

from .errors import PacketError

PROBE_SIZE: Final = 48
MIN_KEY_BYTES: Final = 16

_MAGIC = b"FMCP"
_VERSION = 1
_BODY = Struct("!4sB3xIIQQ")


class Probe(NamedTuple):
    """``source`` and ``destination`` are network ids, ``sent_ns`` nanoseconds of the sender's clock."""

    source: int
    destination: int
    sequence: int
    sent_ns: int

    @property
    def sent_s(self) -> float:
        """Send time in seconds."""
        return self.sent_ns / 1e9


def probe_at(source: int, destination: int, sequence: int, sent_s: float) -> Probe:
    """A probe sent at ``sent_s`` seconds."""
    return Probe(source, destination, sequence, round(sent_s * 1e9))


def pack_probe(probe: Probe, key: bytes) -> bytes:
    """48 bytes; ``PacketError`` if a field does not fit or ``key`` is shorter than 16 bytes."""
    if not (0 <= probe.source < 2**32 and 0 <= probe.destination < 2**32):
        raise PacketError(f"network ids {probe.source} and {probe.destination} do not both fit in 32 bits")
    if not (0 <= probe.sequence < 2**64 and 0 <= probe.sent_ns < 2**64):
        raise PacketError(
            f"sequence {probe.sequence} and send time {probe.sent_ns} do not both fit in 64 bits"
        )
    body = _BODY.pack(_MAGIC, _VERSION, *probe)
    return body + _tag(body, key)


def parse_probe(payload: bytes, key: bytes) -> Probe:
    """The probe in ``payload``; ``PacketError`` for another size, magic, version or HMAC."""
    if len(payload) != PROBE_SIZE:
        raise PacketError(f"probe of {len(payload)} bytes: it takes {PROBE_SIZE}")
    if payload[:4] != _MAGIC or payload[4] != _VERSION:
        raise PacketError("not a path probe of version 1")
    body = payload[: _BODY.size]
    if not hmac.compare_digest(_tag(body, key), payload[_BODY.size :]):
        raise PacketError("probe's HMAC is wrong")
    _, _, source, destination, sequence, sent_ns = _BODY.unpack(body)
    return Probe(source, destination, sequence, sent_ns)


def _tag(body: bytes, key: bytes) -> bytes:
    if len(key) < MIN_KEY_BYTES:
        raise PacketError(f"probe key of {len(key)} bytes: it takes at least {MIN_KEY_BYTES}")
    return hmac.digest(key, body, "sha256")[:16]
