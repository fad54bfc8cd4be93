"""EIDs of machines that run here, claimed again where another router claims them too."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from followme.migration.host import MachineSpec
from followme.xtr.router import TunnelRouter

log = logging.getLogger(__name__)

CLAIM_AGAIN_S = 0.5
MAX_CLAIMS, CLAIMS_S = 5, 60.0
"""A machine is claimed so often in so long; then the map server's rule counts, as both may be right, until the
oldest of these claims is so old."""


class Claims:
    """``runs`` says whether a machine runs here, and is not being carried."""

    def __init__(self, router: TunnelRouter, runs: Callable[[str], MachineSpec | None]) -> None:
        self._router, self._runs = router, runs
        self._made: dict[str, deque[float]] = {}
        self._waiting: set[str] = set()

    def forget(self, machine: str) -> None:
        """It does not run here any more."""
        self._made.pop(machine, None)

    async def again(self, machine: str, eid: IPv4Address | IPv6Address) -> None:
        """The map server has said that the machine's EID is elsewhere: claim it, unless it has left meanwhile."""
        if machine in self._waiting:
            return
        self._waiting.add(machine)
        try:
            await asyncio.sleep(self._delay(machine, eid))
        finally:
            self._waiting.discard(machine)
        spec = self._runs(machine)
        if spec is None or self._router.local(eid):
            return
        made = self._made.setdefault(machine, deque(maxlen=MAX_CLAIMS))
        made.append(asyncio.get_running_loop().time())
        log.warning("%s (%s) runs here, whatever another router claims: registered again", machine, eid)
        self._router.claim(eid, spec.mac)

    def _delay(self, machine: str, eid: IPv4Address | IPv6Address) -> float:
        made = self._made.get(machine)
        if made is None or len(made) < MAX_CLAIMS:
            return CLAIM_AGAIN_S
        rest = made[0] + CLAIMS_S - asyncio.get_running_loop().time()
        if rest <= CLAIM_AGAIN_S:
            return CLAIM_AGAIN_S
        log.error("%s (%s) runs here, but another router claims it again and again: the next claim of ours is in "
                  "%.0f s", machine, eid, rest)  # fmt: skip
        return rest
