"""What all messages share: the header (7.1), and ``pack``."""

from __future__ import annotations

from struct import Struct, error
from typing import ClassVar, Final

from .constants import OFP_HEADER_SIZE, OFP_VERSION
from .errors import OpenFlowError

HEADER: Final = Struct("!BBHI")
"""version, type, length of the whole message, xid"""


class Message:
    """A message without its xid, which belongs to the connection."""

    __slots__ = ()
    type: ClassVar[int]

    def pack(self, xid: int) -> bytes:
        """The whole message; ``OpenFlowError`` if a field does not fit its place on the wire."""
        try:
            body = self._body()
            return HEADER.pack(OFP_VERSION, self.type, OFP_HEADER_SIZE + len(body), xid) + body
        except error as problem:
            raise unpackable(self.type, str(problem)) from None
        except OpenFlowError as problem:
            raise unpackable(self.type, problem.what) from None

    def _body(self) -> bytes:
        """What follows the header: nothing, for many messages."""
        return b""


def unpackable(message_type: int, problem: str) -> OpenFlowError:
    return OpenFlowError(f"cannot be packed: {problem}", message_type=message_type)


def read_header(data: bytes, offset: int) -> tuple[int, int, int, int]:
    """(version, type, length, xid) of the message at ``offset``, of which 8 bytes must be there."""
    version, kind, length, xid = HEADER.unpack_from(data, offset)
    if length < OFP_HEADER_SIZE:
        raise OpenFlowError(f"length {length} is less than that of the header", message_type=kind, offset=2)
    return version, kind, length, xid


def need(data: bytes, size: int, *, exactly: bool = False) -> None:
    """Refuse a message that is shorter than ``size`` bytes, or of another size than ``exactly`` that."""
    if len(data) < size or (exactly and len(data) != size):
        least = "" if exactly else "at least "
        raise OpenFlowError(f"{len(data)} bytes where {least}{size} belong", offset=2)
