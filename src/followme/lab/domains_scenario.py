"""The lab of several domains at work: bus, controllers and agents, all of them processes of their own.

They are ``nats-server``, ``followme controller`` and ``followme agent`` with files as an operator would write
them. Each can be ended, frozen and started again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from followme.federation.nats_accounts import Member
from followme.federation.nats_server import NatsServer, program, start_servers
from followme.lab import domains_plan
from followme.lab.domains_document import BUS_PORT, MACHINE, DomainsConfig, Papers
from followme.lab.domains_topology import DomainsLab
from followme.lab.guest import GuestImage, build_guest
from followme.lab.lisp_document import write
from followme.lab.running import EnteredLab, guest_ready
from followme.migration.host import MigrationError
from followme.system import needs, netns
from followme.system.process import Child

STARTS_S = 60.0
STOP_S = 10.0
ORDER_S = 180.0
MONITOR = "127.0.0.1:8222"


@dataclass(frozen=True, slots=True)
class BusRequests:
    """Requests that were delivered, each of which has an answer: frames of orders between domains, and what hosts
    and their controllers ask of each other."""

    between_domains: int
    hosts: int

    def __sub__(self, other: BusRequests) -> BusRequests:
        return BusRequests(self.between_domains - other.between_domains, self.hosts - other.hosts)


def missing() -> list[str]:
    """What this machine lacks for it: one line each, and how to get it."""
    problems = needs.check(needs.MACHINE_LAB)
    if program() is None:
        problems.append("missing nats-server: apt-get install nats-server")
    return problems


class DomainsScenario(EnteredLab):
    """``async with DomainsScenario(...) as scenario``: everything runs, the machine at home in the first domain."""

    plane = "federation"

    def __init__(self, settings: DomainsConfig | None = None) -> None:
        super().__init__()
        self.settings = settings or DomainsConfig()
        self.daemons: dict[str, Child] = {}
        """Those that run: ``alpha/1`` is a controller of domain alpha, ``dc1`` the agent of the network."""
        self._files: dict[str, tuple[str, str, Path]] = {}
        self._logged: dict[str, int] = {}

    async def _start(self) -> None:
        self.image: GuestImage = await build_guest()
        self.accel = await needs.acceleration(self.image.kernel)
        self.lab = await self._exit.enter_async_context(DomainsLab(self.settings.lab))
        lab = self.lab
        self.papers = Papers(lab, self.image, self.settings, lab.directory / "keys")
        self.bus = await self._start_bus()
        for domain in lab.domains:
            for instance in range(1, self.settings.lab.instances + 1):
                file = self._file(f"{domain.name}-{instance}", self.papers.controller(domain, instance))
                self._files[f"{domain.name}/{instance}"] = (lab.switch_namespace, "controller", file)
            if domain.has_centre:
                name = domain.network.name
                file = self._file(name, self.papers.agent(domain))
                self._files[name] = (lab.hosts[name].namespace, "agent", file)
        for name in self._files:
            await self.start(name)
        await self._ready()

    async def _start_bus(self) -> NatsServer:
        lab = self.lab
        member = Member("bus", f"{domains_plan.bus_address().ip}:{BUS_PORT}", monitor=MONITOR)
        (server,) = await start_servers(
            [member], lab.directory / "nats", self.papers.logins, namespaces={"bus": lab.bus_namespace},
        )  # fmt: skip
        self._exit.push_async_callback(server.stop)
        return server

    def _file(self, name: str, document: dict[str, Any]) -> Path:
        return write(self.lab.directory / f"{name}.yaml", document)

    # ---- daemons

    async def start(self, name: str) -> None:
        """Start a daemon, by its name in ``daemons``."""
        namespace, command, file = self._files[name]
        log = self._log(name).open("ab")
        self._logged[name] = log.tell()
        argv = [sys.executable, "-m", "followme.cli", command, "-c", str(file)]
        try:
            child = await Child.start(["sh", "-c", 'exec "$@" 2>&1', "sh", *argv], stdout=log,
                                      name=f"followme {command} ({name})", namespace=namespace)  # fmt: skip
        finally:
            log.close()
        self.daemons[name] = child
        self._exit.push_async_callback(child.stop)

    async def end(self, name: str, *, kill: bool = False) -> None:
        """End a daemon with SIGTERM, or with SIGKILL as a crash would."""
        child = self.daemons.pop(name)
        if kill:
            os.kill(child.pid, signal.SIGKILL)
        await child.stop(STOP_S)

    def freeze(self, name: str, *, on: bool = True) -> None:
        """Stop a daemon in its tracks, or let it go on."""
        os.kill(self.daemons[name].pid, signal.SIGSTOP if on else signal.SIGCONT)

    def said(self, name: str) -> str:
        """What a daemon has logged since it was started last."""
        file = self._log(name)
        return file.read_bytes()[self._logged.get(name, 0) :].decode(errors="replace") if file.exists() else ""

    def _log(self, name: str) -> Path:
        return self.lab.directory / f"{self._files[name][2].stem}.log"

    async def until_said(self, name: str, text: str, within_s: float = STARTS_S) -> None:
        """Until a daemon has logged that; ``RuntimeError`` with its last words if it does not."""
        try:
            async with asyncio.timeout(within_s):
                while text not in self.said(name):
                    child = self.daemons.get(name)
                    if child is not None and child.returncode is not None:
                        raise RuntimeError(f"{name} has ended: {self.said(name)[-1500:]}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise RuntimeError(f"{name} has not said {text!r} within {within_s:g} s, but: "
                               f"{self.said(name)[-1500:]}") from None  # fmt: skip

    async def _ready(self) -> None:
        for domain in self.lab.domains:
            await self.active(domain.name)
            if domain.has_centre:
                await self.until_said(domain.network.name, "serving peers")
        for domain in self.lab.domains:
            async with asyncio.timeout(STARTS_S):
                while not await self.lab.switch.dump_flows(domain.network.name):
                    await asyncio.sleep(0.1)
        serial = self.lab.hosts["dc1"].run_dir / f"{MACHINE}@dc1.serial"
        await guest_ready(MACHINE, serial, f"; its agent: {self.said('dc1')[-1500:]}")

    async def active(self, domain: str, within_s: float = STARTS_S, *, besides: str = "") -> str:
        """The daemon that serves the domain, as soon as one that runs says so; ``besides`` is not believed."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    ours = [name for name in self.daemons if name.startswith(f"{domain}/")]
                    for name in [name for name in ours if name != besides]:
                        said = self.said(name)
                        if said.rfind("is served, epoch") > said.rfind("not the active one"):
                            return name
                        if self.daemons[name].returncode is not None:
                            raise RuntimeError(f"{name} has ended: {said[-1500:]}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            last = {name: self.said(name)[-800:] for name in self._files if name.startswith(f"{domain}/")}
            raise RuntimeError(f"nobody serves {domain} within {within_s:g} s: {last}") from None

    # ---- what experiments need

    @property
    def machine_identifier(self) -> IPv4Address:
        return self.lab.domains[0].host(domains_plan.MACHINE_NUMBER).ip

    @property
    def networks(self) -> list[str]:
        return [domain.network.name for domain in self.lab.domains]

    async def carry(self, network: str, *, domain: str = "", machine: str = MACHINE) -> dict[str, Any]:
        """``followme federation carry``, run by an operator of the machine's home (or of ``domain``); the figures.
        ``MigrationError`` if it was refused or has failed."""
        where = self.lab.domain(domain or self.lab.domains[0].name)
        file = self._file(f"operator-{where.name}", self.papers.operator(where))
        argv = ["federation", "carry", machine, network, "-c", str(file), "--json", "-"]
        child = await Child.start(
            [sys.executable, "-m", "followme.cli", *argv], name="followme federation carry",
            namespace=self.lab.bus_namespace, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(ORDER_S):
                text = b"" if child.stdout is None else await child.stdout.read()
                code = await child.wait()
        except TimeoutError:
            raise MigrationError(f"not done within {ORDER_S:g} s: {child.stderr_tail[-500:]}") from None
        finally:
            await child.stop()
        if code != 0:
            raise MigrationError(child.stderr_tail[-1000:])
        figures: dict[str, Any] = json.loads(text)
        return figures

    async def rules(self) -> dict[str, int]:
        """How many rules each network's switch has that name the machine, or a locator of it."""
        identifier = str(self.machine_identifier)
        counted = {}
        for name in self.networks:
            flows = await self.lab.switch.dump_flows(name)
            counted[name] = sum(identifier in flow or self._has_locator(flow) for flow in flows)
        return counted

    async def locators(self) -> dict[str, set[str]]:
        """Locators that rules of each network's switch still name."""
        found: dict[str, set[str]] = {}
        for name in self.networks:
            for flow in await self.lab.switch.dump_flows(name):
                found.setdefault(name, set()).update(self._locators_in(flow))
        return {name: locators for name, locators in found.items() if locators}

    def _has_locator(self, flow: str) -> bool:
        return bool(self._locators_in(flow))

    def _locators_in(self, flow: str) -> set[str]:
        words = flow.replace("=", " ").replace(",", " ").replace(">", " ").replace(":", " ").split()
        found = set()
        for word in words:
            try:
                address = IPv4Address(word)
            except ValueError:
                continue
            if domains_plan.is_locator(self.settings.lab, address):
                found.add(word)
        # The path monitor's own address of each pool is no node's locator.
        return found - {str(domain.network.probe_address) for domain in self.lab.domains}

    async def bus_requests(self) -> BusRequests:
        """What has been asked over the bus so far, as its server counts it."""
        url = f"http://{MONITOR}/connz?subs=detail"
        text = await asyncio.to_thread(netns.call_in, self.lab.bus_namespace, lambda: _get(url))
        between, hosts = 0, 0
        for connection in json.loads(text)["connections"]:
            for one in connection.get("subscriptions_list_detail", ()):
                words = one["subject"].split(".")
                if words[0] == "fmc" and len(words) == 3 and words[2] == "*":
                    between += one["msgs"]
                elif words[0] == "fmc":
                    hosts += one["msgs"]
        return BusRequests(between, hosts)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: bytes = answer.read()
        return text
