"""What the site's tunnel router does for the site's machines: before, at and after a migration, and after a crash.

Between agents, over the authenticated channel (the target does what the source asks, for EIDs that it was told
to expect from that very peer):

    expect {machine, eid, mac, rloc, talks_to}   the way to the machine's port is laid, and a way back to ``rloc``;
                                       mappings of the EIDs that the source sends to are asked for, so that the
                                       machine's first packets need not wait; the answer has the target's own RLOC
    arrived {eid}                      traffic turns: the EID is registered here
    back {eid}                         it did not come: what arrives goes to the source again
    unexpect {eid}                     nothing is expected any more

and from a controller, in the papers' order, once the machine runs at the target:

    register {machine, eid, mac}       to the target       erase {eid}    to the source
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from followme.agent.hooks import MAX_TALKS_TO, LiveHooks, PaperHooks
from followme.domain import Migration, Node, NodeKind
from followme.migration.host import MachineSpec, MigrationError
from followme.migration.mover import Hooks
from followme.migration.recovery import Verdict
from followme.remote.client import Client
from followme.remote.server import Caller, Handler
from followme.remote.specs import mac_of, machine_name
from followme.store import Store
from followme.xtr.router import TunnelRouter

log = logging.getLogger(__name__)

IPAddress = IPv4Address | IPv6Address
ASK_S = 10.0
CONTROLLER_S = 2.0
"""How long a controller of the papers' order may take to say that a machine that runs here is to be registered."""
CLAIM_AGAIN_S = 0.5
MAX_CLAIMS, CLAIMS_S = 5, 60.0
"""A machine that runs here is claimed so often where another router claims it too; then the map server's rule
counts, as both may be right."""


@dataclass(slots=True)
class Expected:
    """A machine that a peer carries here."""

    machine: str
    mac: bytes
    peer: str
    rloc: IPAddress
    arrived: bool = False


class SiteNetwork:
    """``remote.machines.Network`` on a tunnel router. ``connect`` makes a connection to another site's agent."""

    def __init__(
        self, site: str, router: TunnelRouter, rloc: IPAddress, store: Store,
        connect: Callable[[str], Awaitable[Client]],
    ) -> None:  # fmt: skip
        self.site, self.router, self.rloc = site, router, rloc
        self._store = store
        self._connect = connect
        self._eids: dict[str, IPv4Address] = {node.name: node.identifier for node in store.nodes()}
        self._expected: dict[IPAddress, Expected] = {}
        self._untold: dict[IPAddress, asyncio.Task[None]] = {}
        self.serving = False
        """Whether all machines that were here at the start are known: those that come now are carried here."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._claims: deque[float] = deque(maxlen=MAX_CLAIMS)
        self.runs: Callable[[str], MachineSpec | None] = lambda machine: None
        """The machine, if it runs here and is not being carried."""

    def know(self, machine: str, eid: IPv4Address, mac: bytes) -> None:
        """A machine's EID; kept in the store, for a machine from elsewhere is in no file of ours."""
        node = Node(machine, NodeKind.MACHINE, mac, eid, eid, self.site)
        if node not in self._store.nodes():
            self._store.put_node(node)
        self._eids[machine] = eid

    def eid(self, machine: str) -> IPv4Address:
        """``MigrationError`` if nobody told."""
        try:
            return self._eids[machine]
        except KeyError:
            raise MigrationError(f"{self.site} does not know the EID of {machine}") from None

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- asked by peers

    def handlers(self) -> dict[str, Handler]:
        """What other agents may ask."""
        return {"expect": self._expect, "arrived": self._arrived, "back": self._back, "unexpect": self._unexpect}

    def controller_handlers(self) -> dict[str, Handler]:
        """What a controller may ask, besides carrying machines."""
        return {"register": self._register, "erase": self._erase}

    async def _expect(self, params: Mapping[str, Any], caller: Caller) -> dict[str, str]:
        machine, mac, eid = machine_name(params.get("machine")), mac_of(params.get("mac")), eid_of(params)
        rloc = _address(params.get("rloc"), "rloc")
        other = self._expected.get(eid)
        if other is None and self.router.local(eid):
            if self._eids.get(machine) != eid:
                raise MigrationError(f"{eid} is at {self.site} already, and not as {machine}'s")
            # It has arrived before a crash: its source settles now.
            self._expected[eid] = Expected(machine, mac, caller.peer, rloc, arrived=True)
            return {"rloc": str(self.rloc)}
        if other is not None and other.peer != caller.peer:
            raise MigrationError(f"{eid} is expected at {self.site} from {other.peer} already")
        self.know(machine, eid, mac)
        self._expected[eid] = Expected(machine, mac, caller.peer, rloc)
        await self.router.expect(eid, mac)
        # Should it come to nothing, what waits here is sent back on this way.
        await self.router.arm(eid, mac, rloc)
        self.router.prefetch(_prefixes(params.get("talks_to")))
        return {"rloc": str(self.rloc)}

    async def _arrived(self, params: Mapping[str, Any], caller: Caller) -> None:
        eid, expected = self._of(params, caller)
        if not expected.arrived:
            self.router.claim(eid, expected.mac)
            expected.arrived = True

    async def _back(self, params: Mapping[str, Any], caller: Caller) -> None:
        eid, expected = self._of(params, caller)
        if expected.arrived:
            self.router.switch(eid, expected.rloc)
            expected.arrived = False
        else:
            await self.router.unexpect(eid)

    async def _unexpect(self, params: Mapping[str, Any], caller: Caller) -> None:
        eid = eid_of(params)
        expected = self._expected.get(eid)
        if expected is None:
            return
        self._of(params, caller)
        await self._forget(eid)

    async def _forget(self, eid: IPAddress) -> None:
        expected = self._expected.pop(eid, None)
        if expected is None:
            return
        if expected.arrived:
            self.router.switch(eid, expected.rloc)
        else:
            await self.router.unexpect(eid)
        await self.router.disarm(eid)

    def _of(self, params: Mapping[str, Any], caller: Caller) -> tuple[IPAddress, Expected]:
        eid = eid_of(params)
        expected = self._expected.get(eid)
        if expected is None or expected.peer != caller.peer:
            raise MigrationError(f"{eid} is not expected at {self.site} from {caller.peer}")
        return eid, expected

    async def _register(self, params: Mapping[str, Any], caller: Caller) -> None:
        machine, mac, eid = machine_name(params.get("machine")), mac_of(params.get("mac")), eid_of(params)
        self.know(machine, eid, mac)
        self._told(eid)
        self.router.claim(eid, mac)

    async def _erase(self, params: Mapping[str, Any], caller: Caller) -> dict[str, int]:
        eid = eid_of(params)
        told = self.router.smr(eid)
        await self.router.erase(eid)
        return {"told": told}

    # ---- told by the site's machines (``remote.machines.Network``)

    def hooks(self, migration: Migration, spec: MachineSpec, client: Client) -> Hooks:
        if migration.mode == "paper":
            return PaperHooks()
        return LiveHooks(self.router, client, self.rloc, spec.name, self.eid(spec.name), spec.mac)

    async def settled(self, migration: Migration, spec: MachineSpec, verdict: Verdict) -> None:
        eid = self.eid(spec.name)
        client = await self._connect(migration.target)
        try:
            ask = {"machine": spec.name, "eid": str(eid), "mac": spec.mac.hex(":"), "rloc": str(self.rloc)}
            if verdict is Verdict.FINISH_AT_TARGET:
                rloc = ip_address((await client.call("expect", ask, ASK_S))["rloc"])
                await client.call("arrived", ask, ASK_S)
                self.router.switch(eid, rloc)
                await self.router.release(eid)
                self.router.smr(eid)
            else:
                self.router.claim(eid, spec.mac)
                await client.call("unexpect", ask, ASK_S)
                await self.router.disarm(eid)
        finally:
            await client.close()

    def here(self, spec: MachineSpec) -> None:
        eid = self._eids.get(spec.name)
        if eid is None:  # the papers' order: the controller will say what is to be registered
            log.info("%s runs here; its EID is not known yet", spec.name)
            return
        expected = self._expected.pop(eid, None)
        if self.serving and expected is None and not self.router.local(eid):
            # The papers' order again: that we know the EID from earlier must not make it faster than it is.
            self._untold[eid] = self._background(self._unless_told(spec, eid))
            return
        self.router.claim(eid, spec.mac)
        if expected is not None:
            self._background(self.router.disarm(eid))

    async def _unless_told(self, spec: MachineSpec, eid: IPv4Address) -> None:
        await asyncio.sleep(CONTROLLER_S)
        self._untold.pop(eid, None)
        log.warning("%s runs here, and no controller has said so for %g s: registered", spec.name, CONTROLLER_S)
        self.router.claim(eid, spec.mac)

    def _told(self, eid: IPAddress) -> None:
        if (waiting := self._untold.pop(eid, None)) is not None:
            waiting.cancel()

    def gone(self, spec: MachineSpec) -> None:
        eid = self._eids.get(spec.name)
        if eid is None:
            return
        self._told(eid)
        if eid in self._expected:
            self._background(self._forget(eid))

    def departed(self, eid: IPAddress) -> None:
        """The map server has said that an EID of ours is elsewhere. A machine that runs here is claimed again."""
        machine = next((name for name, known in self._eids.items() if known == eid), None)
        if machine is not None and self.runs(machine) is not None:
            self._background(self._claim_again(machine, eid))

    async def _claim_again(self, machine: str, eid: IPAddress) -> None:
        await asyncio.sleep(CLAIM_AGAIN_S)
        spec, now = self.runs(machine), asyncio.get_running_loop().time()
        if spec is None or self.router.local(eid):
            return
        if len(self._claims) == MAX_CLAIMS and now - self._claims[0] < CLAIMS_S:
            log.error("%s (%s) runs here, but another router claims it again and again", machine, eid)
            return
        self._claims.append(now)
        log.warning("%s (%s) runs here, whatever another router claims: registered again", machine, eid)
        self.router.claim(eid, spec.mac)

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            with contextlib.suppress(asyncio.CancelledError):
                if (error := task.exception()) is not None:
                    log.error("the router: %s", error)

        task.add_done_callback(done)
        return task


def eid_of(params: Mapping[str, Any]) -> IPv4Address:
    """The EID that a request names; ``MigrationError`` if it is none."""
    eid = _address(params.get("eid"), "eid")
    if not isinstance(eid, IPv4Address):
        raise MigrationError(f"machine's EID {eid}: only IPv4 ones are carried")
    return eid


def _prefixes(value: object) -> list[IPv4Network | IPv6Network]:
    """A peer's list of EID-prefixes; what is none, and what is too much, is left out."""
    found = []
    for text in value[:MAX_TALKS_TO] if isinstance(value, list) else ():
        with contextlib.suppress(ValueError):
            found.append(ip_network(str(text)[:64]))
    return found


def _address(value: object, key: str) -> IPAddress:
    try:
        if not isinstance(value, str):
            raise ValueError
        return ip_address(value)
    except ValueError:
        raise MigrationError(f"{key} {value!r:.60} is no address") from None
