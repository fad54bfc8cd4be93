"""The tunnel router as the agent uses it: EIDs come, are carried away, are asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from followme.lisp import EidPrefix
from followme.xtr.errors import DataPlaneError

from . import status
from .outputs import Encap, IPAddress
from .residents import Resident
from .shell import Shell
from .state import Arm

RouterError = DataPlaneError
IPNetwork = IPv4Network | IPv6Network
_MAX_LOOKUPS = 256


class TunnelRouter(Shell):
    """One site's xTR. EIDs and RLOCs are IP addresses, MACs 6 bytes; all methods raise ``RouterError``.

    ``start`` first, ``close`` at the end. A machine is carried by ``expect`` at its target and ``arm`` at its
    source, ``switch`` at the source at the moment of the flip, ``claim`` at the target, ``release`` at the
    source; or it stays, by ``disarm`` (and ``claim`` after a ``switch``) and ``unexpect``.
    """

    async def expect(self, eid: IPAddress, mac: bytes) -> None:
        """A machine will be carried here. What comes out of the tunnel for it goes to the LAN from now on;
        our own LAN's packets go where it still is. Nothing is registered."""
        key = self._key(eid)
        self.control.residents.put(Resident(key, mac, pinned=True, expected=True))
        self._save()
        self._data_plane.set_neighbour(eid, mac, permanent=True)
        self._data_plane.expect(key)
        self._apply()

    async def unexpect(self, eid: IPAddress) -> None:
        """It does not come after all."""
        key = self._key(eid)
        resident = self.control.residents.here.get(key)
        if resident is not None and resident.expected:
            self.control.residents.drop(key)
            self._data_plane.unexpect(key)
            self._data_plane.forget_neighbour(eid)
            self._apply()

    def claim(self, eid: IPAddress, mac: bytes | None = None) -> None:
        """A machine is here: routed to the LAN for all, registered at once, pinned."""
        key = self._key(eid)
        resident = self.control.residents.here.get(key)
        mac = mac or (resident.mac if resident else None)
        if mac is None:
            raise RouterError(f"{eid} was not expected here: its MAC is needed")
        self._data_plane.set_neighbour(eid, mac, permanent=True)
        self.control.claim(key, mac, time.monotonic(), pinned=True)
        self._apply()
        self._data_plane.unexpect(key)

    async def arm(self, eid: IPAddress, mac: bytes, rloc: IPAddress) -> None:
        """Be ready to carry a machine away: its frames that the hypervisor's bridge bounces go to ``rloc``."""
        key = self._key(eid)
        self._arms[key] = Arm(key, mac, rloc)
        self._save()
        await self._data_plane.arm(key, mac, rloc)

    def switch(self, eid: IPAddress, rloc: IPAddress) -> None:
        """From now on the machine is behind ``rloc``: one netlink request, no disk, nothing to wait for."""
        self.control.switch(self._key(eid), rloc, time.monotonic())
        self._apply(save=False)
        asyncio.get_running_loop().call_soon(self._save)

    async def disarm(self, eid: IPAddress) -> None:
        """The machine stays: forget the arm. After ``switch`` also ``claim`` it back."""
        key = self._key(eid)
        arm = self._arms.pop(key, None)
        if arm is not None:
            await self._data_plane.disarm(key, arm.mac)
        self._apply()

    async def release(self, eid: IPAddress) -> None:
        """The machine is gone for good: forget the arm; its route stays, as an entry of the map-cache."""
        await self.disarm(eid)
        self._data_plane.forget_neighbour(eid)
        self._announce(self._key(eid))

    async def erase(self, eid: IPAddress) -> None:
        """Forget a dynamic EID as if it had never been here; nothing is told to the map system."""
        await self._forget(eid, withdraw=False)

    async def withdraw(self, eid: IPAddress) -> None:
        """As ``erase``, and its registration is withdrawn."""
        await self._forget(eid, withdraw=True)

    def smr(self, eid: IPAddress) -> int:
        """Solicit the correspondents of an EID to ask again; how many."""
        sent = self.control.etr.solicit(self._key(eid), time.monotonic())
        self._apply()
        return sent

    def correspondents(self, eid: IPAddress) -> tuple[IPAddress, ...]:
        """RLOCs that asked for the EID, the latest first, then those that our site sends to."""
        return self.control.etr.targets(self._key(eid), time.monotonic())

    async def lookup(self, eid: IPAddress) -> tuple[IPAddress, ...]:
        """Where the map system says that an EID is: its RLOCs, none if it is nowhere."""
        key = self._key(eid)
        if self.control.local(key):
            return self._site.rlocs
        future = self._lookups.get(key)
        if future is None:
            if len(self._lookups) >= _MAX_LOOKUPS:
                raise RouterError(f"{eid}: {_MAX_LOOKUPS} look-ups are under way")
            future = self._lookups[key] = asyncio.get_running_loop().create_future()
            self.control.itr.ask(key, time.monotonic(), subscribe=False)
            self._apply()
        record = await asyncio.shield(future)
        if record is None:
            raise RouterError(f"{eid}: the map system did not answer")
        return tuple(loc.address for loc in record.locators if isinstance(loc.address, IPAddress))

    def talks_to(self) -> tuple[IPNetwork, ...]:
        """The EID-prefixes that this site sends to, the longest first."""
        found = [eid for eid, entry in self.control.itr.cache.table.items() if isinstance(entry.way, Encap)]
        return tuple(eid.network for eid in sorted(found, key=lambda eid: -eid.length))

    def prefetch(self, prefixes: Iterable[IPNetwork]) -> None:
        """Ask for mappings that will be needed, where there are none yet: packets to them need not wait then."""
        itr, now = self.control.itr, time.monotonic()
        for prefix in prefixes:
            eid = EidPrefix.of(prefix, self.config.instance_id)
            ours = any(own.covers(eid) for own in self._site.prefixes) or self.control.local(eid)
            if self._site.in_space(eid) and not ours and itr.cache.find(eid) is None:
                itr.ask(eid, now)
        self._apply()

    def local(self, eid: IPAddress) -> bool:
        """Whether the EID is behind this router."""
        return self.control.local(self._key(eid))

    def watch(self, rlocs: Mapping[IPAddress, EidPrefix]) -> None:
        """Probe these RLOCs from now on, whether packets go there or not; each with an EID prefix behind it."""
        self.control.itr.watched = dict(rlocs)
        self._apply()

    def round_trips(self) -> dict[IPAddress, float]:
        """Seconds to each RLOC that answers probes."""
        probed = self.control.itr.prober.rlocs.items()
        return {rloc: one.rtt_s for rloc, one in probed if one.up and one.rtt_s is not None}

    def status(self) -> dict[str, Any]:
        """For operators; JSON types only."""
        return status.describe(self.config, self.control, self._sockets.unsent, time.monotonic())

    async def _forget(self, eid: IPAddress, *, withdraw: bool) -> None:
        key = self._key(eid)
        self.control.erase(key, time.monotonic(), withdraw=withdraw)
        self._apply()
        self._data_plane.unexpect(key)
        self._data_plane.forget_neighbour(eid)
