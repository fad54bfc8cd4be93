"""Correspondents learn where a node that has moved is: when they send to it, and when it sends to them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address
from typing import Any

from followme.continuity.pipeline import THROUGH_TABLES
from followme.continuity.redirect import Redirect
from followme.continuity.southbound import Southbound, SwitchError
from followme.domain import Mac, Network
from followme.mobility.locations import LocationManager
from followme.openflow import PacketOut

log = logging.getLogger(__name__)

MAX_PARKED = 64
"""Packets kept for one node and network while a correspondent is being told."""
QUIET_S = 1.0
"""How long the home switch is not asked about unaware peers after it reported one."""


class Correspondents:
    """``start`` does work in the background, unless there is too much of it already (then it returns False)."""

    def __init__(
        self,
        southbound: Southbound,
        redirect: Redirect,
        locations: LocationManager,
        counts: Counter[str],
        start: Callable[[Coroutine[Any, Any, object]], bool],
    ) -> None:
        self._southbound, self._redirect, self._locations = southbound, redirect, locations
        self._counts, self._start = counts, start
        self._parked: dict[tuple[str, str], list[PacketOut]] = {}

    def unaware(self, source: IPv4Address, target: IPv4Address) -> None:
        """The home switch sent a packet on for a peer that does not know the locator: tell its network."""
        home = self._locations.network_of(target)
        binding = self._redirect.locate(home, target) if home else None
        if binding is None or not binding.watched:
            return
        name = binding.node.name
        self._redirect.watch(name, False)
        asyncio.get_running_loop().call_later(QUIET_S, self._redirect.watch, name, True)
        network = self._whereabouts(source)
        if network is not None:
            self._start(self._tell(name, network))

    def _whereabouts(self, address: IPv4Address) -> str | None:
        """The managed network where the peer with this identifier or locator is now."""
        network = self._locations.network_of(address)
        if network is None:
            return None
        peer = self._redirect.locate(network, address)
        return peer.here.network if peer else network

    def intercepted(self, network: Network, port: int, mac: Mac, target: IPv4Address, frame: bytes) -> None:
        """A moved node speaks to a network that does not know its locator: that network first."""
        node = self._locations.node(mac)
        binding = self._redirect.bindings.get(node.name) if node else None
        if node is None or binding is None:
            return
        if network.name not in (binding.here.network, binding.arriving.network if binding.arriving else ""):
            return  # it has left; no rule lets its packets pass here, and they would come back to us
        out = PacketOut(frame, THROUGH_TABLES, port)
        other = self._locations.network_of(target)
        if other is None or other == network.name:
            # Beyond our edge (or at the router itself) nobody can restore an identifier, so it stays in
            # the packet; answers come back by way of home.
            self._redirect.pass_outside(node.name, network, target)
            self._southbound.send(network.datapath, [out])
            return
        parked = self._parked.get((node.name, other))
        if parked is not None:
            if len(parked) < MAX_PARKED:
                parked.append(out)
            else:
                self._counts["parked packets dropped"] += 1
            return
        self._parked[node.name, other] = [out]
        if not self._start(self._tell_and_release(node.name, other, network)):
            del self._parked[node.name, other]

    async def _tell(self, name: str, network: str) -> bool:
        try:
            await self._redirect.tell(name, network)
        except SwitchError as error:
            log.warning("cannot tell %s about %s: %s", network, name, error)
            return False
        return True

    async def _tell_and_release(self, name: str, other: str, network: Network) -> None:
        told = False
        try:
            told = await self._tell(name, other)
        finally:
            parked = self._parked.pop((name, other), [])
            if told:
                self._southbound.send(network.datapath, parked)
            else:  # sent through the tables, they would come back to be parked again
                self._counts["parked packets dropped"] += len(parked)
