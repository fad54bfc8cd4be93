"""The lab at work: the papers' set-up with the real controller on it, one user and one machine.

The controller is the one of ``followme controller``, from a config as a file would hold it; only its
listening socket is in the switches' namespace.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

from followme.config import openflow as config
from followme.controllers.openflow.controller import Controller
from followme.controllers.serve import hosts_of
from followme.domain import Network
from followme.lab.client import dhcp
from followme.lab.document import MACHINE, SERVICE, USER, ScenarioConfig, document
from followme.lab.guest import GuestImage, build_guest
from followme.lab.plan import FIRST_HOST_PORT
from followme.lab.running import RunningLab, guest_ready
from followme.lab.topology import Lab
from followme.migration.mover import Result
from followme.store import Store
from followme.system.netns import socket_in

__all__ = ["MACHINE", "SERVICE", "USER", "Scenario", "ScenarioConfig"]

SWITCHES_CONNECT_S = 20.0


class Scenario(RunningLab):
    """``async with Scenario(...) as scenario``: everything runs, the machine at dc1, the client nowhere yet."""

    plane = "openflow"
    lab: Lab
    controller: Controller
    settings: ScenarioConfig

    def __init__(self, settings: ScenarioConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or ScenarioConfig()

    async def _start(self) -> None:
        self.image: GuestImage = await build_guest()
        self.lab = await self._exit.enter_async_context(Lab(self.settings.lab))
        self.config = config.check(document(self.lab, self.image, self.settings), "the lab's config")
        hosts = await hosts_of(self.config)
        self.accel = next(iter(hosts.values())).accel
        self.store = Store(self.lab.directory / "followme.db")
        self.controller = Controller(self.config, hosts, store=self.store)
        self.controller.watchers.add(self.happenings.append)
        await self.controller.start(sock=self._listening_socket())
        self._exit.push_async_callback(self.controller.close)
        await self.controller.wait_for_switches(SWITCHES_CONNECT_S)
        await self.controller.machines.start()
        if MACHINE not in self.controller.machines.running:
            raise RuntimeError(f"machine {MACHINE} does not run: {self.controller.machines.problems.get(MACHINE)}")
        await self._guest_ready()

    def _listening_socket(self) -> socket.socket:
        sock = socket_in(self.lab.switch_namespace, socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(self.lab.controller_address)
        sock.listen(64)
        return sock

    async def _guest_ready(self) -> None:
        for name, qemu in self.controller.machines.running.items():
            await guest_ready(name, qemu.host.file(name, "serial"))

    def network(self, name: str) -> Network:
        return self.lab.network(name)

    @property
    def machine_identifier(self) -> IPv4Address:
        return self.controller.redirect.bindings[MACHINE].node.identifier

    # ---- what experiments need (``stage.Stage``)

    @property
    def machine_network(self) -> str:
        return self.controller.redirect.bindings[MACHINE].here.network

    @property
    def result(self) -> Result | None:
        return self.controller.machines.results.get(MACHINE)

    async def move_client(self, network: str) -> None:
        await self.lab.move_client(network)

    async def forget_flows(self) -> None:
        await self.lab.switch.appctl("dpctl/del-flows", "netdev@ovs-netdev")

    async def count_entries(self) -> dict[str, int]:
        """Rules of the moved machine as the switches count them: at home, abroad, at the user's."""
        await self.controller.machines.retired()
        count = {}
        for role, name in (("home", "dc1"), ("foreign", "dc2"), ("correspondent", "wlan2")):
            flows = await self.controller.southbound.flows(self.network(name).datapath, MACHINE)
            count[f"rules_{role}"] = len(flows)
        return count

    async def add_peer(self) -> str:
        peer = await self.lab.add_host("wlan1", "peer", port=FIRST_HOST_PORT)
        await dhcp(peer.namespace, peer.interface)
        return peer.namespace
