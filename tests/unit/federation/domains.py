"""Four domains in one process: alpha (home), beta, gamma (foreign) and delta (correspondent), real engines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network

from followme.domain import Network, NetworkKind, NodeKind
from followme.federation.bus import Bus
from followme.federation.edge_network import NotKnown
from followme.federation.engine import Engine, LeaseLost
from followme.federation.federate import Federate
from followme.federation.memory import MemoryHub
from followme.federation.messages import Refused
from followme.federation.nouns import Card
from followme.federation.outputs import Effect
from followme.federation.registry import Domain, Registry
from followme.federation.signing import Ed25519Signer, generate_key
from followme.store import Store, StoreError

NAMES = ("alpha", "beta", "gamma", "delta")
KEYS = {name: generate_key() for name in NAMES}
PUBLIC = {name: keys[1] for name, keys in KEYS.items()}


def network(number: int) -> Network:
    prefix = IPv4Network(f"10.{number}.0.0/16")
    return Network(
        f"n{number}", NetworkKind.ACCESS, 0, 1, bytes(6), prefix, prefix, prefix[1],
        IPv4Network(f"10.{number}.128.0/17"),
    )  # fmt: skip


DOMAINS = {name: Domain(name, (network(number),), PUBLIC[name]) for number, name in enumerate(NAMES, 1)}


def card(number: int, kind: NodeKind = NodeKind.USER) -> Card:
    """A node at home in alpha's n1."""
    address = IPv4Network("10.1.0.0/17")[number + 10]
    return Card(f"node{number}", kind, b"\x02\0" + number.to_bytes(4, "big"), address, address, "n1")


class Switches:
    """An ``EdgeNetwork`` that remembers what each node's rules are; ``away`` says why they cannot be written."""

    def __init__(self, own: Collection[str]) -> None:
        self.own = own
        self.engine: Engine | None = None
        self.versions: dict[IPv4Address, int] = {}
        self.effects: list[Effect] = []
        self.away = ""
        self.pause = 0.0
        self.applied = 0
        self.here: dict[IPv4Address, bool | str | None] = {}
        """Who answers in an own network (``None``, or why: it cannot be found out); that takes ``look`` seconds."""
        self.look = 0.0
        self.looked: list[IPv4Address] = []

    async def apply(self, identifiers: Collection[IPv4Address]) -> Mapping[IPv4Address, Refused]:
        self.applied += 1
        if self.away:
            return dict.fromkeys(identifiers, Refused(self.away, again=True))
        assert self.engine is not None
        views = {one: self.engine.federate.view(one) for one in identifiers}
        if self.pause:
            await asyncio.sleep(self.pause)
        for identifier, view in views.items():
            if view is None or view.mapping is None:
                self.versions.pop(identifier, None)
                continue
            self.versions[identifier] = view.mapping.version
            for place in view.mapping.old:
                if place.network in self.own:
                    self.engine.quiet(identifier, place)
        return {}

    async def still_here(self, identifier: IPv4Address) -> bool | None:
        self.looked.append(identifier)
        await asyncio.sleep(self.look)
        here = self.here.get(identifier, False)
        if isinstance(here, str):
            raise NotKnown(here)
        return here

    def effect(self, effect: Effect) -> None:
        self.effects.append(effect)


class OneDomain:
    """One instance. ``stop`` and ``start`` are a crash and a restart with the same store."""

    def __init__(self, bus: Bus, store: Store | None = None) -> None:
        self.bus = bus
        self.store = Store(":memory:") if store is None else store
        self.valid = True
        self.switches = Switches({one.name for one in DOMAINS[bus.domain].networks})

    async def start(self, epoch: int = 1, valid: Callable[[], bool] | None = None) -> OneDomain:
        name = self.bus.domain
        registry = Registry(name, DOMAINS)
        signer = Ed25519Signer(KEYS[name][0], PUBLIC)
        self.switches = Switches({one.name for one in registry.own_networks})
        federate = Federate(registry, signer, self.store.facts(), self.store.fact)
        self.engine = Engine(federate, self.bus, self.store, self.switches, epoch, valid=valid or self._valid)
        self.switches.engine = self.engine
        await self.engine.start()
        return self

    def _valid(self) -> bool:
        return self.valid

    async def stop(self) -> None:
        with suppress(StoreError, LeaseLost):
            await self.engine.close()

    def place(self, identifier: IPv4Address) -> str | None:
        """Where this domain believes the node to be; None if it has no mapping (or it is at home)."""
        view = self.engine.federate.view(identifier)
        return None if view is None or view.mapping is None else view.mapping.here.network


class Four:
    """All domains on one hub; alpha knows ``nodes`` nodes."""

    def __init__(self, nodes: int = 1, kind: NodeKind = NodeKind.USER) -> None:
        self.hub = MemoryHub()
        self.cards = [card(number, kind) for number in range(nodes)]
        self.all = {name: OneDomain(self.hub.bus(name)) for name in NAMES}

    async def __aenter__(self) -> Four:
        for one in self.all.values():
            await one.start()
        for each in self.cards:
            self.alpha.engine.know(each)
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in self.all.values():
            await one.stop()

    @property
    def alpha(self) -> OneDomain:
        return self.all["alpha"]

    @property
    def beta(self) -> OneDomain:
        return self.all["beta"]

    @property
    def gamma(self) -> OneDomain:
        return self.all["gamma"]

    @property
    def delta(self) -> OneDomain:
        return self.all["delta"]

    async def attach(self, where: OneDomain, number: int = 0) -> None:
        each = self.cards[number]
        network_name = DOMAINS[where.bus.domain].networks[0].name
        where.engine.attach(each.identifier, each.mac, network_name)

    async def settled(self, names: Collection[str], place: str, seconds: float = 10.0) -> None:
        """Until these domains' views and switches all have one version of each node, settled in ``place``."""
        async with asyncio.timeout(seconds):
            while not all(self._agree(names, place, each.identifier) for each in self.cards):
                await asyncio.sleep(0.01)

    def _agree(self, names: Collection[str], place: str, identifier: IPv4Address) -> bool:
        found = set()
        for name in names:
            view = self.all[name].engine.federate.view(identifier)
            if view is None or view.mapping is None or view.mapping.here.network != place:
                return False
            mapping = view.mapping
            if mapping.arriving or mapping.leaving or mapping.old:
                return False
            found.add((mapping.version, self.all[name].switches.versions.get(identifier)))
        return len(found) == 1 and all(version == switched for version, switched in found)
