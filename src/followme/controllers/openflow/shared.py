"""The redirect of a controller in a federation: its bindings are what home says of a node, seen from here.

Home raises the mapping's versions; each controller turns the newest that it has into the rules of its own
switches. What only the switches here know is added: at which port a node is, and whether it has been seen there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from followme.continuity.binding import Binding
from followme.continuity.ledger import Ledger
from followme.continuity.redirect import Redirect
from followme.continuity.southbound import Southbound, SwitchError
from followme.domain import Network, Node, NodeKind, Placement
from followme.federation.nouns import Card, Place
from followme.federation.nouns import Mapping as NodeMapping
from followme.federation.outputs import View
from followme.store import Store


class NotTold(SwitchError):
    """A correspondent's controller could not be told; names the network."""


class SharedRedirect(Redirect):
    """``ports`` are the ports behind which our hypervisors are, by network; ``tell_others`` tells a network's
    controller of a node (``NotTold``), ``known`` is called with each node that gets a home here, ``forgotten`` with
    what it was before it had that address."""

    def __init__(
        self, networks: Mapping[str, Network], ledger: Ledger, southbound: Southbound, store: Store,
        ports: Mapping[str, int], tell_others: Callable[[IPv4Address, str], Awaitable[None]],
        known: Callable[[Node], None], forgotten: Callable[[Node], None],
    ) -> None:  # fmt: skip
        super().__init__(networks, ledger, southbound, store)
        self._ports = ports
        self._tell_others, self._known, self._forgotten = tell_others, known, forgotten
        self._at: dict[tuple[str, str], int] = {}
        self._names: dict[IPv4Address, str] = {}

    def name_of(self, identifier: IPv4Address) -> str | None:
        """The node with that identifier, if it is known here."""
        return self._names.get(identifier)

    def at_port(self, node: str, network: str, port: int) -> None:
        """The node shows up there: if that is where it is, its rules are for this port from now on."""
        self._at[node, network] = port
        binding = self.bindings.get(node)
        if binding is not None and binding.here.network == network and binding.here.port != port:
            here = replace(binding.here, port=port)
            self.store.put_placement(here)
            self.become(replace(binding, here=here, seen=True))

    def show(self, identifier: IPv4Address, view: View | None) -> tuple[str | None, set[int]]:
        """Make the rules those of ``view``; the node's name here, and the datapaths whose rules changed.

        Without a view a node whose home is here is there, and any other is forgotten. ``SwitchError`` if a network
        is not configured; ``StoreError``. Then nothing has changed.
        """
        mapping = None if view is None else view.mapping
        if view is None or mapping is None:
            return self._settle(identifier)
        home = self.networks.get(mapping.card.home)
        if home is not None and home.ours and identifier not in self._names:
            # It is no more, and its rules went with it: no switch of ours has them when others hear that.
            return None, {one.datapath for one in self.networks.values() if one.ours}
        node = self._node(mapping.card)
        holder = self.bindings.get(node.name)
        if holder is not None and holder.node.identifier != identifier:
            raise SwitchError(f"{node.name} ({identifier}): {holder.node.identifier} has that name here")
        unknown = {node.home, *(place.network for place in mapping.places)} - self.networks.keys()
        if unknown:
            raise SwitchError(f"{node.name} ({identifier}): {min(unknown)} is not a network of the config")
        binding = self._binding(node, mapping, view, holder)
        if self.networks[binding.here.network].ours:
            self.store.put_placement(binding.here)
        before = self._names.get(identifier)
        touched: set[int] = set()
        if before is not None and before != node.name and not self.networks[node.home].ours:
            touched = self._drop(before, identifier)  # its home has given it another name
        self._names[identifier] = node.name
        touched |= self.become(binding)
        self._introduce(binding, holder)
        return node.name, touched

    def hide(self, identifier: IPv4Address) -> set[int]:
        """Have no rules of another domain's node; the datapaths whose rules changed."""
        name = self._names.get(identifier)
        binding = None if name is None else self.bindings.get(name)
        if name is None or binding is None or self.networks[binding.node.home].ours:
            return set()
        return self._drop(name, identifier)

    def called(self, card: Card) -> str:
        """The node's name here: no operator can use up names of another, for who is at home elsewhere has its
        identifier in it."""
        home = self.networks.get(card.home)
        return card.name if home is not None and home.ours else f"{card.name}@{card.identifier}"

    def _node(self, card: Card) -> Node:
        return Node(self.called(card), card.kind, card.mac, card.identifier, card.address, card.home)

    def _introduce(self, binding: Binding, before: Binding | None) -> None:
        """Have the router know new locators of ours before anything is sent to them: nobody may be there to answer
        its question by then, and what waits for that answer is lost."""
        was = () if before is None else (before.here, before.arriving)
        known = {(place.network, place.locator) for place in was if place is not None}
        for place in (binding.here, binding.arriving):
            if place is None or not place.port or (place.network, place.locator) in known:
                continue
            if self.networks[place.network].ours:
                self._prime(place, binding.node)

    def _settle(self, identifier: IPv4Address) -> tuple[str | None, set[int]]:
        name = self._names.get(identifier)
        binding = None if name is None else self.bindings.get(name)
        if name is None or binding is None:
            return None, set()
        node = binding.node
        if not self.networks[node.home].ours:
            return name, self._drop(name, identifier)
        port = self._port(node, node.home)
        here = Placement(name, node.home, port, node.identifier, binding.here.version)
        self.store.put_placement(here)
        return name, self.become(Binding(node, here, watched=binding.watched))

    def _drop(self, name: str, identifier: IPv4Address) -> set[int]:
        touched = {self.networks[network].datapath for network, one in self.networks.items() if one.ours and
                   self.ledger.count(name, one.datapath)}  # fmt: skip
        super().forget(name)
        self.store.delete_placement(name)
        self._names.pop(identifier, None)
        for key in [key for key in self._at if key[0] == name]:
            del self._at[key]
        return touched

    def _binding(self, node: Node, mapping: NodeMapping, view: View, before: Binding | None) -> Binding:
        def placed(place: Place) -> Placement:
            return Placement(node.name, place.network, self._port(node, place.network), place.locator,
                             mapping.version)  # fmt: skip

        here = placed(mapping.here)
        was = None if before is None else (before.here.network, before.here.locator)
        same = was == (here.network, here.locator)
        # A machine that was carried shows by its first packet that it has arrived; users have been seen already.
        seen = node.kind is NodeKind.USER or before is None or (same and before.seen)
        return Binding(
            node, here,
            arriving=None if mapping.arriving is None else placed(mapping.arriving),
            leaving=None if mapping.leaving is None else placed(mapping.leaving),
            old=tuple(placed(place) for place in mapping.old),
            told=view.told & self.networks.keys(), telling=view.telling & self.networks.keys(),
            seen=seen, watched=before is None or before.watched,
        )  # fmt: skip

    def _port(self, node: Node, network: str) -> int:
        if not self.networks[network].ours:
            return 0
        if node.kind is NodeKind.MACHINE:
            return self._ports.get(network, 0)
        port = self._at.get((node.name, network))
        if port is None and (known := self.store.placement(node.name)) is not None and known.network == network:
            port = known.port
        if port is None and node.home == network:
            port = node.port
        return port or 0

    # ---- what the watcher asks for

    def restore(self, node: Node, here: Placement, told: object = ()) -> None:
        """A node whose home is here; where it is away, ``show`` says so."""
        self._names[node.identifier] = node.name
        at_home = here.network == node.home and here.locator == node.identifier
        super().restore(node, here if at_home else Placement(node.name, node.home, node.port or 0,
                                                              node.identifier, here.version))  # fmt: skip
        self._known(node)

    def adopt(self, node: Node, network: str, port: int) -> None:
        self._at[node.name, network] = port
        before = self.bindings.get(node.name)
        if before is not None:
            self._names.pop(before.node.identifier, None)
        super().adopt(node, network, port)
        if before is not None and before.node.identifier != node.identifier:
            self._forgotten(before.node)
        self._names[node.identifier] = node.name
        self._known(node)

    def forget(self, name: str) -> None:
        """Only nodes whose home is here: of others home says when they are gone."""
        binding = self.bindings.get(name)
        if binding is not None and self.networks[binding.node.home].ours:
            self._names.pop(binding.node.identifier, None)
            super().forget(name)

    async def tell(self, name: str, network: str) -> None:
        binding = self.bindings.get(name)
        if binding is not None and network in self.networks and network not in binding.told - binding.telling:
            await self._tell_others(binding.node.identifier, network)

    def _free(self, name: str, place: Placement, node: Node) -> None:
        """Whose network it is gives its locators, and takes them back (``federation.foreign``)."""


def card_of(node: Node) -> Card:
    return Card(node.name, node.kind, node.mac, node.identifier, node.address, node.home)
