"""RLOC-probing (RFC 9301, 7.1): is a locator that we send to alive?

A locator goes down after three probes in a row without an answer and comes up with the next answer. What it
is asked for is any EID-prefix that is mapped to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from followme.lisp import EidPrefix

from .outputs import IPAddress
from .requests import Nonces

MISSES = 3
ANSWER_S = 1.0
"""How long a probe waits for its answer, and how soon the next follows on one that came to nothing."""
MAX_RLOCS = 1024


@dataclass(slots=True)
class Probed:
    """What is known of one RLOC. ``rtt_s`` is of its last answer."""

    due: float
    nonce: int | None = None
    sent: float = 0.0
    misses: int = 0
    up: bool = True
    rtt_s: float | None = None


class Prober:
    """Which RLOCs are up. ``interval_s`` 0 sends no probes: all are taken to be up."""

    def __init__(self, interval_s: float, nonces: Nonces) -> None:
        self._interval, self._nonces = interval_s, nonces
        self.rlocs: dict[IPAddress, Probed] = {}

    def down(self, rloc: IPAddress) -> bool:
        probed = self.rlocs.get(rloc)
        return probed is not None and not probed.up

    def use(self, rlocs: Iterable[IPAddress], now: float) -> None:
        """RLOCs that packets go to from now on."""
        if not self._interval:
            return
        for rloc in rlocs:
            if rloc not in self.rlocs and len(self.rlocs) < MAX_RLOCS:
                # Spread by the address, so that not all are asked at once.
                spread = int.from_bytes(rloc.packed[-2:], "big") % 64 / 64
                self.rlocs[rloc] = Probed(now + spread * min(self._interval, 2.0))

    def due(
        self, in_use: Mapping[IPAddress, EidPrefix], now: float
    ) -> tuple[list[tuple[IPAddress, EidPrefix, int]], list[IPAddress]]:
        """Probes to send (RLOC, EID-prefix, nonce), and the RLOCs that have gone down."""
        if not self._interval:
            return [], []
        for rloc in [rloc for rloc in self.rlocs if rloc not in in_use]:
            del self.rlocs[rloc]
        self.use(in_use, now)
        send, gone = [], []
        for rloc, probed in self.rlocs.items():
            if probed.due > now:
                continue
            if probed.nonce is not None:
                probed.misses += 1
                if probed.misses >= MISSES and probed.up:
                    probed.up = False
                    gone.append(rloc)
            probed.nonce, probed.sent = self._nonces.next(now), now
            slow = not probed.up and probed.misses > 2 * MISSES
            probed.due = now + (self._interval if slow else ANSWER_S)
            send.append((rloc, in_use[rloc], probed.nonce))
        return send, gone

    def answered(self, rloc: IPAddress, nonce: int, now: float) -> bool | None:
        """A probe's answer: ``True`` if the RLOC has come up by it, ``None`` if nobody asked for it."""
        probed = self.rlocs.get(rloc)
        if probed is None or probed.nonce is None or probed.nonce != nonce:
            return None
        risen = not probed.up
        probed.rtt_s = now - probed.sent
        probed.nonce, probed.misses, probed.up, probed.due = None, 0, True, now + self._interval
        return risen

    def next_timer(self) -> float | None:
        return min((probed.due for probed in self.rlocs.values()), default=None) if self._interval else None
