"""Which control message a datagram holds (RFC 9301, 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .encapsulated import EncapsulatedControlMessage, decode_encapsulated
from .errors import LispError
from .register import (
    MapNotify,
    MapNotifyAck,
    MapRegister,
    decode_map_notify,
    decode_map_notify_ack,
    decode_map_register,
)
from .reply import MapReply, decode_map_reply
from .request import MapRequest, decode_map_request


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """A message of a type that is not read here (Map-Referral 6, Info-Request 7, ...): all its octets."""

    data: bytes

    @property
    def type(self) -> int:
        return self.data[0] >> 4

    def encode(self) -> bytes:
        return self.data


Message = (
    MapRequest | MapReply | MapRegister | MapNotify | MapNotifyAck | EncapsulatedControlMessage | UnknownMessage
)

_DECODERS: Final[dict[int, Callable[[bytes], Message]]] = {
    MapRequest.TYPE: decode_map_request,
    MapReply.TYPE: decode_map_reply,
    MapRegister.TYPE: decode_map_register,
    MapNotify.TYPE: decode_map_notify,
    MapNotifyAck.TYPE: decode_map_notify_ack,
}


def decode(datagram: bytes) -> Message:
    """The control message that is all of ``datagram`` (the UDP payload); ``LispError`` if it is none.

    An authenticated message is not verified here, see ``verify``. An ECM is opened, one level deep.
    """
    if not datagram:
        raise LispError("an empty datagram", field="Type", offset=0)
    kind = datagram[0] >> 4
    if kind == EncapsulatedControlMessage.TYPE:
        return decode_encapsulated(datagram, decode)
    decoder = _DECODERS.get(kind)
    return UnknownMessage(datagram) if decoder is None else decoder(datagram)
