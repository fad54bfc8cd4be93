"""What the site's tunnel router does for the site's machines: before, at and after a migration, and after a crash.

Between agents, over the authenticated channel (the target does what the source asks, for EIDs that it was told
to expect from that very peer):

    expect {machine, eid, mac, rloc}   the way to the machine's port is laid, and a way back to ``rloc``; the answer
                                       has the target's own RLOC
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
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from followme.agent.hooks import LiveHooks, PaperHooks
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
        self._tasks: set[asyncio.Task[None]] = set()

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
        self.router.claim(eid, spec.mac)
        if self._expected.pop(eid, None) is not None:
            self._background(self.router.disarm(eid))

    def gone(self, spec: MachineSpec) -> None:
        eid = self._eids.get(spec.name)
        if eid is not None and eid in self._expected:
            self._background(self._forget(eid))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            with contextlib.suppress(asyncio.CancelledError):
                if (error := task.exception()) is not None:
                    log.error("the router: %s", error)

        task.add_done_callback(done)


def eid_of(params: Mapping[str, Any]) -> IPv4Address:
    """The EID that a request names; ``MigrationError`` if it is none."""
    eid = _address(params.get("eid"), "eid")
    if not isinstance(eid, IPv4Address):
        raise MigrationError(f"machine's EID {eid}: only IPv4 ones are carried")
    return eid


def _address(value: object, key: str) -> IPAddress:
    try:
        if not isinstance(value, str):
            raise ValueError
        return ip_address(value)
    except ValueError:
        raise MigrationError(f"{key} {value!r:.60} is no address") from None
