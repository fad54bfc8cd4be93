"""Step 1 in a federation: a node that shows up here may be another network's, and its home has the say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from typing import Any

from followme.continuity.pipeline import THROUGH_TABLES
from followme.domain import Mac, Network, Node, NodeKind
from followme.mobility.watcher import Watcher
from followme.openflow import PacketOut, Port
from followme.packets import PacketError
from followme.packets.dhcp_frames import parse_client_frame

ASK_AGAIN_S = 2.0
"""How long a node that its home has refused is not asked for again."""
MAX_ASKED = 1024
SWITCH_AWAY_S = 60.0
"""How long a user behind a switch that is away is kept for it; then it may be anywhere. A machine is kept."""

Claim = Callable[[IPv4Address, Mac, str], Awaitable[str | None]]
"""Tell its home that the node with this identifier and MAC is in our network; None, or why home says no."""


class VisitWatcher(Watcher):
    """Nodes of other domains are believed if their home believes them; it knows their MAC addresses."""

    def __init__(
        self, *watching: Any, claim: Claim, placed: Callable[[str, str, int], None], **keywords: Any
    ) -> None:
        """``placed`` is told a node's name, network and port before its mapping says that it is there."""
        super().__init__(*watching, **keywords)
        self._claim, self._placed = claim, placed
        self._asked: dict[tuple[str, IPv4Address, Mac], float] = {}
        self._away_since: dict[int, float] = {}

    def ports(self, network: Network, ports: tuple[Port, ...]) -> None:
        self._away_since.pop(network.datapath, None)
        super().ports(network, ports)

    def _attach(self, node: Node, network: Network, port: int, then: Callable[[], None]) -> None:
        here = self.redirect.bindings[node.name].here
        self._placed(node.name, network.name, port)
        if here.network == network.name:
            then()
        else:
            self._start(self._visit(node.identifier, node.mac, network, port, then))

    def _strange(self, network: Network, port: int, mac: Mac, address: bytes, frame: bytes) -> bool:
        if len(address) != 4 or not self._of_another(network, identifier := IPv4Address(address)):
            return False
        outs = [PacketOut(frame, THROUGH_TABLES, port)] if frame else []
        return self._ask(network, port, mac, identifier, lambda: self.southbound.send(network.datapath, outs))

    def _dhcp(self, network: Network, port: int, source: Mac, frame: bytes) -> None:
        """A stranger that asks for an address which it has from another network: its home is asked first."""
        if self.locations.node(source) is None:
            try:
                wanted = parse_client_frame(frame).requested_ip
            except PacketError:
                wanted = None
            if wanted is not None and self._of_another(network, wanted) and self._ask(
                network, port, source, wanted, lambda: self._serve(network, port, source, frame)
            ):
                return
        super()._dhcp(network, port, source, frame)

    async def _checked_dhcp(self, node: Node, network: Network, port: int, source: Mac, frame: bytes) -> None:
        if await self._back(node, network, port):
            await super()._checked_dhcp(node, network, port, source, frame)

    async def _renumbered(self, node: Node, network: Network, port: int, address: IPv4Address) -> None:
        if await self._back(node, network, port):
            await super()._renumbered(node, network, port, address)

    async def _back(self, node: Node, network: Network, port: int) -> bool:
        """Whether a user of ours who was in another domain is here: before it gets another address, or its lease
        ends, the domain where it was is asked, for anybody on the link can use its MAC address."""
        binding = self.redirect.bindings.get(node.name)
        if binding is None or self.networks[binding.here.network].ours or not self.networks[node.home].ours:
            return True
        if not self._may_ask(network.name, node.identifier, node.mac):
            return False
        self._placed(node.name, network.name, port)
        if (refused := await self._claim(node.identifier, node.mac, network.name)) is not None:
            self._refuse("mac", network, port, node.mac, f"claims to be {node.name}: {refused}")
            return False
        self._asked.pop((network.name, node.identifier, node.mac), None)
        binding = self.redirect.bindings.get(node.name)
        return binding is not None and binding.node == node

    async def still_here(self, node: Node) -> bool | None:
        """Whether the node answers at its port here; ``None`` if its switch is away, or too many are asked."""
        binding = self.redirect.bindings.get(node.name)
        if binding is None or binding.arriving or binding.leaving:
            return False  # one that is being carried cannot answer for itself
        here, network = binding.here, self.networks[binding.here.network]
        if not network.ours:
            return False
        if not self.southbound.connected(network.datapath):
            since = self._away_since.setdefault(network.datapath, self._clock())
            return None if node.kind is NodeKind.MACHINE or self._clock() < since + SWITCH_AWAY_S else False
        if here.port == 0 or (here.network, here.port) in self._gone_ports:
            return False
        left = await self._checks.verdict(node)
        if left and not self.southbound.connected(network.datapath):
            return None  # it has gone meanwhile: nobody was asked, perhaps
        return None if left is None else not left

    def _of_another(self, network: Network, identifier: IPv4Address) -> bool:
        home = self.locations.network_of(identifier)
        return home is not None and not self.networks[home].ours and home != network.name

    def _ask(
        self, network: Network, port: int, mac: Mac, identifier: IPv4Address, then: Callable[[], None]
    ) -> bool:
        """Whether its home is asked: not again while it is, nor soon after it has said no."""
        if self._may_ask(network.name, identifier, mac):
            self._start(self._visit(identifier, mac, network, port, then))
        return True

    def _may_ask(self, network: str, identifier: IPv4Address, mac: Mac) -> bool:
        now, key = self._clock(), (network, identifier, mac)
        if self._asked.get(key, now) > now:
            return False
        if len(self._asked) >= MAX_ASKED:
            self._asked = {one: until for one, until in self._asked.items() if until > now}
            if len(self._asked) >= MAX_ASKED:
                self.counts["events dropped"] += 1
                return False
        self._asked[key] = now + ASK_AGAIN_S
        return True

    async def _visit(
        self, identifier: IPv4Address, mac: Mac, network: Network, port: int, then: Callable[[], None]
    ) -> None:
        refused = await self._claim(identifier, mac, network.name)
        node = self.locations.node(mac)
        if refused is None and (node is None or node.identifier != identifier):
            refused = "its home has let it in under another address"
        if refused is not None or node is None:
            self._refuse("visitor", network, port, mac, f"shows up as {identifier}: {refused}")
            return
        self._asked.pop((network.name, identifier, mac), None)
        self._placed(node.name, network.name, port)
        then()
