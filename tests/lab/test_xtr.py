"""Tunnel routers on the kernel's data plane: sites, roaming, restarts, carrying away; a map server in the test."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any

import pytest
from tests import until as waiting
from tests.lab.lisp_headers import PLAIN, captured

from followme.lab.lisp_plan import ANYCAST_MAC
from followme.lab.lisp_site import HAS_IPV6
from followme.lab.lisp_topology import Host, LispLab, LispLabConfig
from followme.lisp import CONTROL_PORT, EidPrefix
from followme.mapsystem.server import MapServer
from followme.mapsystem.sites import Site, SitePrefix
from followme.migration import host as migration_host
from followme.migration.bounce import Bounce
from followme.system import needs, netns
from followme.system.process import run
from followme.xtr import residents
from followme.xtr.config import check
from followme.xtr.outputs import Departed, Event, LocatorState, Redirected
from followme.xtr.router import RouterError, TunnelRouter

PROBLEMS = needs.check((*LispLab.NEEDS, needs.Need.VXLAN_GPE))
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]

KEY = "a key for the lab"
MACHINE_MAC = bytes.fromhex("5254000a0009")
CLIENT = IPv4Address("10.3.0.10")
until = partial(waiting.until, seconds=3.0)


class MapSystem:
    """The map server's core behind one UDP socket in the lab's namespace."""

    def __init__(self, lab: LispLab) -> None:
        space = [EidPrefix.of(net) for site in lab.sites for net in (site.eid_prefix, site.eid_prefix6)]
        self.core = MapServer(
            [
                Site(
                    site.name, {0: KEY.encode()}, number,
                    (SitePrefix(EidPrefix.of(site.eid_prefix)), SitePrefix(EidPrefix.of(site.eid_prefix6))),
                    tuple(space),
                )
                for number, site in enumerate(lab.sites, 1)
            ],
            nonce=time.time_ns(),
        )  # fmt: skip
        self.events: list[object] = []
        self.requests = 0
        self._socket = netns.socket_in(lab.map_server_namespace, socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((str(lab.map_server_address), CONTROL_PORT))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)
        self._task = asyncio.ensure_future(self._timer())

    def close(self) -> None:
        self._task.cancel()
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, source = self._socket.recvfrom(9000)
                self.requests += data[0] >> 4 == 8
                self._out(self.core.receive(data, source[:2], time.monotonic()))

    async def _timer(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self._out(self.core.timer(time.monotonic()))

    def _out(self, outcome: Any) -> None:
        self.events += outcome.events
        for datagram in outcome.datagrams:
            self._socket.sendto(datagram.data, (datagram.host, datagram.port))


class World:
    """The lab with a tunnel router at each site."""

    def __init__(self, lab: LispLab, directory: Path) -> None:
        self.lab, self.directory = lab, directory
        self.routers: dict[str, TunnelRouter] = {}
        self.events: dict[str, list[Event]] = {}

    def config(self, name: str, **more: object) -> Any:
        site, number = self.lab.site(name), [one.name for one in self.lab.sites].index(name) + 1
        access = name.startswith("wlan")
        return check({
            "site": name, "namespace": site.namespace, "rlocs": [{"address": str(site.rloc)}],
            "prefixes": [str(site.eid_prefix), str(site.eid_prefix6)], "space": ["10.0.0.0/8", "fd00::/16"],
            "host_port": None if access else self.lab.hosts[name].name,
            "dynamic": {"prefixes": ["10.3.0.0/16", "fd00:3::/32"] if access else []},
            "map_servers": [{"address": str(self.lab.map_server_address), "key": KEY}],
            "core_mtu": 1600, "state_dir": str(self.directory), "site_id": number, "probe_s": 1.0, **more,
        }, name)  # fmt: skip

    async def start(self, name: str, **more: object) -> TunnelRouter:
        events = self.events.setdefault(name, [])
        router = self.routers[name] = TunnelRouter(self.config(name, **more), events.append)
        await router.start()
        return router

    async def close(self) -> None:
        for router in self.routers.values():
            await router.close()


async def pings(host: Host, target: object, count: int = 1, interval: float = 0.2, wait: float = 2.0) -> int:
    """How many answers came. The first is waited for as any other."""
    child = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", host.namespace, "ping", "-n", "-c", str(count), "-i", str(interval),
        "-W", str(wait), str(target), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await child.communicate()
    found = re.search(r"(\d+) received", output.decode())
    return int(found.group(1)) if found else 0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(LispLab(LispLabConfig(between_sites_rtt_s=0.004)))
        system = MapSystem(lab)
        stack.callback(system.close)
        made = World(lab, tmp_path)
        made.system = system  # type: ignore[attr-defined]
        stack.push_async_callback(made.close)
        for site in lab.sites:
            await made.start(site.name)
        await until(lambda: all(_confirmed(router) for router in made.routers.values()))
        made.server = await lab.add_host("dc1", "server", IPv4Interface("10.1.0.20/24"),  # type: ignore[attr-defined]
                                         IPv6Interface("fd00:1::20/64") if HAS_IPV6 else None)  # fmt: skip
        yield made


def _confirmed(router: TunnelRouter) -> bool:
    return all(one["confirmed_by"] for one in router.status()["registrations"])


async def test_the_first_packet_arrives(world: World) -> None:
    await world.lab.move_client("wlan1")
    assert await pings(world.lab.client, "10.1.0.20") == 1
    assert await pings(world.lab.client, "10.1.0.20", 20, 0.01) == 20
    entries = world.routers["wlan1"].status()["map_cache"]
    assert next(entry for entry in entries if entry["eid"] == "10.1.0.0/24")["rlocs"] == ["192.0.2.2"]


async def test_a_user_roams_and_no_answer_goes_astray_for_long(world: World) -> None:
    lab = world.lab
    await lab.move_client("wlan1")
    assert await pings(lab.client, "10.1.0.20") == 1
    await lab.move_client("wlan2")
    await until(lambda: world.routers["wlan2"].local(CLIENT))
    await until(lambda: any(isinstance(e, Departed) for e in world.events["wlan1"]))
    await until(lambda: any(isinstance(e, Redirected) and e.rlocs == (lab.site("wlan2").rloc,)
                            and e.eid.host for e in world.events["dc1"]))  # fmt: skip
    assert await pings(lab.client, "10.1.0.20", 5, 0.05) == 5
    assert not world.routers["wlan1"].local(CLIENT)
    await lab.move_client("wlan1")  # home again
    await until(lambda: world.routers["wlan1"].local(CLIENT))
    await until(lambda: not world.routers["wlan2"].local(CLIENT))
    assert await pings(lab.client, "10.1.0.20", 5, 0.05) == 5


async def test_a_silent_user_is_found_by_its_first_packet(world: World) -> None:
    await world.lab.move_client("wlan1")
    await world.lab.attach_client("wlan2")
    assert await pings(world.lab.client, "10.1.0.20", 3, 0.3) >= 2
    assert world.routers["wlan2"].local(CLIENT)


async def test_a_user_is_asked_whether_it_is_still_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, router = world.lab, world.routers["wlan2"]
    await lab.move_client("wlan2")
    await until(lambda: router.local(CLIENT))
    monkeypatch.setattr(residents, "SILENT_S", 0.3)
    monkeypatch.setattr(residents, "SWEEP_S", 0.1)
    await asyncio.sleep(5.5)  # the sweep that was planned before, and some fifty of the new ones
    assert router.local(CLIENT)  # it answers
    await netns.ip(lab.client.namespace, [f"link set {lab.client.interface} down"])
    await until(lambda: not router.local(CLIENT))


async def test_a_restart_loses_no_packet(world: World) -> None:
    lab = world.lab
    await lab.move_client("wlan2")
    await until(lambda: world.routers["wlan2"].local(CLIENT))
    assert await pings(lab.client, "10.1.0.20", 3, 0.05) == 3
    flow = asyncio.ensure_future(pings(lab.client, "10.1.0.20", 100, 0.02))
    for name in ("wlan2", "dc1"):
        await asyncio.sleep(0.2)
        await world.routers[name].close(leave=True)
        await asyncio.sleep(0.3)
        await world.start(name)
    assert await flow == 100
    assert world.routers["wlan2"].local(CLIENT)
    await until(lambda: all(entry["subscribed"] for entry in world.routers["dc1"].status()["map_cache"]))


async def test_an_address_that_nobody_has_stops_asking(world: World) -> None:
    lab = world.lab
    await lab.move_client("wlan1")
    assert await pings(lab.client, "10.9.0.1", 5, 0.05, 0.3) == 0
    entries = world.routers["wlan1"].status()["map_cache"]
    assert any("action" in entry for entry in entries)
    before = world.system.requests  # type: ignore[attr-defined]
    await pings(lab.client, "10.9.0.1", 5, 0.05, 0.3)
    assert world.system.requests == before  # type: ignore[attr-defined]


async def test_a_locator_that_answers_no_probe_goes_down_and_comes_back(world: World) -> None:
    lab = world.lab
    await lab.move_client("wlan1")
    assert await pings(lab.client, "10.1.0.20") == 1
    rloc = lab.site("dc1").rloc
    states = world.events["wlan1"]
    await until(lambda: _rtt(world, rloc) is not None)
    await world.routers["dc1"].close(leave=True)
    await until(lambda: LocatorState(rloc, False) in states, seconds=8.0)
    assert await pings(lab.client, "10.1.0.20") == 1  # the only one: it is used all the same
    await world.start("dc1")
    await until(lambda: LocatorState(rloc, True) in states, seconds=8.0)


def _rtt(world: World, rloc: IPv4Address) -> object:
    found = [one for one in world.routers["wlan1"].status()["locators"] if one["rloc"] == str(rloc)]
    return found[0]["rtt_ms"] if found else None


async def test_a_machine_is_carried_away_frame_by_frame(world: World) -> None:
    """The machine is a host on the hypervisor's bridge; its frames bounce at the flip, and none is lost."""
    lab = world.lab
    eid = IPv4Address("10.1.0.9")
    await lab.move_client("wlan1")
    source, target = world.routers["dc1"], world.routers["dc2"]
    there = await _machine(lab, "dc1", "m1")
    assert await pings(lab.client, eid) == 1
    rloc = lab.site("dc2").rloc
    await _machine(lab, "dc2", "m2")
    await target.expect(eid, MACHINE_MAC)
    await source.arm(eid, MACHINE_MAC, rloc)
    assert await pings(lab.client, eid, 3, 0.05) == 3  # still at home
    hv = lab.hosts["dc1"]
    bounce = Bounce(
        migration_host.Host(hv.name, hv.namespace, hv.bridge, hv.uplink, str(hv.management_address), hv.run_dir),
        None, MACHINE_MAC,
    )  # fmt: skip
    try:
        flow = asyncio.ensure_future(pings(lab.client, eid, 100, 0.01))
        await asyncio.sleep(0.3)
        bounce.flip()
        await asyncio.sleep(0.2)  # all by way of the source's bridge now: nobody has been told
        source.switch(eid, rloc)
        await asyncio.sleep(0.2)
        target.claim(eid)
        source.smr(eid)
        assert await flow == 100
        await until(lambda: any(isinstance(e, Redirected) and e.rlocs == (rloc,) for e in world.events["wlan1"]))
        await source.release(eid)
        assert await pings(lab.client, eid, 5, 0.02) == 5
        assert there
    finally:
        bounce.close()


async def _machine(lab: LispLab, centre: str, name: str) -> str:
    """A namespace with the machine's address and MAC behind the hypervisor's bridge, which knows it."""
    hv = lab.hosts[centre]
    namespace = f"{hv.namespace}{name}"[:40]
    await netns.add(namespace)
    lab._exit.push_async_callback(netns.delete, namespace)
    await netns.ip(None, [
        f"link add {name} netns {hv.namespace} type veth peer name eth0 netns {namespace}",
    ])  # fmt: skip
    await netns.ip(hv.namespace, [
        f"link set {name} master {hv.bridge} up", f"link set {name} type bridge_slave learning off",
        f"link set {hv.uplink} type bridge_slave learning off",
    ])  # fmt: skip
    entry = ["fdb", "replace", MACHINE_MAC.hex(":"), "dev", name, "master", "static"]
    await run(["bridge", "-n", hv.namespace, *entry])
    await netns.ip(namespace, [
        f"link set eth0 address {MACHINE_MAC.hex(':')}", "link set eth0 up", "address add 10.1.0.9/24 dev eth0",
        "route add default via 10.1.0.1",
        f"neighbour replace 10.1.0.1 lladdr {ANYCAST_MAC.hex(':')} dev eth0 nud permanent",
    ])  # fmt: skip
    return namespace


@pytest.mark.skipif(not HAS_IPV6, reason="this kernel has no IPv6")
async def test_ipv6_eids_over_ipv4_locators(world: World) -> None:
    peer = await world.lab.add_host("wlan1", "six", IPv4Interface("10.3.0.77/24"), IPv6Interface("fd00:3::77/64"))
    assert await pings(peer, "fd00:1::20") == 1
    assert await pings(peer, "fd00:1::20", 5, 0.05) == 5
    assert await pings(peer, "fd00:9::1", 3, 0.05, 0.3) == 0


async def test_plain_headers_by_name_and_by_default(world: World) -> None:
    """RFC 9300 headers to all, learnt one by one, and to the one peer that is named."""
    lab = world.lab
    await world.routers["wlan1"].close(leave=False)
    await world.start("wlan1", header="rfc9300")
    await world.routers["dc1"].close(leave=True)
    await world.start("dc1", peers={str(lab.site("wlan1").rloc): "rfc9300"})
    await lab.move_client("wlan1")
    with captured(lab, "dc1") as core:
        assert await pings(lab.client, "10.1.0.20") == 1
        assert await pings(lab.client, "10.1.0.20", 5, 0.02) == 5
        assert core.both_ways() == ({PLAIN}, {PLAIN})


async def test_a_crash_right_after_the_switch_does_not_take_the_machine_back(world: World) -> None:
    """The state file is of before the switch; the kernel's route is of after it."""
    lab, router = world.lab, world.routers["dc1"]
    eid, rloc = IPv4Address("10.1.0.9"), lab.site("dc2").rloc
    router.claim(eid, MACHINE_MAC)
    await router.arm(eid, MACHINE_MAC, rloc)
    file = world.directory / "xtr-dc1.json"
    before = file.read_text()
    router.switch(eid, rloc)
    await router.close(leave=True)
    file.write_text(before)
    again = await world.start("dc1")
    assert not again.local(eid)
    route = await run(["ip", "-n", lab.site("dc1").namespace, "route", "show", "table", "4341", "10.1.0.9"])
    assert f"dst {rloc}" in route
    assert "dev lan" not in route
    again.claim(eid, MACHINE_MAC)  # the order to roll back
    await again.disarm(eid)
    await again.close(leave=True)
    assert (await world.start("dc1")).local(eid)


async def test_a_second_router_changes_nothing_of_the_first(world: World, tmp_path: Path) -> None:
    """Neither with the same state, nor with one of its own and other devices, but the same locator."""
    site = world.lab.site("wlan1")

    async def kernel() -> list[str]:
        shown = (["rule"], ["route", "show", "table", "4341"], ["-o", "link"])
        return [await run(["ip", "-n", site.namespace, *what]) for what in shown]

    before = await kernel()
    other = {"punt": "other-punt", "tunnel": "other0"}
    for more, why in ((other, "held by another"), ({**other, "state_dir": str(tmp_path / "other")}, "another xTR")):
        with pytest.raises(RouterError, match=why):
            await TunnelRouter(world.config("wlan1", **more)).start()
    assert await kernel() == before
    await world.lab.move_client("wlan1")
    assert await pings(world.lab.client, "10.1.0.20") == 1


async def test_another_sites_gateway_cannot_be_claimed_for_long(world: World) -> None:
    gateway, system = EidPrefix.of("10.1.0.1"), world.system  # type: ignore[attr-defined]
    await world.routers["wlan2"].close(leave=True)
    visited = await world.start("wlan2", dynamic={"prefixes": ["10.0.0.0/8"]})
    for times in (1, 2):
        assert visited.control.appeared(gateway, MACHINE_MAC, time.monotonic())
        visited._apply()
        await until(lambda: not visited.control.local(gateway))
        assert world.routers["dc1"].control.refusals.counts["claim of an address of our own"] == times
        entry = system.core.registry.table.get(gateway)
        assert entry is not None
        assert str(world.lab.site("dc1").rloc) in str(entry)
        assert await pings(world.server, "10.1.0.1") == 1  # type: ignore[attr-defined]


async def test_leaving_for_good_leaves_nothing(world: World) -> None:
    site = world.lab.site("wlan2")
    await world.lab.move_client("wlan2")
    await until(lambda: world.routers["wlan2"].local(CLIENT))
    await world.routers.pop("wlan2").close(leave=False)
    rules = await run(["ip", "-n", site.namespace, "rule"])
    links = await run(["ip", "-n", site.namespace, "link"])
    assert "434" not in rules
    assert "lisp" not in links
    system: MapSystem = world.system  # type: ignore[attr-defined]
    await until(lambda: system.core.registry.table.get(EidPrefix.of("10.3.0.10/32")) is None)
