"""The FMC controller of some networks in a federation: who is where, and the rules of its own switches.

It decides nothing by itself: hosts' agents carry machines, nodes that show up move themselves, and home has the
say about every mapping (``federation/``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from ipaddress import IPv4Address
from typing import TypeVar

from followme.config.federation import FederatedConfig
from followme.continuity.quiet import quiet
from followme.continuity.southbound import Role, Southbound, SwitchError
from followme.controllers.openflow.edge import Edge
from followme.controllers.openflow.shared import NotTold, SharedRedirect, card_of
from followme.domain import Attachment, Mac, Network, Node, Placement
from followme.federation.engine import Engine, FederationError
from followme.federation.federate import Federate
from followme.federation.hosts import HostRequest
from followme.federation.nouns import Place
from followme.federation.outputs import Attached, Effect, NotAttached, View
from followme.mobility.visits import VisitWatcher
from followme.openflow import Port, PortStatus
from followme.store import Store, StoreError
from followme.system.seldom import Refusals

log = logging.getLogger(__name__)
T = TypeVar("T")

CONFIRM_S = 5.0
"""How long a switch may take to confirm the rules of a mapping before its sender is told to come again."""
HEARD_S = 2.0
"""How long what home has made of a flip may take to come back here."""
CLAIM_S = 10.0
"""How long a node that shows up waits for its home's answer."""
QUIET_AGAIN_S = 5.0
"""When a switch that could not be asked whether an old place is quiet is asked again."""
TURN_S = 0.05
"""How long work that is long may keep everything else from going on."""


async def patiently(many: Iterable[T]) -> AsyncIterator[T]:
    """Each of them, letting others have a turn now and then."""
    enough = time.monotonic() + TURN_S
    for one in many:
        yield one
        if time.monotonic() >= enough:
            await asyncio.sleep(0)
            enough = time.monotonic() + TURN_S


class FederatedController(Edge):
    """One domain's network (``engine.EdgeNetwork``): ``engine`` is set before ``start``."""

    def __init__(
        self,
        config: FederatedConfig,
        federate: Federate,
        store: Store,
        southbound: Southbound,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``store`` has what was known before; ``southbound`` may have connections of switches already."""
        self.config, self.federate = config, federate
        networks = {network.name: network for network in config.networks}
        self.shared = SharedRedirect(
            networks, southbound.ledger, southbound, store,
            {one.name: one.hypervisor_port for one in config.file.networks if one.hypervisor_port is not None},
            self._tell_others, self._known,
        )  # fmt: skip
        self.engine: Engine
        super().__init__(config.file, config.nodes, self.shared, clock)
        self.watcher = VisitWatcher(
            self.networks, self.southbound, self.redirect, self.locations, self.dhcp,
            attached=self._attached, arrived=self._arrived, peers=lambda node: frozenset(),
            probe=lambda network, frame: None, clock=clock, claim=self._claim, placed=self.shared.at_port,
        )  # fmt: skip
        self.southbound.handlers.packet_in = self.watcher.packet_in
        self._refusals = Refusals(log)
        self._unconfirmed: dict[IPv4Address, set[int]] = {}
        self._retiring: dict[tuple[IPv4Address, Place], asyncio.Task[None]] = {}
        self._claims: dict[tuple[IPv4Address, str], list[asyncio.Future[str | None]]] = {}

    # ---- life

    async def restore(self) -> None:
        """What the config and the store say of nodes: their rules stand in the ledger then. They may be many, and
        the lease must be renewed meanwhile: nothing else may call us until this returns."""
        self._restore()
        async for identifier in patiently(self.federate.mappings()):
            try:
                self._show(identifier, self.federate.view(identifier))
            except Exception as error:  # one node must not keep the domain from being served
                self._not_shown(identifier, error)
        self.redirect.install_base()
        if self.southbound.role is not Role.ALONE:
            self.dhcp.prolong()

    def start(self) -> None:
        """Once the switches are ours and the engine runs."""
        self.run()

    async def close(self) -> None:
        await self.stop_running()
        for task in list(self._retiring.values()):
            task.cancel()
        await asyncio.gather(*self._retiring.values(), return_exceptions=True)
        await self.watcher.close()
        self.log_summary()

    def counted(self) -> dict[str, int]:
        counts = {f"refused ({kind})": count for kind, count in self.watcher.refusals.counts.items()}
        counts |= self._refusals.counts
        counts |= {f"federation refused ({why})": count for why, count in self.federate.refusals.items()}
        return counts | dict(self.watcher.counts) | {f"bus {what}": n for what, n in self.engine.counted.items()}

    def ports(self, network: Network, ports: tuple[Port, ...]) -> None:
        self.watcher.ports(network, ports)

    def port_status(self, network: Network, message: PortStatus) -> None:
        self.watcher.port_status(network, message)

    def peers_of(self, node: Node) -> frozenset[str]:
        return frozenset()

    def forgotten(self, node: Node) -> None:
        self.engine.forget(node.identifier)

    # ---- what the engine asks for (``EdgeNetwork``)

    async def apply(self, identifiers: Collection[IPv4Address]) -> Mapping[IPv4Address, str]:
        wrong: dict[IPv4Address, str] = {}
        owners: dict[IPv4Address, str | None] = {}
        for identifier in identifiers:
            view = self.federate.view(identifier)
            try:
                owners[identifier], touched = self._show(identifier, view)
            except (SwitchError, StoreError) as error:
                wrong[identifier] = str(error)
                continue
            except Exception as error:
                wrong[identifier] = self._not_shown(identifier, error)
                continue
            if touched:
                self._unconfirmed.setdefault(identifier, set()).update(touched)
            self._retire(identifier, view)
        waiting = {one: self._unconfirmed[one] for one in owners if one in self._unconfirmed}
        if not waiting:
            return wrong
        try:
            await self.southbound.barrier(set().union(*waiting.values()), CONFIRM_S)
        except SwitchError:
            results = await asyncio.gather(*(self._confirm(owners[one], dps) for one, dps in waiting.items()))
            wrong |= {one: why for one, why in zip(waiting, results, strict=True) if why}
        for one, datapaths in waiting.items():
            if one not in wrong and self._unconfirmed.get(one) is datapaths:
                del self._unconfirmed[one]
        return wrong

    async def _confirm(self, owner: str | None, datapaths: set[int]) -> str:
        try:
            await self.southbound.barrier(set(datapaths), CONFIRM_S, owner=owner)
        except SwitchError as error:
            return str(error)
        return ""

    async def still_here(self, identifier: IPv4Address) -> bool | None:
        name = self.shared.name_of(identifier)
        binding = None if name is None else self.redirect.bindings.get(name)
        return False if binding is None else await self.watcher.still_here(binding.node)

    def effect(self, effect: Effect) -> None:
        if not isinstance(effect, Attached | NotAttached):
            return
        reason = effect.reason if isinstance(effect, NotAttached) else None
        for waiting in self._claims.pop((effect.identifier, effect.network), ()):
            if not waiting.done():
                waiting.set_result(reason)
        name = self.shared.name_of(effect.identifier)
        if reason is None and name is not None:
            here = self.redirect.bindings[name].here
            self._attached(Attachment(name, here.network, here.port, here.locator, time.time()))

    def _not_shown(self, identifier: IPv4Address, error: Exception) -> str:
        """Its rules stay as they are until its mapping is told again; the reason, in words."""
        why = str(error) if isinstance(error, SwitchError | StoreError) else f"{type(error).__name__}: {error}"
        self._refusals.refuse("rules of a node cannot be made", str(identifier), self.clock(), why)
        return why

    def _show(self, identifier: IPv4Address, view: View | None) -> tuple[str | None, set[int]]:
        before = self.shared.name_of(identifier)
        name, touched = self.shared.show(identifier, view)
        binding = None if name is None else self.redirect.bindings.get(name)
        if before is not None and (binding is None or before != name):
            self.locations.remove(before)
        if binding is not None:
            self.locations.add(binding.node)
        return name, touched

    def _retire(self, identifier: IPv4Address, view: View | None) -> None:
        """Watch the old ways of our own networks; when one is quiet, home is told."""
        old = () if view is None or view.mapping is None else view.mapping.old
        ours = {place for place in old if self._ours(place)}
        for key in [key for key in self._retiring if key[0] == identifier and key[1] not in ours]:
            self._retiring.pop(key).cancel()
        for place in ours:
            if (identifier, place) not in self._retiring:
                task = asyncio.ensure_future(self._when_quiet(identifier, place))
                self._retiring[identifier, place] = task

    async def _when_quiet(self, identifier: IPv4Address, place: Place) -> None:
        while True:
            try:
                await self._quiet(identifier, place)
                break
            except Exception as error:  # its locator is not free before this succeeds
                why = f"{place.network}: {type(error).__name__}: {error}"
                self._refusals.refuse("an old place cannot be asked for", str(identifier), self.clock(), why)
            await asyncio.sleep(QUIET_AGAIN_S)
        self.engine.quiet(identifier, place)

    async def _quiet(self, identifier: IPv4Address, place: Place) -> None:
        name = self.shared.name_of(identifier)
        if name is not None and self._ours(place):
            network = self.networks[place.network]
            old = Placement(name, place.network, 0, place.locator, 0)
            await quiet(self.southbound, network.datapath, name, old)

    def _ours(self, place: Place) -> bool:
        network = self.networks.get(place.network)
        return network is not None and network.ours

    def where(self, identifier: IPv4Address) -> str | None:
        """The network where the node is, as far as this domain knows."""
        view = self.federate.view(identifier)
        if view is not None and view.mapping is not None:
            return view.mapping.here.network
        name = self.shared.name_of(identifier)
        return None if name is None else self.redirect.bindings[name].here.network

    # ---- what hosts' agents ask for

    def hosts(self, request: HostRequest) -> set[str]:
        """Names on the bus of the hosts that may ask this: whose network the machine is in, or was before this
        migration."""
        if request.phase == "arrived":
            networks = {request.network}
        else:
            networks = {network} if (network := self.where(request.identifier)) is not None else set()
        view = self.federate.view(request.identifier)
        if request.phase in ("flipped", "released", "aborted") and view is not None and view.mapping is not None:
            networks |= {place.network for place in (view.mapping.leaving, *view.mapping.old) if place is not None}
        return {one.host_name for one in self.config.file.networks if one.name in networks and one.host_name}

    async def left(self, identifier: IPv4Address) -> None:
        """Return when no packet takes the way back to where the machine has left: its host may let go of it."""
        deadline = self.clock() + HEARD_S
        while (view := self.federate.view(identifier)) is not None and view.mapping is not None:
            if view.mapping.leaving is not None:
                return await self._quiet(identifier, view.mapping.leaving)
            if view.mapping.arriving is None or self.clock() >= deadline:
                return None
            await asyncio.sleep(HEARD_S / 100)  # home has heard of the flip, and we have not heard that yet
        return None

    async def arrived(self, host: str, request: HostRequest) -> None:
        """A machine runs at a host of ours, and no migration says so: home hears of it. ``FederationError``."""
        if (network := self.networks.get(request.network)) is None or not network.ours:
            raise FederationError(f"host {host}: {request.network} is not a network of this domain")
        if self.where(request.identifier) == request.network:
            return
        if (reason := await self._claim(request.identifier, request.mac, request.network)) is not None:
            raise FederationError(f"{request.identifier} at {request.network}: {reason}")

    # ---- what the watcher asks for

    async def _claim(self, identifier: IPv4Address, mac: Mac, network: str) -> str | None:
        """Its home's answer to a node that shows up in our network: None, or why not."""
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        waiting = self._claims.setdefault((identifier, network), [])
        waiting.append(answer)
        self.engine.attach(identifier, mac, network)
        try:
            async with asyncio.timeout(CLAIM_S):
                return await answer
        except TimeoutError:
            self.engine.detached(identifier, network)
            return f"its home has not answered within {CLAIM_S:g} s"
        finally:
            if answer in waiting:
                waiting.remove(answer)
            if not waiting and self._claims.get((identifier, network)) is waiting:
                del self._claims[identifier, network]

    async def _tell_others(self, identifier: IPv4Address, network: str) -> None:
        name = self.shared.name_of(identifier)
        binding = None if name is None else self.redirect.bindings.get(name)
        if binding is not None and not any(
            self.networks[place.network].ours for place in (binding.here, binding.arriving) if place is not None
        ):
            # We are its home, and only pass its packets on: nothing waits here for that network's answer.
            self.engine.unaware(identifier, network)
            return
        try:
            await self.engine.tell(identifier, network)
        except FederationError as error:
            raise NotTold(str(error)) from None

    def _known(self, node: Node) -> None:
        self.engine.know(card_of(node))

    def _attached(self, attachment: Attachment) -> None:
        self.store.put_attachment(attachment)
        node = self.redirect.bindings[attachment.node].node
        where = "" if attachment.locator == node.identifier else f", locator {attachment.locator}"
        text = f"{node.name} ({node.identifier}) is at {attachment.network}{where}"
        self.watchers.tell("mobility", text, attachment)
        self.redirect.warm(attachment.node)

    def _arrived(self, node: Node, network: Network) -> None:
        text = f"{node.name} has arrived at {network.name}: its first packet was seen"
        self.watchers.tell("mobility", text, node)
