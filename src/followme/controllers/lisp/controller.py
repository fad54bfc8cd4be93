"""The FMC controller in the LISP domain (paper, figures 2 to 4, 8 and 9).

It hears of a user's move from the map server, by a subscription (RFC 9437), decides with ``placement``, and tells
the agent of the machine's site to carry it. In its own order it has nothing to do with the redirect: the agents
do that between themselves, at the hypervisor's own moments. In the papers' order (``mode: paper``) it asks the map
system which routers serve the two data centres, and tells both once the machine runs at the target.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from followme.config.keys import read_key
from followme.config.lisp import LispConfig
from followme.controllers.deciding import Deciding
from followme.controllers.events import Watchers
from followme.controllers.lisp.places import Places
from followme.controllers.lisp.sites import MakeSocket, Site
from followme.controllers.lisp.world import LispWorld
from followme.controllers.situations import Situations
from followme.domain import Migration, MigrationState, NetworkKind, Node, NodeKind, Service
from followme.lisp import EidPrefix, MappingRecord
from followme.mapsystem.client import MapClient
from followme.mapsystem.subscriber import MapSystemError, Subscriber
from followme.migration.host import MigrationError
from followme.migration.mover import Result
from followme.migration.transfer import TransferProgress
from followme.placement.settings import chooser_of, policy_of
from followme.remote.channel import ChannelError
from followme.remote.keys import load_key

log = logging.getLogger(__name__)

NAME = "ctl"
"""The controller's name among the agents' peers."""
_STATES = {state.value for state in MigrationState}


class LispController:
    """One controller for all sites of ``config``. ``make_socket`` makes TCP sockets in another namespace."""

    def __init__(
        self,
        config: LispConfig,
        *,
        make_socket: MakeSocket | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.clock = clock
        file = config.file
        self.watchers = Watchers(clock)
        self.places = Places(file.networks, config.nodes, file.instance_id)
        self.sites = {
            section.name: Site(section, load_key(section.agent.key_file), NAME, make_socket)
            for section in file.networks
        }
        self.results: dict[str, Result] = {}
        self.mode = file.migration.mode
        self._nodes: dict[str, Node] = {node.name: node for node in config.nodes}
        self._world = LispWorld(config, self.places, self.sites, self.results)
        chooser = chooser_of(config)
        self.deciding = Deciding(
            None if chooser is None else Situations(config.services, chooser, self._world, clock, wall),
            policy_of(config), self.watchers, ready=self._settled, carry=self.carry,
            place=self.places.all.__getitem__,
        )  # fmt: skip
        self._wall = wall
        self._carrying: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._map_system: Subscriber | None = None
        self._known = asyncio.Event()
        """Set when the map server has told where all are: nothing is decided before."""

    # ---- life

    async def start(self, *, sock: socket.socket | None = None) -> None:
        """Subscribe and connect. ``sock`` is a UDP socket bound to the listening address, if it must be another
        namespace's."""
        file = self.config.file
        listen, server = file.listen, file.map_server
        if sock is None:
            family = socket.AF_INET if listen.address.version == 4 else socket.AF_INET6
            sock = socket.socket(family, socket.SOCK_DGRAM)
            try:
                sock.bind((str(listen.address), listen.port))
            except OSError as error:
                sock.close()
                raise RuntimeError(f"listen: {listen.address} port {listen.port}: {error.strerror}") from None
        key = read_key(server.key_file, 8)
        client = MapClient(
            listen.address, sock.getsockname()[1], (str(server.address), server.port), key,
            key_id=server.key_id, algorithm_id=server.algorithm, site_id=server.site_id,
            xtr_id=server.site_id.to_bytes(8) + secrets.token_bytes(8), wall_s=self._wall(),
        )  # fmt: skip
        self._map_system = Subscriber(client, sock, self._changed)
        await self._map_system.__aenter__()
        for site in file.networks:
            self._map_system.subscribe(EidPrefix.of(site.prefix, file.instance_id))
        centres = {
            str(one.rlocs[0]): str(one.prefix) for one in file.networks if one.kind is NetworkKind.DATACENTRE
        }
        self._tasks.append(asyncio.create_task(self._begin(self._map_system)))
        for one in self.sites.values():
            access = one.section.kind is NetworkKind.ACCESS
            watch = centres if access else {}
            self._tasks.append(asyncio.create_task(one.keep(file.probe.interval_s, watch)))

    async def ready(self, timeout: float) -> None:
        """Return when the map server has confirmed all subscriptions and all agents are connected."""
        if self._map_system is not None:
            await self._map_system.confirmed(timeout)
        for site in self.sites.values():
            try:
                async with asyncio.timeout(timeout):
                    await site.up.wait()
            except TimeoutError:
                raise MapSystemError(f"the agent of {site.section.name} does not answer: {site.trouble}") from None

    async def close(self) -> None:
        """Stop. A migration under way goes on: its agents need no controller."""
        await self.deciding.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for site in self.sites.values():
            await site.close()
        map_system, self._map_system = self._map_system, None
        if map_system is not None:
            await map_system.__aexit__()

    # ---- 1: who moved

    def _changed(self, record: MappingRecord) -> None:
        moved = self.places.changed(record)
        if moved is None:
            return
        node = moved.node
        text = f"{node.name} ({node.identifier}) is at {moved.site}, says the map server"
        self.watchers.tell("mobility", text, moved)
        if node.kind is NodeKind.USER:
            if self.deciding.situations is not None:
                self.deciding.situations.residence.seen(node.name, moved.site, self.clock())
            if self._known.is_set():
                self._follow(node.name)

    async def _begin(self, map_system: Subscriber) -> None:
        """Decide once about all who are away from home when we start: they may have moved in the meantime."""
        await map_system.confirmed(None)
        self._known.set()
        for service in self.config.services:
            if any(self.places.all[name] != self._nodes[name].home for name in (service.user, service.machine)):
                self.deciding.follow(service)

    def _follow(self, user: str) -> None:
        for service in self.config.services:
            if service.user == user:
                self.deciding.follow(service)

    async def _settled(self, service: Service, left: str | None) -> None:
        """Return when the service's machine is not being carried."""
        while (event := self._carrying.get(service.machine)) is not None:
            await event.wait()

    # ---- 3: carry it

    async def carry(self, machine: str, target: str, mode: str | None = None) -> Result:
        """Have the machine carried to ``target``; ``MigrationError`` says where it runs if that came to nothing."""
        source = self.places.all[machine]
        if source == target:
            raise MigrationError(f"{machine} is at {target} already")
        if machine in self._carrying:
            raise MigrationError(f"{machine} is being carried already")
        self._carrying[machine] = asyncio.Event()
        self._world.going(machine, target)
        mode = mode or self.mode
        try:
            routers = await self._routers(source, target) if mode == "paper" else (source, target)
            result = await self._order(machine, source, target, mode, routers)
        except (ChannelError, MapSystemError) as error:
            self.watchers.tell("migration", f"{machine} is not carried to {target}: {error}")
            raise MigrationError(f"{machine}: {error}") from None
        finally:
            self._world.going(machine, None)
            self._carrying.pop(machine).set()
        self.results[machine] = result
        self._world.carried(source, target, result)
        carried = f"{result.bytes / 1e6:.1f} MB in {result.total_s:.2f} s, paused for {result.pause_s * 1e3:.1f} ms"
        self.watchers.tell("migration", f"{machine} runs at {target}: {carried}", result)
        return result

    async def _order(self, machine: str, source: str, target: str, mode: str, routers: tuple[str, str]) -> Result:
        self.watchers.tell("migration", f"{machine}: {mode} migration {source} -> {target} is ordered")
        ask = {"machine": machine, "target": target, "mode": mode}
        await self.sites[source].connected()
        async with self.sites[source].stream("carry", ask) as stream:
            async for event in stream:
                self._event(machine, event)
                if mode == "paper" and event.get("event") == "resumed":
                    await self._redirect(machine, *routers)
            numbers = await stream.result()
        return Result(**{field.name: numbers[field.name] for field in fields(Result)})

    async def _routers(self, source: str, target: str) -> tuple[str, str]:
        """Figure 4 of the paper: Map-Requests for both data centres say which routers to tell."""
        found = []
        for name in (source, target):
            prefix = EidPrefix.of(self.sites[name].section.prefix, self.config.file.instance_id)
            if self._map_system is None:
                raise MapSystemError("the controller has not been started")
            site = self.places.site_of(await self._map_system.ask(prefix))
            if site is None:
                raise MapSystemError(f"no router of ours serves {name} ({prefix}), says the map system")
            found.append(site)
        text = f"the map system says: {source} is served by {found[0]}'s router, {target} by {found[1]}'s"
        self.watchers.tell("continuity", text)
        return found[0], found[1]

    async def _redirect(self, machine: str, source: str, target: str) -> None:
        """Figure 3 of the paper: both routers hear of the machine's new place; they tell the others."""
        node = self._nodes[machine]
        what = {"machine": machine, "eid": str(node.identifier), "mac": node.mac.hex(":")}
        _, erased = await asyncio.gather(
            self.sites[target].call("register", what), self.sites[source].call("erase", what)
        )
        told = f"erased at {source}, which has told {erased['told']} correspondents"
        self.watchers.tell("continuity", f"{machine} is registered at {target}, and {told}")

    def _event(self, machine: str, event: Mapping[str, Any]) -> None:
        kind = event.get("event")
        if kind == "progress":
            progress = TransferProgress(**{field.name: event[field.name] for field in fields(TransferProgress)})
            text = f"{machine}: {progress.sent_bytes / 1e6:.0f} MB sent, pass {progress.passes}"
            self.watchers.tell("migration", text, progress)
        elif kind == "flipped":
            self.watchers.tell("continuity", f"{machine}'s packets go to {event['target']} from now on")
        elif kind == "failed":
            self.watchers.tell("migration", f"{machine} stays at {event['source']}: {event.get('reason')}")
        elif kind in _STATES:
            migration = Migration(
                event["id"], machine, event["source"], event["target"], self.mode, MigrationState(kind), event["at"]
            )
            self.watchers.tell("migration", f"{machine}: {kind}", migration)

    # ---- for those who watch

    async def idle(self) -> None:
        """Return when every decision that was due has been taken and carried out."""
        await self.deciding.idle()

    async def wait_for_place(self, node: str, site: str, timeout: float) -> None:
        """Return when the map server has said that the node is at ``site``; ``TimeoutError``."""
        async with asyncio.timeout(timeout):
            while self.places.all[node] != site:
                await asyncio.sleep(0.01)
