"""Sockets, clock and kernel around the control plane."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from ipaddress import IPv4Address

from followme.lisp import EidPrefix
from followme.packets.arp import arp_request_frame
from followme.system.process import ProcessError
from followme.xtr.errors import DataPlaneError

from .admission import Admission
from .config import RouterConfig
from .control import Control
from .keeper import StateKeeper
from .kernel import DataPlane, KernelPlane
from .lan import LanSensor, Seen
from .lanfilter import Interest
from .mender import Mender
from .outputs import (
    Appeared,
    CheckNode,
    Datagram,
    Departed,
    Encap,
    Event,
    IPAddress,
    Output,
    Release,
    RemoveRoute,
    SetRoute,
    ToLan,
)
from .punt import Punt
from .residents import Policy
from .site import host
from .sockets import ControlSockets
from .state import NONCE_BLOCK, REQUEST_BLOCK, Arm, State, StateFile

log = logging.getLogger(__name__)

_NONCES_PER_SECOND = 1 << 20
_SET_AGAIN = 64
"""Routes that are set again in one turn of the event loop."""


class Shell:
    """A tunnel router that runs. ``on_event`` is called with the events of ``outputs``; ``plane`` replaces the
    kernel's data plane. All methods raise ``DataPlaneError``."""

    def __init__(
        self, config: RouterConfig, on_event: Callable[[Event], None] | None = None, plane: DataPlane | None = None
    ) -> None:
        self.config = config
        self._site = config.lisp_site()
        self._on_event = on_event
        self._plane = plane
        self._file = StateFile(config.state_dir, config.site)
        self._keeper = StateKeeper(self._file, self._state)
        self._admission = Admission(lambda: self._data_plane, self._perform, self._mapping)
        self._arms: dict[EidPrefix, Arm] = {}
        self._refilter_due = False
        self._nonce = self._nonce_bound = self._request_bound = 0
        self._timer: asyncio.TimerHandle | None = None
        self._mender = Mender(self._repair)
        self._arms_mender = Mender(self._rearm)
        self._stack = contextlib.ExitStack()
        self._running = False

    async def start(self) -> None:
        """Make devices and rules or adopt them, take up what an earlier run knew, register, listen."""
        config, iid = self.config, self.config.instance_id
        try:
            # What another router may have comes first: in vain, it leaves that one's kernel as it is.
            self._file.lock()
            self._stack.callback(self._file.unlock)
            state = self._file.load(iid)
            self._nonce = max(state.nonce, int(time.time() * _NONCES_PER_SECOND))
            self._nonce_bound = self._nonce + NONCE_BLOCK
            self._sockets = ControlSockets(config.namespace, self._site.rlocs, self._received, self._apply)
            self._stack.callback(self._sockets.close)
            self._sensor = LanSensor(config.namespace, config.lan, iid)
            self._stack.callback(self._sensor.close)
            plane = self._plane = self._plane or KernelPlane(config)
            self._punt = Punt(config.namespace, config.punt)
            self._stack.callback(self._punt.close)
            found = await plane.start(config.punt)
            now = time.monotonic()
            self.control = Control(
                self._site, self._policy(plane), time.time(), now, self._register_nonce, state.request_nonce
            )
            self.control.etr.recall(state.departed)
            # A switch is not written before it is made: the route of a machine on its way says whether it was.
            switched = {arm.eid for arm in state.arms if isinstance(found.get(arm.eid), Encap)}
            residents = [one for one in state.residents if one.expected or one.eid not in switched]
            here = {resident.eid for resident in residents if not resident.expected}
            for resident in residents:
                self.control.settle(resident, now)
                if resident.expected:
                    plane.expect(resident.eid)
            for eid, way in found.items():
                if isinstance(way, Encap) and eid not in here:
                    self.control.adopt(eid, way, now)
                elif isinstance(way, ToLan) and eid not in here:
                    plane.remove_route(eid)
            for arm in state.arms:
                self._arms[arm.eid] = arm
                await plane.arm(arm.eid, arm.mac, arm.rloc)
            await plane.forget_arms({arm.eid: arm.mac for arm in state.arms})
            for eid in (*state.guarded, *switched):
                self.control.residents.guard(eid)
            self._reserve()
            with contextlib.suppress(DataPlaneError):  # it is logged; what was written is still there
                await self._keeper.now()
        except BaseException:
            self._stack.close()
            raise
        self._running = True
        loop = asyncio.get_running_loop()
        loop.add_reader(self._sensor.socket.fileno(), self._lan_frames)
        loop.add_reader(self._punt.handle, self._misses)
        plane.watch(self._mender.lost, self._addressed)
        self._sockets.watch()
        self._tick()

    async def close(self, leave: bool = True) -> None:
        """Stop. With ``leave`` the kernel goes on as it is and the next start adopts it; without, dynamic EIDs
        and prefixes are withdrawn and all that is ours is removed from the kernel."""
        if not self._running:
            return
        if not leave:
            for eid in list(self.control.etr.registrar.eids):
                self.control.etr.registrar.drop(eid, time.monotonic(), withdraw=True)
            for eid in list(self.control.residents.here):
                self.control.residents.drop(eid)
            self._arms.clear()
            self._apply()
        self._running = False
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sensor.socket.fileno())
        if self._timer is not None:
            self._timer.cancel()
        await self._admission.close()
        await self._mender.close()
        await self._arms_mender.close()
        if self._punt.handle >= 0:
            loop.remove_reader(self._punt.handle)
        self._request_bound = self.control.nonces.last
        await self._keeper.close()
        plane = self._data_plane
        try:
            await plane.close(leave=leave)
        finally:
            if not leave:
                self._punt.unmake()
            self._stack.close()

    # -- in --------------------------------------------------------------------------------------------

    def _received(self, data: bytes, source: IPAddress, port: int) -> None:
        self.control.receive(data, source, port, time.monotonic())

    def _lan_frames(self) -> None:
        now = time.monotonic()

        def tell(seen: Seen) -> None:
            if seen.source is not None:
                self.control.appeared(seen.source, seen.mac, now)
            if seen.target is not None:
                self.control.saw(seen.target, now)

        self._sensor.read(tell)
        self._apply()

    def _misses(self) -> None:
        now = time.monotonic()
        try:
            self._punt.read(lambda packet: self.control.miss(packet, now))
        except DataPlaneError as error:
            asyncio.get_running_loop().remove_reader(self._punt.handle)
            self._punt.close()
            log.debug("%s", error)
            self._mender.lost(self.config.punt, "is gone")
        self._apply()

    async def _repair(self) -> int:
        """Make again what the kernel has lost; how many routes were set. A switch or a claim meanwhile counts. What
        the kernel refuses is logged once; a packet that misses it sets it again."""
        plane = self._data_plane
        if self._punt.handle < 0:
            self._punt.open()
        await plane.mend(self.config.punt)
        if self._punt.handle < 0:
            raise DataPlaneError(f"{self.config.punt} is gone again")
        asyncio.get_running_loop().add_reader(self._punt.handle, self._misses)
        self._sensor.bind()
        self._addressed()
        here, table = self.control.residents.here, self.control.itr.cache.table
        # Exceptions before what covers them, which would catch their packets in the fast path.
        eids = [*here, *sorted(table, key=lambda eid: -eid.length)]
        refused: list[str] = []
        for number, eid in enumerate(eids, 1):
            try:
                self._set_again(eid)
            except DataPlaneError as error:
                refused.append(str(error))
            if number % _SET_AGAIN == 0:
                await asyncio.sleep(0)
        if refused:
            log.error("%d routes were refused, the first: %s", len(refused), refused[0])
        try:
            await self._rearm()
        except (DataPlaneError, ProcessError, OSError) as error:
            self._arms_mender.lost("what machines on their way need", f"is not there yet: {error}")
        return len(eids) - len(refused)

    def _set_again(self, eid: EidPrefix) -> None:
        """The route of a resident, or of the map-cache's entry."""
        resident = self.control.residents.here.get(eid)
        entry = self.control.itr.cache.table.get(eid)
        if resident is not None and resident.pinned:
            self._data_plane.set_neighbour(eid.network.network_address, resident.mac, permanent=True)
        if resident is not None and resident.expected:
            self._data_plane.expect(eid)
        way = None if entry is None else entry.way
        if resident is not None and not resident.expected:
            way = ToLan()
        if way is not None:
            for output in self._admission.pass_(SetRoute(eid, way)):
                self._do(output)

    async def _rearm(self) -> int:
        """Arm again all that are armed, as many as can be; how many. Raises the first problem of the others."""
        problem: Exception | None = None
        for eid in tuple(self._arms):
            done: Arm | None = None
            while (arm := self._arms.get(eid)) != done:  # it may be disarmed, or armed anew, meanwhile
                before, done = done, arm
                try:
                    if before is not None:
                        await self._data_plane.disarm(eid, before.mac)
                    if arm is not None:
                        await self._data_plane.arm(eid, arm.mac, arm.rloc)
                except (DataPlaneError, ProcessError, OSError) as error:
                    problem = problem or error
        if problem is not None:
            raise problem
        return len(self._arms)

    def _addressed(self) -> None:
        self.control.residents.policy = self._policy(self._data_plane)

    def _mapping(self, eid: EidPrefix) -> EidPrefix | None:
        found = self.control.itr.cache.find(eid)
        return None if found is None else found[0]

    def _tick(self) -> None:
        self._timer = None
        self.control.timer(time.monotonic())
        self._apply()

    # -- out -------------------------------------------------------------------------------------------

    def _apply(self) -> None:
        """Do what the control plane wants done, in its order. What must survive is written meanwhile: who is here
        shows up again, and ``expect`` and ``arm`` wait for the disk themselves."""
        for wanted in self.control.take():
            self._want(wanted)
        if not self._refilter_due:
            # Not now: a switch must not wait for it.
            self._refilter_due = True
            asyncio.get_running_loop().call_soon(self._refilter)
        self._reserve()
        self._keeper.later()
        self._schedule()

    def _want(self, wanted: Output) -> None:
        for output in self._admission.pass_(wanted):
            self._perform(output)

    def _perform(self, output: Output) -> None:
        try:
            self._do(output)
        except DataPlaneError as error:
            log.error("%s", error)

    def _do(self, output: Output) -> None:
        plane = self._data_plane
        if isinstance(output, Datagram):
            self._sockets.send(output)
        elif isinstance(output, SetRoute):
            plane.set_route(output.eid, output.way)
        elif isinstance(output, RemoveRoute):
            plane.remove_route(output.eid)
        elif isinstance(output, Release):
            for packet in output.packets:
                self._punt.write(packet)
        elif isinstance(output, CheckNode):
            self._arp(IPv4Address(0), output.eid)  # a probe (RFC 5227): it is answered, and claims nothing
        else:
            self._happened(output)

    def _happened(self, event: Event) -> None:
        if isinstance(event, Appeared):
            pinned = self.control.residents.here.get(event.eid)
            if pinned is None or not pinned.pinned:
                self._data_plane.set_neighbour(event.eid.network.network_address, event.mac, permanent=False)
        elif isinstance(event, Departed):
            self._announce(event.eid)
        if self._on_event is not None:
            self._on_event(event)

    def _announce(self, eid: EidPrefix) -> None:
        """Tell the LAN that an EID which has left is reached by us: who knew its MAC would call it in vain."""
        if len(eid.address) == 4:
            self._arp(IPv4Address(eid.address), eid)

    def _arp(self, sender: IPv4Address, target: EidPrefix) -> None:
        frame = arp_request_frame(self._data_plane.lan_mac, sender, IPv4Address(target.address))
        with contextlib.suppress(OSError):
            self._sensor.socket.send(frame)

    def _refilter(self) -> None:
        """Make the LAN's filter anew if what it depends on has changed."""
        self._refilter_due = False
        if not self._running:
            return
        residents, cache = self.control.residents, self.control.itr.cache
        self._sensor.filter(Interest(
            self._data_plane.lan_mac, residents.policy.ranges, self._site.prefixes, frozenset(cache.away),
            frozenset(residents.here) | frozenset(residents.guarded), cache.watched.shown(),
        ), time.monotonic())  # fmt: skip

    def _schedule(self) -> None:
        due = self.control.next_timer()
        if due is None or not self._running:
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + max(due - time.monotonic(), 0.001)
        if self._timer is not None:
            if self._timer.when() <= when + 0.001:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._tick)

    def _state(self) -> State:
        return State(
            self._nonce_bound,
            tuple(self.control.residents.here.values()),
            tuple(self._arms.values()),
            tuple(self.control.residents.guarded),
            self._request_bound,
            self.control.etr.departed,
        )

    def _reserve(self) -> None:
        """Raise the bounds of the nonces long before they are reached, so that none is sent that is not below
        what is written."""
        if self._nonce > self._nonce_bound - NONCE_BLOCK // 2:
            self._nonce_bound = self._nonce + NONCE_BLOCK
        if self.control.nonces.last > self._request_bound - REQUEST_BLOCK // 2:
            self._request_bound = self.control.nonces.last + REQUEST_BLOCK

    # -- the rest --------------------------------------------------------------------------------------

    @property
    def _data_plane(self) -> DataPlane:
        if self._plane is None:
            raise DataPlaneError(f"the tunnel router of {self.config.site} has not been started")
        return self._plane

    def _register_nonce(self) -> int:
        self._nonce += 1
        return self._nonce

    def _key(self, eid: IPAddress) -> EidPrefix:
        return host(self.config.instance_id, eid.packed)

    def _policy(self, plane: DataPlane) -> Policy:
        config, iid = self.config, self.config.instance_id
        return Policy(
            ranges=tuple(EidPrefix.of(prefix, iid) for prefix in config.dynamic.prefixes),
            macs={host(iid, eid.packed): mac for eid, mac in config.dynamic.macs.items()},
            own_addresses=frozenset(host(iid, one.packed) for one in plane.lan_addresses),
            own_macs=frozenset({plane.lan_mac}),
            max_eids=config.dynamic.max_eids,
            max_per_mac=config.dynamic.max_per_mac,
        )
