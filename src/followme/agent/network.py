"""What the site's tunnel router does for the site's machines: before, at and after a migration, and after a crash.

Between agents, over the authenticated channel (the target does what the source asks, for EIDs that it was told
to expect from that very peer):

    expect {migration, machine, eid, mac, rloc, talks_to}   the way to the machine's port is laid, and a way back to
                                       ``rloc``; mappings of the EIDs that the source sends to are asked for, so
                                       that the machine's first packets need not wait; the answer has the target's
                                       own RLOC
    arrived {migration, machine, eid}  traffic turns: the EID is registered here
    back {migration, eid}              it did not come: what arrives goes to the source again
    unexpect {migration, eid}          nothing is expected any more
    settled {migration, machine, eid, mac}   after a crash of the source, for a migration that is stored here as one
                                       that ended well: if the machine still runs here it is registered; the answer
                                       has the target's own RLOC, and whether it runs here

What is expected is stored before it is acted on, and known again after a restart. A machine that runs here, or is
being carried from here, is never expected: nobody can have its traffic turned away by announcing it.

And from a controller, in the papers' order, once the machine runs at the target:

    register {machine, eid, mac}       to the target       erase {eid}    to the source
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Any

from followme.agent.claims import Claims
from followme.agent.hooks import LiveHooks, PaperHooks
from followme.agent.machines_network import MachinesNetwork
from followme.agent.questions import IPAddress, eid_of, migration_of, prefixes_of, rloc_of
from followme.domain import Migration, MigrationState
from followme.migration.host import MachineSpec, MigrationError
from followme.migration.mover import Hooks
from followme.migration.recovery import Verdict
from followme.remote.client import Client
from followme.remote.server import Caller, Handler
from followme.remote.specs import mac_of, machine_name
from followme.store import Store, StoreError
from followme.xtr.router import RouterError, TunnelRouter

log = logging.getLogger(__name__)

ASK_S = 10.0
CONTROLLER_S = 2.0
"""How long a controller of the papers' order may take to say that a machine that runs here is to be registered."""


@dataclass(slots=True)
class Expected:
    """A machine that a peer carries here, in ``migration`` (an id)."""

    migration: str
    machine: str
    mac: bytes
    peer: str
    rloc: IPAddress
    arrived: bool = False


class SiteNetwork(MachinesNetwork):
    """``remote.network.Network`` on a tunnel router. ``connect`` makes a connection to another site's agent."""

    def __init__(
        self, site: str, router: TunnelRouter, rloc: IPAddress, store: Store,
        connect: Callable[[str], Awaitable[Client]],
    ) -> None:  # fmt: skip
        super().__init__(site, store)
        self.router, self.rloc = router, rloc
        self._connect = connect
        self._expected: dict[IPAddress, Expected] = {}
        self._untold: dict[IPAddress, asyncio.Task[None]] = {}
        self.serving = False
        """Whether all machines that were here at the start are known: those that come now are carried here."""
        self._claims = Claims(router, lambda machine: self.runs(machine))
        self.runs: Callable[[str], MachineSpec | None] = lambda machine: None
        """The machine, if it runs here and is not being carried."""
        self.held = lambda machine: self.runs(machine) is not None

    # ---- asked by peers

    def handlers(self) -> dict[str, Handler]:
        """What other agents may ask."""
        return {"expect": self._expect, "arrived": self._arrived, "back": self._back, "unexpect": self._unexpect,
                "settled": self._came}

    def controller_handlers(self) -> dict[str, Handler]:
        """What a controller may ask, besides carrying machines."""
        return {"register": self._register, "erase": self._erase}

    async def _expect(self, params: Mapping[str, Any], caller: Caller) -> dict[str, str]:
        machine, mac, eid = machine_name(params.get("machine")), mac_of(params.get("mac")), eid_of(params)
        rloc, other = rloc_of(params), self._expected.get(eid)
        if self.held(machine) or self._holder(eid) or (
            # Of our own subnet an EID without a resident counts as local too: it may be on its way home.
            other is None and self.router.local(eid) and self._identifiers.get(machine) != eid
        ):
            raise MigrationError(f"{eid} is at {self.site} already, or {machine} is")
        if other is not None and other.peer != caller.peer:
            raise MigrationError(f"{eid} is expected at {self.site} from {other.peer} already")
        expected = Expected(migration_of(params), machine, mac, caller.peer, rloc)
        if not self.carried(machine, caller.peer, expected.migration):
            raise MigrationError(f"{caller.peer} is not carrying {machine} to {self.site} in that migration")
        known = self._store.migration(expected.migration)
        if known is not None and (other is None or known.id != other.migration):
            raise MigrationError(f"migration {known.id} is known at {self.site} already")
        self._note(eid, expected, MigrationState.PREPARED)
        if other is not None and other.migration != expected.migration:
            self._over(eid, other)
        self._expected[eid] = expected
        try:
            await self.router.expect(eid, mac)
            # Should it come to nothing, what waits here is sent back on this way.
            await self.router.arm(eid, mac, rloc)
            self.know(machine, eid, mac)
        except (RouterError, StoreError) as error:  # what could not be written is refused too
            await self._forget(eid)
            raise MigrationError(f"{self.site} cannot expect {machine}: {error}") from None
        if eid not in self._expected:
            await self.router.disarm(eid)
            raise MigrationError(f"{machine} was given up while {self.site} made ready for it")
        self.router.prefetch(prefixes_of(params.get("talks_to")))
        return {"rloc": str(self.rloc)}

    async def _arrived(self, params: Mapping[str, Any], caller: Caller) -> None:
        if eid_of(params) not in self._expected and self._ended_well(params, caller) is not None:
            return  # sent again: it has come, and may have gone on
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
        if eid not in self._expected:
            return
        self._of(params, caller)
        await self._forget(eid)

    async def _came(self, params: Mapping[str, Any], caller: Caller) -> dict[str, object]:
        machine, mac, eid = machine_name(params.get("machine")), mac_of(params.get("mac")), eid_of(params)
        found = self._ended_well(params, caller)
        if found is None or found.machine != machine:
            raise MigrationError(f"{machine} has not come to {self.site} from {caller.peer} in that migration")
        spec = self.runs(machine)
        if spec is not None:
            known = self._identifiers.get(machine, eid)
            if spec.mac != mac or known != eid or self._holder(eid) not in (None, machine):
                raise MigrationError(f"{machine} has another EID or MAC at {self.site}")
            self.know(machine, eid, mac)
            self._told(eid)
            if not self.router.local(eid):
                self.router.claim(eid, mac)
        return {"rloc": str(self.rloc), "runs": spec is not None}

    def _ended_well(self, params: Mapping[str, Any], caller: Caller) -> Migration | None:
        """The caller's migration to here that the request names, if it is stored and has ended well."""
        found = self._store.migration(migration_of(params))
        if found is None or found.state is not MigrationState.RELEASED:
            return None
        return found if (found.source, found.target) == (caller.peer, self.site) else None

    async def _forget(self, eid: IPAddress) -> None:
        expected = self._expected.pop(eid, None)
        if expected is None:
            return
        if expected.arrived:
            self.router.switch(eid, expected.rloc)
        else:
            await self.router.unexpect(eid)
        await self.router.disarm(eid)
        self._over(eid, expected)

    def _of(self, params: Mapping[str, Any], caller: Caller) -> tuple[IPAddress, Expected]:
        eid = eid_of(params)
        expected = self._expected.get(eid)
        if expected is None or (expected.peer, expected.migration) != (caller.peer, params.get("migration")):
            raise MigrationError(f"{eid} is not expected at {self.site} from {caller.peer} in that migration")
        return eid, expected

    # ---- what is expected, over restarts

    def _note(self, eid: IPAddress, expected: Expected, state: MigrationState) -> None:
        detail = {"eid": str(eid), "mac": expected.mac.hex(":"), "rloc": str(expected.rloc)}
        now = time.time()
        migration = Migration(expected.migration, expected.machine, expected.peer, self.site, "live", state, now,
                              detail)
        self._store.put_migration(migration, now)

    def _over(self, eid: IPAddress, expected: Expected) -> None:
        """It did not come."""
        try:
            found = self._store.migration(expected.migration)
            if found is None or found.state is not MigrationState.RELEASED:
                self._note(eid, expected, MigrationState.FAILED)
        except StoreError as error:  # the next start sees that there is no guest
            log.warning("that %s did not come cannot be stored: %s", expected.machine, error)

    def restore(self) -> None:
        """Before the machines start: expect what an agent before us expected."""
        for migration in self._store.unfinished_migrations():
            if migration.target != self.site:
                continue
            try:
                eid, mac = eid_of(migration.detail), mac_of(migration.detail.get("mac"))
                rloc = rloc_of(migration.detail)
                self.know(migration.machine, eid, mac)
            except MigrationError as error:
                log.error("migration %s from %s: %s", migration.id, migration.source, error)
                continue
            self._expected[eid] = Expected(
                migration.id, migration.machine, mac, migration.source, rloc, self.router.local(eid))  # fmt: skip

    async def started(self, guests: Container[str], expected: Iterable[IPAddress]) -> None:
        """All machines that were here are known, of those on their way the ``guests``; ``expected`` are the EIDs
        for which the router has laid a way. Those without a guest will not come."""
        self.serving = True
        strays = [eid for eid in expected if eid not in self._expected]
        for eid in [eid for eid, one in self._expected.items() if one.machine not in guests]:
            log.warning("%s was expected here, and has no guest: not any more", self._expected[eid].machine)
            await self._forget(eid)
        for eid in strays:
            await self.router.unexpect(eid)
            await self.router.disarm(eid)

    # ---- asked by a controller

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

    # ---- told by the site's machines (``remote.network.Network``)

    def hooks(self, migration: Migration, spec: MachineSpec, client: Client) -> Hooks:
        if migration.mode == "paper":
            return PaperHooks()
        eid = self.identifier(spec.name)
        return LiveHooks(self.router, client, self.rloc, migration.id, spec.name, eid, spec.mac)

    async def settled(self, migration: Migration, spec: MachineSpec, verdict: Verdict) -> None:
        if verdict is Verdict.LOST:
            return  # nobody waits for it
        eid = self.identifier(spec.name)
        client = await self._connect(migration.target)
        try:
            ask = {"migration": migration.id, "machine": spec.name, "eid": str(eid), "mac": spec.mac.hex(":")}
            if verdict is Verdict.FINISH_AT_TARGET:
                answer = await client.call("settled", ask, ASK_S)
                # Where it has gone on from there, the map system knows, and the target's router, if ours does not.
                if answer["runs"] or self.router.local(eid):
                    self.router.switch(eid, ip_address(answer["rloc"]))
                await self.router.release(eid)
                self.router.smr(eid)
            else:
                self.router.claim(eid, spec.mac)
                await client.call("unexpect", ask, ASK_S)
                await self.router.disarm(eid)
        finally:
            await client.close()

    def here(self, spec: MachineSpec) -> None:
        eid = self._identifiers.get(spec.name)
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
        eid = self._identifiers.get(spec.name)
        if eid is None:
            return
        self._told(eid)
        self._claims.forget(spec.name)
        if eid in self._expected:
            self._background(self._forget(eid))

    def departed(self, eid: IPAddress) -> None:
        """The map server has said that an EID of ours is elsewhere. A machine that runs here is claimed again."""
        # Machines of other names may have had the EID before it.
        for machine in [name for name, known in self._identifiers.items() if known == eid]:
            if self.runs(machine) is not None:
                self._background(self._claims.again(machine, eid))
