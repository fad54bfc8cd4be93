"""A real Open vSwitch with two controllers: one is its master, and an old one cannot come back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from tests.until import until

from followme.continuity.ledger import Ledger
from followme.continuity.pipeline import Priority, Rule, Table
from followme.continuity.southbound import Handlers, NotMaster, Role, Southbound
from followme.domain import Network
from followme.lab import plan
from followme.lab.ovs import OpenVSwitch
from followme.lab.rundir import Run
from followme.openflow import ApplyActions, Match, Output, PacketOut
from followme.system import needs
from followme.system.netns import socket_in

_missing = needs.check((needs.Need.ROOT, needs.Need.NETWORKS, needs.Need.OPENVSWITCH))
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(_missing), reason="; ".join(_missing))]

PORTS = (6653, 6654)
NETWORK = plan.networks(plan.LabConfig())[0]


def rule(port: int) -> Rule:
    return Rule(Table.FORWARD, Priority.DELIVER, Match(in_port=port), (ApplyActions((Output(1),)),))


@dataclass
class Instance:
    """One of the two controllers."""

    southbound: Southbound
    deposed: list[str] = field(default_factory=list)

    def rules(self, *ports: int) -> None:
        changes = self.southbound.ledger.set("vm", {NETWORK.datapath: [rule(port) for port in ports]})
        self.southbound.apply(changes)

    async def confirmed(self) -> None:
        await self.southbound.barrier([NETWORK.datapath], 5)


@dataclass
class Bench:
    switch: OpenVSwitch
    instances: tuple[Instance, Instance]

    async def ports(self) -> list[int]:
        """Of the rules that are in the switch."""
        flows = await self.switch.dump_flows(NETWORK.name)
        return sorted(int(flow.split("in_port=")[1].split()[0].rstrip(",")) for flow in flows if "in_port=" in flow)

    async def roles(self) -> list[str]:
        """As the switch's own database has them, some seconds late."""
        return (await self.switch._vsctl("--bare", "--columns=role", "list", "controller")).split()


def _listening(namespace: str, port: int) -> socket.socket:
    sock = socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(8)
    return sock


def _instance(network: Network, epoch: int) -> Instance:
    handlers = Handlers(packet_in=lambda network, message: None)
    instance = Instance(Southbound([network], Ledger(epoch), handlers, role=Role.STANDBY))
    handlers.deposed = lambda: instance.deposed.append("deposed")
    return instance


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    run = Run.open()
    namespace = await run.add_namespace("switch")
    switch = OpenVSwitch(namespace, run.directory / "ovs")
    instances = _instance(NETWORK, 100), _instance(NETWORK, 200)
    try:
        await switch.start()
        for instance, port in zip(instances, PORTS, strict=True):
            await instance.southbound.listen("", 0, sock=_listening(namespace, port))
        await switch.add_bridge(NETWORK.name, NETWORK.datapath)
        await switch._vsctl("set-controller", NETWORK.name, *(f"tcp:127.0.0.1:{port}" for port in PORTS), "--",
                            "set", "bridge", NETWORK.name, "fail_mode=secure")  # fmt: skip
        await until(lambda: all(one.southbound.attending(NETWORK.datapath) for one in instances), seconds=10.0)
        yield Bench(switch, instances)
    finally:
        for instance in instances:
            await instance.southbound.close()
        await switch.stop()
        await run.close()


async def test_an_old_masters_rules_are_refused_after_the_takeover(bench: Bench) -> None:
    old, new = bench.instances
    await old.southbound.take_over(5)
    old.rules(7)
    new.rules(7)  # what the standby knows
    await old.confirmed()
    assert await bench.ports() == [7]
    await new.southbound.take_over(6)
    assert await bench.ports() == [7]
    assert old.deposed == [], "it sleeps"
    old.rules(7, 8)
    old.southbound.send(NETWORK.datapath, [PacketOut(bytes(60), (Output(1),))])
    with pytest.raises(NotMaster):
        await old.confirmed()
    assert old.deposed == ["deposed"]
    assert await bench.ports() == [7]
    old.rules(8, 9)
    await asyncio.sleep(0.2)
    assert await bench.ports() == [7]
    assert old.southbound.role is Role.STANDBY
    new.rules(7, 10)
    await new.confirmed()
    assert await bench.ports() == [7, 10]
    assert new.deposed == []
    with pytest.raises(ValueError, match="older"):
        await old.southbound.take_over(4)
    await old.southbound.take_over(7)
    assert await bench.ports() == [8, 9], "its own, and the others are swept"


async def test_one_that_comes_too_late_is_told_so(bench: Bench) -> None:
    late, new = bench.instances
    late.rules(8)
    new.rules(7)
    await new.southbound.take_over(2**40)
    with pytest.raises(NotMaster):
        await late.southbound.take_over(2**40 - 1)
    assert late.deposed == ["deposed"]
    assert await bench.ports() == [7]
    await new.confirmed()
    await late.southbound.take_over(2**40 + 5)
    assert await bench.ports() == [8]


async def test_rules_stay_while_nobody_is_master(bench: Bench) -> None:
    old, new = bench.instances
    old.rules(7)
    new.rules(7, 9)
    await old.southbound.take_over(1)
    assert await bench.ports() == [7]
    old.southbound.step_down()
    async with asyncio.timeout(10):
        while await bench.roles() != ["slave", "slave"]:
            await asyncio.sleep(0.2)
    assert await bench.ports() == [7]
    await old.southbound.close()
    await asyncio.sleep(1.5)  # it tries to connect again meanwhile
    assert await bench.ports() == [7]
    assert new.southbound.attending(NETWORK.datapath)
    await new.southbound.take_over(2)
    assert await bench.ports() == [7, 9]
