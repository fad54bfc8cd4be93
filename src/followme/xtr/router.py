"""The tunnel router as the agent uses it: EIDs come, are carried away, are asked for."""

from __future__ import annotations

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


class TunnelRouter(Shell):
    """One site's xTR. EIDs and RLOCs are IP addresses, MACs 6 bytes; all methods raise ``RouterError``.

    ``start`` first, ``close`` at the end. A machine is carried by ``expect`` at its target and ``arm`` at its
    source, ``switch`` at the source at the moment of the flip, ``claim`` at the target, ``release`` at the
    source; or it stays, by ``disarm`` (and ``claim`` after a ``switch``) and ``unexpect``.
    """

    async def expect(self, eid: IPAddress, mac: bytes) -> None:
        """A machine will be carried here. What comes out of the tunnel for it goes to the LAN from now on;
        our own LAN's packets go where it still is. Nothing is registered. Refused if it cannot be written down."""
        key, residents = self._key(eid), self.control.residents
        before, resident = residents.here.get(key), Resident(self._key(eid), mac, pinned=True, expected=True)
        residents.put(resident)
        try:
            await self._keeper.now()
        except RouterError as error:
            if residents.here.get(key) == resident:
                residents.drop(key)
                if before is not None:
                    residents.put(before)
            raise RouterError(f"{eid} cannot be expected here: {error}") from None
        if residents.here.get(key) != resident:
            raise RouterError(f"{eid} was claimed here or given up while it was to be expected")
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
        """Be ready to carry a machine away: its frames that the hypervisor's bridge bounces go to ``rloc``.
        Refused if it cannot be written down, as after a crash nobody would take the filters away."""
        key = self._key(eid)
        before, arm = self._arms.get(key), Arm(key, mac, rloc)
        self._arms[key] = arm
        try:
            await self._keeper.now()
        except RouterError as error:
            if self._arms.get(key) == arm:
                del self._arms[key]
                if before is not None:
                    self._arms[key] = before
            raise RouterError(f"{eid} cannot be carried: {error}") from None
        await self._data_plane.arm(key, mac, rloc)

    def switch(self, eid: IPAddress, rloc: IPAddress) -> None:
        """From now on the machine is behind ``rloc``: one netlink request, no disk, nothing to wait for."""
        self.control.switch(self._key(eid), rloc, time.monotonic())
        self._apply()

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
        key = self._key(eid)
        self.control.erase(key, time.monotonic(), withdraw=False)
        self._apply()
        self._data_plane.unexpect(key)
        self._data_plane.forget_neighbour(eid)

    def smr(self, eid: IPAddress) -> int:
        """Solicit the correspondents of an EID to ask again; how many."""
        sent = self.control.etr.solicit(self._key(eid), time.monotonic())
        self._apply()
        return sent

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
        shown = status.describe(self.config, self.control, self._sockets.unsent, time.monotonic())
        return {**shown, "packets_without_route": self._admission.dropped}
