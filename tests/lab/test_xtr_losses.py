"""A tunnel router whose kernel loses routes, whose addresses are claimed elsewhere, and that is taken out."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast

import pytest
from tests import until as waiting
from tests.lab.test_xtr_devices import router

from followme.lisp import EidPrefix, Locator, MapNotify, MappingRecord, sign
from followme.lisp.register import OWN_NONCES
from followme.system import needs, netns
from followme.system.process import ProcessError, run
from followme.xtr import fastpath, mender, removal
from followme.xtr.errors import DataPlaneError
from followme.xtr.headers import PlainHeaders
from followme.xtr.kernel import KernelPlane
from followme.xtr.residents import Resident
from followme.xtr.router import TunnelRouter
from followme.xtr.routes import MapCacheRoutes
from followme.xtr.state import State, StateFile

PROBLEMS = needs.check([needs.Need.ROOT, needs.Need.NETWORKS, needs.Need.VXLAN_GPE])
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]
until = partial(waiting.until, seconds=5.0)
FAR, OTHER = IPv4Address("192.0.2.5"), IPv4Address("192.0.2.6")
USER, MACHINE = IPv4Address("10.9.0.7"), IPv4Address("10.1.0.8")
ROUTES = "route show table all protocol 108"
MAC = bytes.fromhex("020000000007")


@pytest.fixture
async def sites() -> AsyncIterator[tuple[str, str]]:
    """A router's namespace, and that of a host on its LAN, 10.1.0.9."""
    here, host = f"fml{os.getpid()}", f"fmh{os.getpid()}"
    await netns.add(here)
    await netns.add(host)
    try:
        await netns.ip(here, [
            "link set lo up", f"link add lan type veth peer name eth0 netns {host}",
            "link add name up type veth peer name core",
            "addr add 10.1.0.1/24 dev lan", "addr add 192.0.2.1/24 dev up",
            *(f"link set dev {device} up" for device in ("lan", "up", "core")),
        ])  # fmt: skip
        await netns.ip(host, ["addr add 10.1.0.9/24 dev eth0", "link set dev eth0 up"])
        netns.sysctl(here, {"ipv4/ip_forward": 1, "ipv4/conf/all/rp_filter": 0, "ipv4/conf/lan/rp_filter": 0})
        yield here, host
    finally:
        await netns.delete(host)
        await netns.delete(here)


async def pings(namespace: str, target: str) -> bool:
    try:
        await run(["ping", "-n", "-c", "2", "-i", "0.1", "-W", "1", target], namespace=namespace)
    except ProcessError:
        return False
    return True


async def state(namespace: str) -> dict[str, list[str]]:
    """All of ours that an operator can see, but for numbers that count."""
    shown = {}
    for what in ("rule", ROUTES, f"-6 {ROUTES}", "neigh show nud permanent"):
        shown[what] = sorted((await run(["ip", "-n", namespace, *what.split()])).splitlines())
    for device in ("lan", "up"):
        text = await run(["tc", "filter", "show", "dev", device, "ingress"], namespace=namespace)
        shown[device] = ["bpf" for line in text.splitlines() if "pref 49" in line and "handle" in line]
    return shown


def place(made: TunnelRouter, prefix: str, rloc: IPv4Address = FAR) -> None:
    record = MappingRecord(EidPrefix.of(prefix), (Locator(rloc),), 60)
    made.control.itr.place(record, EidPrefix.of(prefix), time.monotonic())
    made._apply()


@pytest.mark.parametrize(("commands", "loss"), [
    (["link set lisp0 down", "link set lisp0 up"], "lisp0 is down"),
    (["link set lan down", "link set lan up"], "lan is down"),
    (["link set lisp-punt down", "link set lisp-punt up"], "lisp-punt is down"),
    (["link del lisp0"], "lisp0 is gone"),
    (["link del lisp-punt"], "lisp-punt is gone"),
    (["route del 10.2.0.0/24 table 4341"], "routes of table 4341 were deleted"),
    (["route del 10.0.0.0/8 table 4341"], "routes of table 4341 were deleted"),
    (["rule del pref 902"], "rules of table 4341 were deleted"),
])  # fmt: skip
async def test_what_the_kernel_loses_comes_back(
    sites: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, commands: list[str], loss: str
) -> None:
    here, host = sites
    made = router(here, tmp_path)
    async with AsyncExitStack() as opened:
        await made.start()
        opened.push_async_callback(made.close, leave=False)
        for prefix in ("10.2.0.0/24", "10.2.0.7/32"):
            place(made, prefix)
        made.control.appeared(EidPrefix.of(USER), MAC, time.monotonic())
        await made.expect(MACHINE, MAC)
        before = await state(here)
        assert len(before[ROUTES]) == 6
        await asyncio.sleep(0.2)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            await netns.ip(here, commands)
            await until(lambda: "mended" in caplog.text)
        said = [record.getMessage() for record in caplog.records]
        assert any(loss in line for line in said), said
        assert len(said) <= 3
        assert await state(here) == before
        assert await pings(host, "10.1.0.1")
        place(made, "10.3.0.0/24")  # and changes go on
        assert any(line.startswith("10.3.0.0/24") for line in (await state(here))[ROUTES])
        caplog.clear()
        made.control.itr.cache.remove(EidPrefix.of("10.3.0.0/24"))
        made._apply()
        await asyncio.sleep(0.3)
        assert caplog.text == ""  # what we delete ourselves is no loss


async def test_headers_of_rfc_9300_survive_a_flush_of_nftables(
    sites: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = sites
    made = router(here, tmp_path, header="rfc9300")

    async def peers() -> str:
        return await run(["nft", "list", "set", "netdev", "lisp_lisp0", "peers4"], namespace=here)

    async with AsyncExitStack() as opened:
        await made.start()
        opened.push_async_callback(made.close, leave=False)
        place(made, "10.2.0.0/24")
        await until(lambda: not made._admission._waiting)
        assert str(FAR) in await peers()
        with caplog.at_level(logging.WARNING):
            await run(["nft", "flush", "ruleset"], namespace=here)
            await until(lambda: "mended" in caplog.text)
            assert str(FAR) in await peers()
            # What is admitted before that is mended.
            monkeypatch.setattr(mender, "PAUSE_S", 60.0)
            await run(["nft", "flush", "ruleset"], namespace=here)
            place(made, "10.3.0.0/24", OTHER)
            await until(lambda: not made._admission._waiting)
        assert str(FAR) in await peers()
        assert str(OTHER) in await peers()


async def test_an_rloc_that_is_admitted_while_the_headers_are_made_anew(
    sites: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = sites
    made = router(here, tmp_path, header="rfc9300")
    async with AsyncExitStack() as opened:
        await made.start()
        opened.push_async_callback(made.close, leave=False)
        place(made, "10.2.0.0/24")
        await until(lambda: not made._admission._waiting)
        entered, ensure = asyncio.Event(), PlainHeaders.ensure

        async def slow(headers: PlainHeaders, peers: set[IPv4Address]) -> None:
            some = set(peers)
            entered.set()
            await asyncio.sleep(0.2)
            await ensure(headers, some)

        monkeypatch.setattr(PlainHeaders, "ensure", slow)
        await netns.ip(here, ["rule del pref 902"])
        await entered.wait()
        place(made, "10.3.0.0/24", OTHER)
        await until(lambda: not made._mender.busy and not made._admission._waiting)
        shown = await run(["nft", "list", "set", "netdev", "lisp_lisp0", "peers4"], namespace=here)
        assert str(OTHER) in shown


async def test_the_map_cache_is_not_listed_to_mend_a_route(
    sites: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = sites
    made = router(here, tmp_path)
    async with AsyncExitStack() as opened:
        await made.start()
        opened.push_async_callback(made.close)
        place(made, "10.2.0.0/24")
        before = await state(here)
        listed: list[MapCacheRoutes] = []
        monkeypatch.setattr(MapCacheRoutes, "entries", listed.append)
        with caplog.at_level(logging.WARNING):
            await netns.ip(here, ["route del 10.2.0.0/24 table 4341"])
            await until(lambda: "mended" in caplog.text)
        assert await state(here) == before
        assert listed == []


def own(made: TunnelRouter) -> tuple[set[str], bool]:
    """Which IPv4 addresses are the router's, and whether the fast path leaves these alone."""
    hosts = [eid for eid in made.control.residents.policy.own_addresses if len(eid.address) == 4]
    fast = cast(KernelPlane, made._plane)._fast
    assert fast is not None
    return {str(eid.network.network_address) for eid in hosts}, {eid.network for eid in hosts} < fast._held


async def test_the_lans_addresses_go_and_come(sites: tuple[str, str], tmp_path: Path) -> None:
    """Whoever configures it gives them some time after it is up; the agent may be there before."""
    here, _ = sites
    await netns.ip(here, ["addr flush dev lan"])
    made = router(here, tmp_path)
    async with AsyncExitStack() as opened:
        await made.start()
        opened.push_async_callback(made.close, leave=False)
        assert own(made) == (set(), True)
        await netns.ip(here, ["addr add 10.1.0.1/24 dev lan", "addr add 10.2.0.1/24 dev up"])
        await until(lambda: own(made) == ({"10.1.0.1"}, True))
        await netns.ip(here, ["addr flush dev lan", "link set lan down", "link set lan up"])
        await asyncio.sleep(0.2)
        await until(lambda: not made._mender.busy)
        assert own(made) == ({"10.1.0.1"}, True)
        await netns.ip(here, ["addr add 10.1.0.2/24 dev lan", "addr add 10.1.0.3/24 dev lan"])
        await until(lambda: own(made) == ({"10.1.0.2", "10.1.0.3"}, True))
        await netns.ip(here, ["addr del 10.1.0.3/24 dev lan"])
        await until(lambda: own(made) == ({"10.1.0.2"}, True))


async def test_an_arm_that_no_file_names_does_not_outlive_a_restart(sites: tuple[str, str], tmp_path: Path) -> None:
    here, _ = sites
    made = router(here, tmp_path, host_port="core")
    other = IPv4Address("10.1.0.9")
    await made.start()
    try:
        await made.arm(MACHINE, MAC, FAR)
        await made.arm(other, MAC[:5] + b"\x08", FAR)
    finally:
        await made.close()
    file = StateFile(tmp_path, "here")
    known = file.load(0)
    for count in (1, 0):
        file.save(State(known.nonce, arms=known.arms[:count], request_nonce=known.request_nonce))
        made = router(here, tmp_path, host_port="core")
        async with AsyncExitStack() as opened:
            await made.start()
            opened.push_async_callback(made.close)
            routes = await run(["ip", "-n", here, "route", "show", "table", "4342"])
            assert [line.split()[0] for line in routes.splitlines()] == [str(MACHINE)][:count]
            filters = await run(["tc", "-n", here, "filter", "show", "dev", "core", "ingress"])
            assert filters.count("mirred") == count
            tables = await run(["nft", "list", "ruleset"], namespace=here)
            assert (MAC.hex(":") in tables, (MAC[:5] + b"\x08").hex(":") in tables) == (count == 1, False)


async def test_an_address_of_the_router_stays_its_own(sites: tuple[str, str], tmp_path: Path) -> None:
    """Another site has registered it; and a mapping covers it."""
    here, host = sites
    made = router(here, tmp_path)
    async with AsyncExitStack() as opened:
        await made.start()
        opened.push_async_callback(made.close, leave=False)
        assert (await state(here))["lan"] == ["bpf"]
        assert await pings(host, "10.1.0.1")
        gateway = EidPrefix.of("10.1.0.1")
        said = MapNotify(OWN_NONCES + 7, (MappingRecord(gateway, (Locator(FAR),)),), made.config.identity, 0)
        made.control.receive(
            sign(said, b"a key for the lab").encode(), IPv4Address("192.0.2.18"), 4342, time.monotonic()
        )
        made._apply()
        assert not [line for line in (await state(here))[ROUTES] if line.startswith("10.1.0.1 ")]
        assert gateway in made.control.etr.registrar.eids
        place(made, "10.1.0.0/31")
        assert await pings(host, "10.1.0.1")


async def test_a_router_is_taken_out(sites: tuple[str, str], tmp_path: Path) -> None:
    here, _ = sites
    made = router(here, tmp_path, host_port="core", header="rfc9300")
    devices = await run(["ip", "-n", here, "-br", "link"])
    await made.start()
    try:
        place(made, "10.2.0.0/24")
        made.claim(MACHINE, MAC)
        await made.arm(MACHINE, MAC, FAR)
        await until(lambda: not made._admission._waiting)
        with pytest.raises(DataPlaneError, match="runs already"):
            await removal.remove(made.config, print)
    finally:
        await made.close(leave=True)
    lines: list[str] = []
    assert await removal.remove(made.config, lines.append)
    for part in (
        "lan: the program", "up: the program", "rule 900 ", "rule 901 ", "rule 902 ", "table 4341: 4 routes",
        "table 4342: 1 routes", "neighbour 10.1.0.8", "core: filters of 1 machines", "nftables table lisp_lisp0",
        "nftables table lisp_arms_lan", "device lisp0", "device lisp-punt",
    ):  # fmt: skip
        assert [line for line in lines if line.startswith(f"removed {part}")], (part, lines)
    after = await state(here)
    assert [line for line in after["rule"] if "434" in line] == []
    assert {what: shown for what, shown in after.items() if what != "rule" and shown} == {}
    assert await run(["ip", "-n", here, "-br", "link"]) == devices
    assert await run(["nft", "list", "tables"], namespace=here) == ""
    file = tmp_path / "agent.yaml"
    (key := tmp_path / "key").write_text("a key for the lab")
    key.chmod(0o600)
    section = {
        "site": "here", "namespace": here, "rlocs": [{"address": "192.0.2.1"}], "space": ["10.0.0.0/8"],
        "state_dir": str(tmp_path), "map_servers": [{"address": "192.0.2.18", "key_file": str(key)}],
    }  # fmt: skip
    file.write_text(json.dumps({"router": section}))
    command = [sys.executable, "-m", "followme.cli", "agent", "-c", str(file), "--remove"]
    assert await run(command) == "removed nothing: there is nothing of it in the kernel\n"
    await netns.ip(here, ["link add lisp0 type vxlan external gpe dstport 4341"])
    assert await run(command) == "removed device lisp0\n"


async def test_what_is_not_ours_stays_when_a_router_is_taken_out(sites: tuple[str, str], tmp_path: Path) -> None:
    here, _ = sites
    tunnel = netns.open_tun(here, "lisp-punt")
    try:
        await netns.ip(here, [
            "link add lisp0 type vxlan id 5 dstport 4789 dev up",
            f"neigh add {MACHINE} lladdr {MAC.hex(':')} dev lan nud reachable",
        ])  # fmt: skip
        await netns.tc(here, [
            "qdisc add dev up clsact",
            "filter add dev up ingress protocol ip pref 49 u32 match u32 0 0 flowid 1:1",
        ])  # fmt: skip
        made = router(here, tmp_path)
        here_once = Resident(EidPrefix.of(MACHINE), MAC, pinned=True)
        StateFile(tmp_path, "here").save(State(residents=(here_once,)))
        lines: list[str] = []
        assert not await removal.remove(made.config, lines.append)
        assert lines == [
            "left device lisp0, which is of somebody else (vxlan)",
            "left device lisp-punt, which is of somebody else (tun)",
        ]
        assert not fastpath.detach(here, "up")
        assert "u32" in await run(["tc", "-n", here, "filter", "show", "dev", "up", "ingress"])
        devices = await run(["ip", "-n", here, "-br", "link"])
        assert "lisp0" in devices
        assert "lisp-punt" in devices
        assert str(MACHINE) in await run(["ip", "-n", here, "neigh", "show", "dev", "lan"])
    finally:
        os.close(tunnel)
