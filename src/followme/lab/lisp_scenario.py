"""The LISP lab at work: map server and agents as processes of their own, the real controller in this one.

The daemons are ``followme mapserver`` and ``followme agent`` with files as an operator would write them. Each can
be ended and started again (``restart``), by which the lab shows that the kernel goes on forwarding without them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

from followme.agent.sections import CONTROL_PORT
from followme.config import lisp as config_lisp
from followme.controllers.lisp.controller import LispController
from followme.lab import lisp_document
from followme.lab.document import MACHINE, USER
from followme.lab.guest import GuestImage, build_guest
from followme.lab.lisp_document import Keys, LispScenarioConfig
from followme.lab.lisp_topology import LispLab
from followme.lab.running import RunningLab, guest_ready
from followme.migration.mover import Result
from followme.system import needs
from followme.system.netns import socket_in
from followme.system.process import Child, run

DAEMONS_START_S = 60.0
"""An agent starts its machines before it serves: QEMU's own start is in it."""
STOP_S = 10.0
MOVE_S = 10.0
"""How long the map server may take to say where a user is."""
PEER_HOST_NUMBER = 11
MAP_SERVER = "mapserver"


class LispScenario(RunningLab):
    """``async with LispScenario(...) as scenario``: everything runs, the machine at dc1, the client nowhere yet."""

    plane = "lisp"
    lab: LispLab
    controller: LispController
    settings: LispScenarioConfig

    def __init__(self, settings: LispScenarioConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or LispScenarioConfig()
        self._daemons: dict[str, Child] = {}

    async def _start(self) -> None:
        self.image: GuestImage = await build_guest()
        self.accel = await needs.acceleration(self.image.kernel)
        self.lab = await self._exit.enter_async_context(LispLab(self.settings.lab))
        lab, keys = self.lab, Keys(self.lab.directory / "keys")
        self._files: dict[str, tuple[str, str, Path]] = {
            MAP_SERVER: (
                lab.map_server_namespace, "mapserver",
                self._file(MAP_SERVER, lisp_document.map_server(lab, keys)),
            )
        }
        for site in lab.sites:
            document = lisp_document.agent(lab, site, keys, self.image, self.settings)
            self._files[site.name] = (site.namespace, "agent", self._file(f"agent-{site.name}", document))
        for name in self._files:
            await self.start(name)
        await self._agents_listen()
        document = lisp_document.controller(lab, keys, self.image, self.settings)
        self.config = config_lisp.check(document, "the lab's config")
        self.controller = LispController(self.config, make_socket=self._tcp_socket)
        self.controller.watchers.add(self.happenings.append)
        await self.controller.start(sock=self._udp_socket())
        self._exit.push_async_callback(self.controller.close)
        await self._ready()
        await self._guest_ready()

    def _file(self, name: str, document: dict[str, Any]) -> Path:
        return lisp_document.write(self.lab.directory / f"{name}.yaml", document)

    # ---- daemons

    async def start(self, name: str) -> None:
        """Start a daemon: the map server, or the agent of the site of that name."""
        namespace, command, file = self._files[name]
        child = await Child.start(
            [sys.executable, "-m", "followme.cli", command, "-c", str(file)], name=f"followme {command} ({name})",
            namespace=namespace,
        )  # fmt: skip
        self._daemons[name] = child
        self._exit.push_async_callback(child.stop)

    async def end(self, name: str, *, kill: bool = False) -> None:
        """End a daemon with SIGTERM, or with SIGKILL as a crash would."""
        child = self._daemons.pop(name)
        if kill:
            os.kill(child.pid, signal.SIGKILL)
        await child.stop(STOP_S)

    async def restart(self, name: str, *, kill: bool = False) -> None:
        """End a daemon and start it again."""
        await self.end(name, kill=kill)
        await self.start(name)

    async def _agents_listen(self) -> None:
        """Before the controller starts, which would complain of those that do not yet. Who has ended is left to
        ``_ready``."""
        for site in self.lab.sites:
            deadline = time.monotonic() + DAEMONS_START_S
            while self._daemons[site.name].returncode is None and time.monotonic() < deadline:
                if await run(["ss", "-Hltn", f"sport = :{CONTROL_PORT}"], namespace=site.namespace):
                    break
                await asyncio.sleep(0.05)

    async def _ready(self) -> None:
        ready = asyncio.create_task(self.controller.ready(DAEMONS_START_S))
        ends = [asyncio.create_task(child.wait()) for child in self._daemons.values()]
        try:
            await asyncio.wait([ready, *ends], return_when=asyncio.FIRST_COMPLETED)
            for child in self._daemons.values():
                if child.returncode is not None:
                    raise child.failure()
            await ready
        finally:
            for task in (ready, *ends):
                task.cancel()
            await asyncio.gather(ready, *ends, return_exceptions=True)

    async def _guest_ready(self) -> None:
        serial = self.lab.hosts["dc1"].run_dir / f"{MACHINE}@dc1.serial"
        await guest_ready(MACHINE, serial, f"; its agent: {self._daemons['dc1'].stderr_tail[-1500:]}")

    def _udp_socket(self) -> socket.socket:
        sock = socket_in(self.lab.controller_namespace, socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((str(self.lab.controller_address), 4342))
        return sock

    def _tcp_socket(self) -> socket.socket:
        return socket_in(self.lab.controller_namespace, socket.AF_INET, socket.SOCK_STREAM)

    # ---- what experiments need (``stage.Stage``)

    @property
    def machine_identifier(self) -> IPv4Address:
        return next(node.identifier for node in self.config.nodes if node.name == MACHINE)

    @property
    def machine_network(self) -> str:
        return self.controller.places.all[MACHINE]

    @property
    def result(self) -> Result | None:
        return self.controller.results.get(MACHINE)

    async def move_client(self, network: str) -> None:
        await self.lab.move_client(network)
        try:
            await self.controller.wait_for_place(USER, network, MOVE_S)
        except TimeoutError:
            said = self._daemons[network].stderr_tail[-1000:] if network in self._daemons else "(it does not run)"
            raise RuntimeError(
                f"the map server has not said within {MOVE_S:g} s that {USER} is at {network}; "
                f"the agent there: {said}"
            ) from None

    async def forget_flows(self) -> None:
        """Nothing: the kernel's routes are the map-cache, and they are no flows'."""

    async def count_entries(self) -> dict[str, int]:
        """Routes of the moved machine in the routers' kernels: at home, abroad, at the user's."""
        count = {}
        for role, name in (("home", "dc1"), ("foreign", "dc2"), ("correspondent", "wlan2")):
            routes = await run(["ip", "-n", self.lab.site(name).namespace, "route", "show", "table", "all"])
            mine = [line for line in routes.splitlines() if str(self.machine_identifier) in line.split()]
            count[f"rules_{role}"] = len(mine)
        return count

    async def add_peer(self) -> str:
        home = self.lab.site("wlan1").eid_prefix
        peer = await self.lab.add_host("wlan1", "peer", IPv4Interface(f"{home[PEER_HOST_NUMBER]}/{home.prefixlen}"))
        return peer.namespace

    async def site_status(self, site: str) -> dict[str, Any]:
        """What a site's agent says of itself."""
        found: dict[str, Any] = await self.controller.sites[site].call("site", {})
        return found
