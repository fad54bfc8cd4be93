"""The exceptions of the OpenFlow library: one base class, so that a caller needs one ``except``."""

from __future__ import annotations

from .constants import message_name


class OpenFlowError(Exception):
    """Bytes or a message that OpenFlow 1.3 does not allow; the only exception that any parser raises.

    ``what`` says what is wrong, ``message_type`` in which message (``None``: before its type was known),
    ``offset`` at which byte of the message (``None`` while packing, where there are no bytes yet).
    """

    def __init__(self, what: str, *, message_type: int | None = None, offset: int | None = None) -> None:
        super().__init__(what, message_type, offset)
        self.what = what
        self.message_type = message_type
        self.offset = offset

    def __str__(self) -> str:
        where = "" if self.message_type is None else message_name(self.message_type)
        if self.offset is not None:
            where += f"{' at ' if where else ''}byte {self.offset}"
        return f"{where}: {self.what}" if where else self.what


class NotConnected(OpenFlowError):
    """``Connection.send`` before the peer's HELLO was accepted, or after the end."""


class OutputFull(OpenFlowError):
    """``Connection.send`` while the peer does not read: the message was not queued."""
