"""What goes wrong with switches and with others that connect: counted always, logged seldom."""

from __future__ import annotations

import logging
import time

from followme.continuity.handlers import Counters
from followme.system.seldom import Seldom

log = logging.getLogger(__name__)

RECENT = 64
MAX_LINES = 256
"""In ``seldom.LOG_EVERY_S``: peers must not fill the disk."""


class Complaints:
    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._seldom = Seldom(log, MAX_LINES)

    def due(self, what: str) -> bool:
        """Whether to log it now."""
        return self._seldom.due(what, time.monotonic())

    def fault(self, error: Exception) -> None:
        """A handler or the store failed. That alone is no reason to cut off a switch."""
        self._counters.faults += 1
        if self.due(f"fault {type(error).__name__}"):
            log.error("handling a switch's message failed", exc_info=error)

    def strange(self, peer: object, reason: str) -> None:
        """A peer came to no good before it was admitted: a wrong port, a wrong version, a scanner."""
        self._counters.failed_peers += 1
        host = peer[0] if isinstance(peer, tuple) and peer else peer
        if self.due(f"peer {host}"):
            log.warning("closed the connection of %s, which is no switch of ours: %s", peer, reason)

    def refused_datapath(self, datapath: int, peer: object) -> None:
        self._counters.refused_datapaths += 1
        if self.due(f"datapath {datapath:#x}"):
            log.warning("refused datapath %#x from %s: it is not in the config; add a network with "
                        "'datapath: %#x' or point the switch elsewhere", datapath, peer, datapath)  # fmt: skip

    def refused_message(self, text: str) -> None:
        """A switch has refused a message of ours."""
        self._counters.last_errors = [*self._counters.last_errors[1 - RECENT:], text]
        if self.due(text):
            log.error("%s", text)
