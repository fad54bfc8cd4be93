"""The one exception of this room, in a file of its own so that every parser can import it."""

from __future__ import annotations


class PacketError(ValueError):
    """Bytes that are not the packet they claim to be, or fields that fit in no packet."""
