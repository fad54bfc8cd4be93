"""What a ``Connection`` reports."""

from __future__ import annotations

from .message import Message
from .record import record
from .session import FeaturesReply


@record
class Ready:
    """The handshake is done; messages flow from now on. On the switch's side ``features`` are its own."""

    features: FeaturesReply


@record
class Received:
    """A message that the connection does not handle by itself."""

    xid: int
    message: Message


@record
class RoundTrip:
    """The peer answered an echo request after so many seconds."""

    seconds: float


@record
class Closed:
    """The end: no event follows. What ``data_to_send`` still holds may be sent, then the socket is closed."""

    reason: str


Event = Ready | Received | RoundTrip | Closed
