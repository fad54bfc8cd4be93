"""How a daemon is told to stop."""

from __future__ import annotations

import asyncio
import signal


def until_told() -> asyncio.Event:
    """Set by SIGINT or SIGTERM, from now on."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
