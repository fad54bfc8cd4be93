"""How much of each network's uplink is free, from the counters of its switch's port.

Each switch is asked for its uplink's counters every few seconds (OFPMP_PORT_STATS, OpenFlow 1.3 section 7.3.5.6).
What is free is the link's speed less the rate of its busier direction: links are full duplex, and what is to
come may go either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from math import nan

import numpy as np
from numpy.typing import NDArray

from followme.continuity.southbound import Southbound
from followme.domain import Network, NetworkKind
from followme.openflow import Port, PortStats
from followme.openflow.port_stats import UNSUPPORTED

POLL_S = 3.0
"""Short against a user's stay, long against a switch's turn for its counters (Open vSwitch: a second)."""
ANSWER_S = 2.0
UNANSWERED = 3
"""Questions in a row that a switch may leave open before it is not asked any more, until it connects again: one who
does not know the question refuses it each time, and each refusal is an error in the log."""
PER_TURN = 64
"""Questions under way at once."""

Floats = NDArray[np.float64]


class UplinkMeter:
    """Asks, and keeps what is free; bounded by the networks.

    ``speeds`` (bit/s) are the config's, by network; where it has none the switch's own word for the port counts
    (``curr_speed``), and without that nothing is known.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        southbound: Southbound,
        speeds: Mapping[str, float],
        clock: Callable[[], float],
        centres: Sequence[str],
    ) -> None:
        self._networks = networks
        self._southbound = southbound
        self._clock = clock
        self._speeds = dict(speeds)
        self._told: dict[str, float] = {}
        self._last: dict[str, tuple[float, PortStats]] = {}
        self._free: dict[str, float] = {}
        self._open: dict[str, int] = {}
        self._number = {name: number for number, name in enumerate(centres)}
        self._centres: Floats = np.full(len(self._number), nan)

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self.ask()
            await asyncio.sleep(POLL_S)

    async def ask(self) -> None:
        """One question to each switch that is connected and whose uplink's speed is known."""
        asked = list(self._networks.values())
        for start in range(0, len(asked), PER_TURN):
            await asyncio.gather(*(self._ask(one) for one in asked[start : start + PER_TURN]))

    def ports(self, network: Network, ports: Sequence[Port]) -> None:
        """What the switch says of its ports, when it connects and when one changes: the uplink's speed, in kbit/s,
        0 if it does not know."""
        self._open.pop(network.name, None)
        for port in ports:
            if port.port_no == network.uplink_port:
                self._told[network.name] = 1e3 * port.curr_speed

    def free_bit_s(self, network: str) -> float | None:
        """What is free on the network's uplink; ``None`` if that is not known."""
        return self._free.get(network)

    def between(self, one: str, other: str) -> float | None:
        """What is free between two networks: the less of both ends; ``None`` if one is not known."""
        ends = (self._free.get(one), self._free.get(other))
        return None if ends[0] is None or ends[1] is None else min(ends[0], ends[1])

    def measured(self, access: str) -> Floats:
        """(centres,): what is free between ``access`` and each of them, bit/s, NaN where it is not known."""
        return np.minimum(self._centres, self._free.get(access, nan))

    async def _ask(self, network: Network) -> None:
        speed = self._speeds.get(network.name) or self._told.get(network.name, 0.0)
        stats: PortStats | None = None
        unanswered = self._open.get(network.name, 0)
        if speed > 0.0 and unanswered < UNANSWERED and self._southbound.connected(network.datapath):
            stats = await self._southbound.port_stats(network.datapath, network.uplink_port, ANSWER_S)
            self._open[network.name] = unanswered + 1 if stats is None else 0
        if stats is None or UNSUPPORTED in (stats.rx_bytes, stats.tx_bytes):
            self._last.pop(network.name, None)
            self._know(network, None)
            return
        now = self._clock()
        before = self._last.get(network.name)
        self._last[network.name] = now, stats
        if before is None:
            return
        at, old = before
        carried = (stats.rx_bytes - old.rx_bytes, stats.tx_bytes - old.tx_bytes)
        if now <= at or min(carried) < 0:
            self._know(network, None)  # the port or the switch began anew
            return
        self._know(network, max(0.0, speed - 8.0 * max(carried) / (now - at)))

    def _know(self, network: Network, free: float | None) -> None:
        if free is None:
            self._free.pop(network.name, None)
        else:
            self._free[network.name] = free
        if network.kind is NetworkKind.DATACENTRE:
            number = self._number.get(network.name)
            if number is not None:
                self._centres[number] = nan if free is None else free
