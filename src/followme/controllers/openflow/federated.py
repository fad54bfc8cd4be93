"""The FMC controller of some networks in a federation: who is where, and the rules of its own switches.

It decides nothing by itself: hosts' agents carry machines, nodes that show up move themselves, and home has the
say about every mapping (``federation/``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Address

from followme.config.federation import FederatedConfig
from followme.continuity.quiet import quiet
from followme.continuity.southbound import Role, Southbound, SwitchError
from followme.controllers.openflow.abroad import Abroad
from followme.controllers.openflow.edge import Edge
from followme.controllers.openflow.shared import NotTold, SharedRedirect, card_of
from followme.controllers.openflow.strangers import Clash, Strangers
from followme.domain import Attachment, Mac, Network, Node, NodeKind, Placement
from followme.federation.allowance import Allowance
from followme.federation.custody import Custodians
from followme.federation.edge_network import NotKnown
from followme.federation.engine import Engine, FederationError, NotYet
from followme.federation.federate import Federate
from followme.federation.hosts import HostRequest
from followme.federation.messages import Refused
from followme.federation.nouns import Place
from followme.federation.outputs import Attached, Effect, NotAttached, View
from followme.mobility.visits import VisitWatcher
from followme.openflow import Port, PortStatus
from followme.store import Store, StoreError
from followme.system.patience import patiently, through
from followme.system.seldom import Refusals

log = logging.getLogger(__name__)

CONFIRM_S = 5.0
"""How long a switch may take to confirm the rules of a mapping before its sender is told to come again."""
HEARD_S = 2.0
"""How long what home has made of a flip may take to come back here."""
CLAIM_S = 10.0
"""How long a node that shows up waits for its home's answer."""
UNKNOWN_S = 50.0
"""Of so many nodes of a network a second that are not known here our hosts are asked whether they have them."""
QUIET_AGAIN_S = 5.0
"""When a switch that could not be asked whether an old place is quiet is asked again."""


class FederatedController(Edge):
    """One domain's network (``edge_network.EdgeNetwork``): ``engine`` is set before ``start``."""

    def __init__(
        self,
        config: FederatedConfig,
        federate: Federate,
        store: Store,
        southbound: Southbound,
        custodians: Custodians,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``store`` has what was known before; ``southbound`` may have connections of switches already."""
        self.config, self.federate, self.custodians = config, federate, custodians
        networks = {network.name: network for network in config.networks}
        self.shared = SharedRedirect(
            networks, southbound.ledger, southbound, store,
            {one.name: one.hypervisor_port for one in config.file.networks if one.hypervisor_port is not None},
            self._tell_others, self._known, self.forgotten,
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
        self._unknown = Allowance(UNKNOWN_S, 2 * UNKNOWN_S)
        self._strangers = Strangers(self.networks, self.locations, self._refusals, clock)
        federate.judge_cards(self._strangers.objection)
        others = {one.name: domain.name for domain in config.file.federation.domains for one in domain.networks}
        self.abroad = Abroad(self.where, others, lambda node, domain: self.engine.has_left(node, domain))
        self._lost = {one.name for one in config.file.networks if one.hypervisor_lost}
        self._unconfirmed: dict[IPv4Address, set[int]] = {}
        self._retiring: dict[tuple[IPv4Address, Place], tuple[int, asyncio.Task[None]]] = {}
        self._claims: dict[tuple[IPv4Address, Mac, str], list[asyncio.Future[str | None]]] = {}

    # ---- life

    async def restore(self) -> None:
        """What the config and the store say of nodes: their rules stand in the ledger then. They may be many, and
        the lease must be renewed meanwhile: nothing else may call us until this returns."""
        await through(self._restoring())
        async for identifier in patiently(self.federate.mappings()):
            try:
                self._show(identifier, self.federate.view(identifier))
            except Clash:
                continue
            except Exception as error:  # one node must not keep the domain from being served
                self._not_shown(identifier, error)
        self.redirect.install_base()
        if self.southbound.role is not Role.ALONE:
            await through(self.dhcp.prolong())

    def start(self) -> None:
        """Once the switches are ours and the engine runs."""
        self.run(self.abroad.look_again())

    async def close(self) -> None:
        await self.stop_running()
        for _, task in self._retiring.values():
            task.cancel()
        await asyncio.gather(*(task for _, task in self._retiring.values()), return_exceptions=True)
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

    def served_elsewhere(self, node: Node) -> bool:
        return self.abroad.keeps(node)

    def forgotten(self, node: Node) -> None:
        self.engine.forget(node.identifier)

    # ---- what the engine asks for (``EdgeNetwork``)

    async def apply(self, identifiers: Collection[IPv4Address]) -> Mapping[IPv4Address, Refused]:
        wrong: dict[IPv4Address, Refused] = {}
        owners: dict[IPv4Address, str | None] = {}
        for identifier in identifiers:
            view = self.federate.view(identifier)
            try:
                owners[identifier], touched = self._show(identifier, view)
            except (SwitchError, StoreError) as error:
                wrong[identifier] = Refused(str(error), again=not isinstance(error, Clash))
                continue
            except Exception as error:
                wrong[identifier] = Refused(self._not_shown(identifier, error), again=True)
                continue
            if touched:
                # Another set each time: who waits for the one before has not confirmed this.
                self._unconfirmed[identifier] = self._unconfirmed.get(identifier, set()) | touched
            self._retire(identifier, view)
        waiting = {one: self._unconfirmed[one] for one in owners if one in self._unconfirmed}
        if not waiting:
            return wrong
        try:
            await self.southbound.barrier(set().union(*waiting.values()), CONFIRM_S)
        except SwitchError:
            results = await asyncio.gather(*(self._confirm(owners[one], dps) for one, dps in waiting.items()))
            wrong |= {one: Refused(why, again=True) for one, why in zip(waiting, results, strict=True) if why}
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
        """A machine's host knows better than ARP; of a node that is not known here any host of ours may be it."""
        name = self.shared.name_of(identifier)
        binding = None if name is None else self.redirect.bindings.get(name)
        if binding is None:
            if not self._unknown.take(self.locations.network_of(identifier), self.clock()):
                return None  # members may ask of all that is theirs, and each question goes to all hosts
            return await self.custodians.has(identifier, b"")
        answers = self.watcher.still_here(binding.node)
        if binding.node.kind is not NodeKind.MACHINE:
            return await answers
        network = binding.here.network if self.networks[binding.here.network].ours else None
        asked = self.custodians.has(identifier, binding.node.mac, network)
        verdicts = await asyncio.gather(answers, asked, return_exceptions=True)
        if True in verdicts:
            return True
        for verdict in verdicts:
            if isinstance(verdict, BaseException):
                raise verdict
        return None if None in verdicts and network not in self._lost else False

    def effect(self, effect: Effect) -> None:
        if not isinstance(effect, Attached | NotAttached):
            return
        reason = effect.reason if isinstance(effect, NotAttached) else None
        for waiting in self._claims.pop((effect.identifier, effect.mac, effect.network), ()):
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
        """As ``SharedRedirect.show``. ``Clash`` if its mapping concerns us, and cannot be believed: then it has no
        rules here."""
        mapping = None if view is None else view.mapping
        before = self.shared.name_of(identifier)
        if view is not None and mapping is not None and (why := self._strangers.objection(mapping.card)):
            touched = self.shared.hide(identifier)
            self.locations.remove(before or "")
            if any(self._ours(place) for place in (mapping.here, mapping.arriving)) or any(
                self.networks[network].ours for network in view.told & self.networks.keys()
            ):
                raise Clash(f"{mapping.card.name} ({identifier}): {why}")
            return None, touched
        name, touched = self.shared.show(identifier, view)
        binding = None if name is None else self.redirect.bindings.get(name)
        if before is not None and (binding is None or before != name):
            self.locations.remove(before)
        if binding is not None:
            self.locations.add(binding.node)
        return name, touched

    def _retire(self, identifier: IPv4Address, view: View | None) -> None:
        """Watch the old ways of our own networks; when one is quiet, home is told."""
        mapping = None if view is None else view.mapping
        old, version = ((), 0) if mapping is None else (mapping.old, mapping.version)
        ours = {place for place in old if self._ours(place)}
        for key in [key for key in self._retiring if key[0] == identifier and key[1] not in ours]:
            self._retiring.pop(key)[1].cancel()
        for place in ours:
            known, task = self._retiring.get((identifier, place), (0, None))
            # It may have been in use meanwhile, of which we have not heard: then home has forgotten what we said.
            if task is None or (task.done() and version > known):
                task = asyncio.ensure_future(self._when_quiet(identifier, place))
                self._retiring[identifier, place] = version, task

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

    def _ours(self, place: Place | None) -> bool:
        network = None if place is None else self.networks.get(place.network)
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

    async def _left_by(self, identifier: IPv4Address) -> str | None:
        """The network where the machine is, or from which it is still on its way."""
        deadline = self.clock() + HEARD_S
        while (view := self.federate.view(identifier)) is not None and view.mapping is not None:
            if view.mapping.leaving is None:
                break
            if self.clock() >= deadline:
                return view.mapping.leaving.network
            await asyncio.sleep(HEARD_S / 100)  # home has heard of the release, and we have not heard that yet
        return self.where(identifier)

    def _carried(self, identifier: IPv4Address) -> bool:
        """Whether a migration of it is under way, as far as this domain knows."""
        view = self.federate.view(identifier)
        mapping = None if view is None else view.mapping
        return mapping is not None and (mapping.arriving is not None or mapping.leaving is not None)

    async def arrived(self, host: str, request: HostRequest) -> None:
        """A machine runs at a host of ours, and no migration says so: home hears of it. ``FederationError``, and
        ``NotYet`` while home cannot tell."""
        if (network := self.networks.get(request.network)) is None or not network.ours:
            raise FederationError(f"host {host}: {request.network} is not a network of this domain")
        was = await self._left_by(request.identifier)
        if was == request.network and not self._carried(request.identifier):
            return
        if was is not None and was != request.network and was in self.networks and self.networks[was].ours:
            # Home asks nobody but the domain where it is, and that is us.
            try:
                if await self.custodians.has(request.identifier, request.mac, was):
                    raise FederationError(f"{request.identifier} is at {was}")
            except NotKnown as error:
                raise NotYet(str(error)) from None
        if (reason := await self._decided(request.identifier, request.mac, request.network)) is not None:
            raise FederationError(f"{request.identifier} at {request.network}: {reason}")

    # ---- what the watcher asks for

    async def _claim(self, identifier: IPv4Address, mac: Mac, network: str) -> str | None:
        try:
            return await self._decided(identifier, mac, network)
        except NotYet as error:
            return str(error)

    async def _decided(self, identifier: IPv4Address, mac: Mac, network: str) -> str | None:
        """Its home's answer to a node that shows up in our network: None, or why not. ``NotYet`` if there is none
        in time."""
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        key = identifier, mac, network
        waiting = self._claims.setdefault(key, [])
        waiting.append(answer)
        self.engine.attach(identifier, mac, network)
        try:
            async with asyncio.timeout(CLAIM_S):
                return await answer
        except TimeoutError:
            why = self.federate.waits_for(identifier, mac) or "its home has not answered"
            self.engine.detached(*key)
            raise NotYet(f"{identifier} at {network}: not accepted within {CLAIM_S:g} s: {why}") from None
        finally:
            if answer in waiting:
                waiting.remove(answer)
            if not waiting and self._claims.get(key) is waiting:
                del self._claims[key]

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
