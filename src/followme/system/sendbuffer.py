"""A UDP socket that hosts which are not there cannot fill."""

from __future__ import annotations

import socket
from typing import Final

SEND_BUFFER: Final = 64 << 20
"""What the kernel holds for 3 s for a host of a link of ours that does not tell its MAC takes from it,
up to 208 KiB for each. Anybody can have us answer to such an address: with the usual 208 KiB in all, one would
silence us; this has room for all of a /24."""
_SO_SNDBUFFORCE: Final = 32


def widen(one: socket.socket) -> None:
    """Have room for ``SEND_BUFFER`` octets; without CAP_NET_ADMIN no more than ``net.core.wmem_max`` allows."""
    try:
        one.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER)
    except PermissionError:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
