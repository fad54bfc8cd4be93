"""A machine carried between two agents that share nothing but a key and the network."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.lab.carrying import (  # noqa: F401 (fixtures)
    MAC,
    MARKS,
    Prober,
    image,
    lab,
    machine,
    nothing_left,
)
from tests.lab.remote_sites import Sites, both, connect, sites, until  # noqa: F401 (fixtures)

from followme.domain import MigrationState
from followme.migration.host import MigrationError
from followme.remote.client import Refused
from followme.remote.qemu import RemoteQemu
from followme.remote.specs import spec_document
from followme.system import netns

pytestmark = MARKS


async def test_there_and_back_by_a_controllers_order(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    await both(sites)
    said: list[tuple[float, str]] = []
    execute = RemoteQemu.execute

    async def noted(self: RemoteQemu, command: str, *more: Any, **named: Any) -> Any:
        said.append((time.time(), command))
        return await execute(self, command, *more, **named)

    monkeypatch.setattr(RemoteQemu, "execute", noted)
    for source, target in (("a", "b"), ("b", "a")):
        agent, other = sites.agents[source], sites.agents[target]
        client = await connect(sites.lab, "ctl", source)
        events: list[dict[str, Any]] = []
        said.clear()
        async with Prober(sites.lab) as prober:
            await asyncio.sleep(0.3)
            async with client.stream("carry", {"machine": "vm", "target": target}) as stream:
                events.extend([event async for event in stream])
                result = await stream.result()
            await asyncio.sleep(0.3)
        print(f"{source} -> {target}: pause {result['pause_s'] * 1e3:.1f} ms, {result['bytes'] / 1e6:.1f} MB in "
              f"{result['total_s']:.2f} s; pings {prober.sent} lost {len(prober.lost)} worst "
              f"{prober.worst_round_trip * 1e3:.1f} ms")
        assert prober.lost == []
        names = [event["event"] for event in events if event["event"] != "progress"]
        assert sorted(names[3:5]) == ["flipped", "switched"]
        assert names[:3] + names[5:] == ["planned", "prepared", "transferring", "resumed", "released"]
        resumed = next(event for event in events if event["event"] == "resumed")
        assert resumed["pause_s"] == result["pause_s"] > 0
        # In the pause the source waits for nothing: the target goes on by itself, as it was told to.
        flipped = next(event["at"] for event in events if event["event"] == "flipped")
        assert [command for at, command in said if at >= flipped] == []
        assert await sites.running() == [target]
        await until(lambda other=other: "vm" in other.machines.running, "the target keeps it")  # type: ignore[misc]
        assert "vm" not in agent.machines.running
        assert agent.router.calls[-1] == "gone"
        assert other.router.calls[-1] == "here"
        for place in (agent.store.placement("vm"), other.store.placement("vm")):
            assert place is not None
            assert place.network == target
        await nothing_left(sites.lab, source)
        await client.close()
    # What was carried away is not started again where it was at home, and what was carried here is found.
    await sites.a.machines.carry("vm", "b")
    await sites.end("a")
    await sites.end("b")
    await sites.begin("a", sites.spec)
    await sites.begin("b")
    assert list(sites.a.machines.running) == []
    assert list(sites.b.machines.running) == ["vm"]
    assert await sites.running() == ["b"]


async def test_the_target_refuses(sites: Sites) -> None:
    await both(sites)
    qemu = sites.a.machines.running["vm"]
    real = qemu.spec
    for spec, match in ((replace(real, kernel=Path("/etc/hostname")), "no image /etc/hostname"),
                        (replace(real, memory_bytes=1 << 40), "memory_bytes"),
                        (replace(real, memory_bytes=96 << 20), "Size mismatch")):
        qemu.spec = spec
        async with Prober(sites.lab) as prober:
            await asyncio.sleep(0.3)
            with pytest.raises(MigrationError, match=match):
                await sites.a.machines.carry("vm", "b")
        assert prober.lost == []
        assert await sites.running() == ["a"]
        assert await netns.pids(str(sites.lab.hosts["b"].namespace)) == []
        assert sites.b.hypervisor.guests == {}
    await nothing_left(sites.lab, "b")
    qemu.spec = real
    for target, match in (("a", "is at a already"), ("c", "c")):
        with pytest.raises((MigrationError, KeyError), match=match):
            await sites.a.machines.carry("vm", target)
    with pytest.raises(MigrationError, match="none of live"):
        await sites.a.machines.carry("vm", "b", "by mail")


async def test_a_peer_may_do_no_more_than_a_migration_needs(sites: Sites) -> None:
    await both(sites)
    client = await connect(sites.lab, "a", "b")
    stranger = await connect(sites.lab, "ctl", "b")
    copy = await RemoteQemu.start(client, sites.spec, "m")
    for command, arguments in (("migrate-incoming", {"uri": "exec:touch /tmp/owned"}), ("quit", {})):
        with pytest.raises(MigrationError, match="not one that a migration needs"):
            await copy.execute(command, arguments)
    for method, more in (("kill", {}), ("bounce", {"way": "flip"}), ("keep", {})):
        if method == "kill":  # harmless, but nothing happens either
            await stranger.call(method, {"machine": "vm"})
            assert (await copy.execute("query-status"))["status"] == "inmigrate"
            continue
        with pytest.raises(Refused, match="not being carried to b by ctl"):
            await stranger.call(method, {"machine": "vm", **more})
    with pytest.raises(Refused, match="from somewhere else"):
        async with stranger.stream("incoming", {"spec": spec_document(sites.spec), "migration": "x"}) as stream:
            await anext(stream)
    with pytest.raises(MigrationError, match="does not run"):
        await copy.keep()
    await copy.kill()
    await nothing_left(sites.lab, "b")
    # Our own machine is no guest: nobody ends it.
    other = await connect(sites.lab, "b", "a")
    await other.call("kill", {"machine": "vm"})
    assert await sites.running() == ["a"]
    for one in (client, stranger, other):
        await one.close()


@pytest.mark.parametrize("how", ["connection", "agent", "silence"])
async def test_the_target_is_lost_while_memory_flows(sites: Sites, how: str) -> None:
    await both(sites)
    cut = False

    def tell(event: dict[str, Any]) -> None:
        nonlocal cut
        if event["event"] == "progress" and event["sent_bytes"] > 5e6 and not cut:
            cut = True
            if how == "connection":
                for connection in sites.a.connections:
                    connection._wire.end("cut")
            elif how == "agent":
                ended.append(asyncio.create_task(sites.end("b")))
            else:
                ended.append(asyncio.create_task(netns.ip(sites.lab.switch, ["link set dev m-b down"])))

    ended: list[asyncio.Task[None]] = []
    async with Prober(sites.lab) as prober:
        with pytest.raises(MigrationError) as caught:
            await sites.a.machines.carry("vm", "b", tell=tell)
        await asyncio.sleep(0.2)
    print(f"{how}: {caught.value} {getattr(caught.value, '__notes__', '')}; lost {len(prober.lost)}")
    await asyncio.gather(*ended)
    assert prober.lost == []
    assert await sites.a.machines.running["vm"].status() == "running"
    assert sites.a.store.migrations()[0].state is MigrationState.FAILED
    if how == "agent":
        await sites.begin("b")
    elif how == "silence":
        await netns.ip(sites.lab.switch, ["link set dev m-b up"])
    # What had come is removed, by the target's own patience or by the source when it comes through again.
    await until(lambda: not sites.b.hypervisor.guests, "the guest is forgotten")
    await nothing_left(sites.lab, "b")
    result = await sites.a.machines.carry("vm", "b", {"agent": "cold", "silence": "paper"}.get(how))
    assert result.pause_s > 0
    assert await sites.running() == ["b"]


async def test_a_machine_goes_on_when_he_who_ordered_it_leaves(sites: Sites) -> None:
    await both(sites)
    client = await connect(sites.lab, "ctl", "a")
    async with client.stream("carry", {"machine": "vm", "target": "b"}) as stream:
        while (await anext(stream))["event"] != "transferring":
            pass
    (listed,) = await client.call("machines")
    assert listed == {"machine": "vm", "mac": MAC.hex(":"), "state": "running", "carried_to": "b"}
    await client.close()
    await until(lambda: "vm" in sites.b.machines.running, "it arrives")
    # One who does not leave can have it taken back.
    client = await connect(sites.lab, "ctl", "b")
    seen: list[str] = []

    async def carry_and_cancel() -> None:
        async with client.stream("carry", {"machine": "vm", "target": "a"}) as stream:
            async for event in stream:
                seen.append(event["event"])
                if event["event"] == "transferring":
                    assert await client.call("cancel", {"machine": "vm", "reason": "rain"}) is True

    with pytest.raises(Refused, match="cancelled by ctl: rain"):
        await carry_and_cancel()
    assert seen[-1] == "failed"
    assert await sites.running() == ["b"]
    await client.close()
