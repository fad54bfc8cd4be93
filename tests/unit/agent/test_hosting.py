"""A host's agent in a federation: its file, what it tells its controller, and what it takes from peers."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest

from followme.agent.carrying import Carrying
from followme.agent.federated_hooks import FederatedHooks
from followme.agent.host_config import check, load, load_operator
from followme.agent.host_network import HostNetwork
from followme.config.document import ConfigError
from followme.domain import Migration, MigrationState
from followme.federation.hosts import HostClient, HostRequest, decode
from followme.federation.memory import MemoryHub
from followme.federation.orders import Carry, CarryAnswer, decode_answer
from followme.migration.host import MachineSpec, MigrationError
from followme.migration.mover import Result
from followme.migration.recovery import Verdict
from followme.remote.client import Client
from followme.remote.server import Caller
from followme.store import Store

EXAMPLES = Path(__file__).parents[3] / "examples"
VM, MAC = IPv4Address("10.1.0.5"), bytes.fromhex("02fc0000e001")
SPEC = MachineSpec(name="vm1", mac=MAC, memory_bytes=1 << 27, kernel=Path("/k"), initrd=Path("/i"), cmdline="")
MOVE = Migration("m1", "vm1", "dc1", "dc2", "live", MigrationState.PLANNED, 0.0)
RESULT = Result("live", 0.02, 3.0, 0.03, 1000, 4, 0)
EXPECT = {"migration": "m1", "machine": "vm1", "identifier": str(VM), "mac": MAC.hex(":")}
RIGHT: dict[str, Any] = {
    "federation": {
        "domain": "alpha", "host": "dc1", "network": "dc1", "bus": "nats://192.0.2.9:4222", "user": "alpha.dc1",
        "password_file": "/etc/followme/bus.password",
    },
    "host": {
        "bridge": "br0", "uplink": "uplink", "management_address": "192.0.2.26", "run_dir": "/run/followme",
        "images": ["/var/lib/followme/images"],
    },
    "control": {"peers": {"dc2": {"role": "agent", "key_file": "/etc/followme/k", "address": "192.0.2.30"}}},
    "machines": [{
        "name": "vm1", "mac": MAC.hex(":"), "address": str(VM), "kernel": "/var/lib/followme/images/k",
        "initrd": "/var/lib/followme/images/i",
    }],
}  # fmt: skip


def test_a_right_file() -> None:
    config = check(RIGHT, "host.yaml")
    assert (config.federation.network, config.machines[0].address) == ("dc1", VM)


@pytest.mark.parametrize(("change", "says"), [
    (lambda data: data["federation"].update(bus="memory"), "federation.bus: memory reaches nobody"),
    (lambda data: data["federation"].update(bus="nats://u:p@192.0.2.9"), "federation.bus"),
    (lambda data: data["federation"].pop("password_file"), "federation.password_file: missing"),
    (lambda data: data["control"].update(peers={"dc1": data["control"]["peers"]["dc2"]}), "peers.dc1: that is"),
    (lambda data: data["control"]["peers"]["dc2"].update(role="controller"), "control.peers.dc2.role"),
    (lambda data: data["machines"].append(data["machines"][0]), "machines[1].name: name vm1 stands already"),
    (lambda data: data["machines"][0].update(kernel="/else/k"), "machines[0].kernel: /else/k is in none of"),
    (lambda data: data.update(router={}), "router: unknown key"),
])  # fmt: skip
def test_what_is_wrong_is_named(change: Callable[[dict[str, Any]], object], says: str) -> None:
    data = copy.deepcopy(RIGHT)
    change(data)
    with pytest.raises(ConfigError) as error:
        check(data, "host.yaml")
    assert any(says in problem for problem in error.value.problems), error.value.problems


def test_the_examples_are_right() -> None:
    config = load(EXAMPLES / "agent-host.yaml")
    assert sorted(config.control.peers) == ["dc2", "dc3"]
    assert load_operator(EXAMPLES / "operator.yaml").federation.user == "alpha.operator"


def test_an_operators_file(tmp_path: Path) -> None:
    file = tmp_path / "operator.yaml"
    member = "domain: alpha, host: operator, bus: 'nats://192.0.2.9:4222', user: alpha.operator, password_file: /p"
    file.write_text(f"federation: {{{member}}}\n")
    assert load_operator(file).federation.host == "operator"


class Controller:
    """Notes what it is asked, and refuses what it is told to."""

    def __init__(self) -> None:
        self.hub = MemoryHub()
        self.asked: list[HostRequest] = []
        self.refuses: dict[str, str] = {}
        self.client = HostClient(self.hub.host_bus("alpha", "dc1"))

    async def start(self) -> None:
        await self.hub.bus("alpha").serve_hosts(self._receive)

    async def _receive(self, host: str, payload: bytes) -> bytes:
        request = decode(payload)
        self.asked.append(request)
        return b'["%s"]' % self.refuses.get(request.phase, "").encode()

    @property
    def phases(self) -> list[str]:
        return [request.phase for request in self.asked]


class Peer:
    """The target's agent."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def call(self, method: str, params: dict[str, Any], timeout: float) -> None:
        self.calls.append((method, params))


def network(controller: Controller, tmp_path: Path) -> HostNetwork:
    made = HostNetwork("dc1", controller.client, Store(tmp_path / "agent.db"))
    made.know("vm1", VM, MAC)
    return made


async def hooks(tmp_path: Path) -> tuple[Controller, Peer, FederatedHooks]:
    controller, peer = Controller(), Peer()
    await controller.start()
    made = network(controller, tmp_path).hooks(MOVE, SPEC, cast(Client, peer))
    assert isinstance(made, FederatedHooks)
    return controller, peer, made


async def test_a_migrations_words(tmp_path: Path) -> None:
    controller, peer, made = await hooks(tmp_path)
    await made.prepare()
    assert peer.calls == [("expect", EXPECT)]
    assert controller.asked == [HostRequest("prepare", VM, "m1", "dc2")]
    await made.flip()
    await made.commit()
    await made.release()
    assert controller.phases == ["prepare", "flipped", "released"]


async def test_a_flip_that_was_not_heard_of_is_made_up_for(tmp_path: Path) -> None:
    controller, _, made = await hooks(tmp_path)
    await made.prepare()
    await made.commit()
    assert controller.phases == ["prepare", "flipped"]


async def test_what_home_denies_stays(tmp_path: Path) -> None:
    controller, _, made = await hooks(tmp_path)
    controller.refuses["prepare"] = "the pool of dc2 is exhausted"
    with pytest.raises(MigrationError, match=r"vm1 cannot go to dc2: .*the pool of dc2 is exhausted"):
        await made.prepare()
    await made.rollback("denied")
    assert controller.phases == ["prepare", "aborted"]


async def test_what_was_never_asked_for_is_not_taken_back(tmp_path: Path) -> None:
    controller, _, made = await hooks(tmp_path)
    await made.rollback("the target is away")
    assert controller.phases == []


async def test_a_refusal_for_good_does_not_keep_the_source_waiting(tmp_path: Path) -> None:
    controller, _, made = await hooks(tmp_path)
    controller.refuses = {"flipped": "the node has gone on", "released": "the node has gone on"}
    await made.prepare()
    await made.commit()
    await made.release()
    assert controller.phases == ["prepare", "flipped", "released"]


@pytest.mark.parametrize(("verdict", "phases"), [
    (Verdict.FINISH_AT_TARGET, ["flipped", "released"]), (Verdict.RESUME_AT_SOURCE, ["aborted"]),
])  # fmt: skip
async def test_after_a_crash(tmp_path: Path, verdict: Verdict, phases: list[str]) -> None:
    controller = Controller()
    await controller.start()
    await network(controller, tmp_path).settled(MOVE, SPEC, verdict)
    assert controller.phases == phases


async def test_after_a_crash_without_a_controller_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("followme.agent.host_network.ASK_S", 0.3)
    with pytest.raises(MigrationError, match="no controller of the domain has been told"):
        await network(Controller(), tmp_path).settled(MOVE, SPEC, Verdict.RESUME_AT_SOURCE)


def caller(peer: str = "dc1") -> Caller:
    return Caller(peer, lambda value: None)


async def test_who_is_expected_is_known_after_a_restart_and_said_to_have_arrived(tmp_path: Path) -> None:
    controller = Controller()
    await controller.start()
    target = HostNetwork("dc2", controller.client, Store(tmp_path / "agent.db"))
    target.carried = lambda machine, peer, migration: (machine, peer, migration) == ("vm1", "dc1", "m1")
    await target.handlers()["expect"](EXPECT, caller())
    target.here(SPEC)
    await asyncio.sleep(0.05)
    assert controller.asked == [HostRequest("arrived", VM, "m1", "dc2", MAC)]
    target._store.close()
    again = HostNetwork("dc2", controller.client, Store(tmp_path / "agent.db"))
    assert again.identifier("vm1") == VM
    again.here(SPEC)
    await asyncio.sleep(0.05)
    assert controller.asked[1].migration.startswith("start-")


@pytest.mark.parametrize(("params", "says"), [
    ({"migration": "m2"}, "dc1 is not carrying vm1"),
    ({"identifier": "10.1.0.6"}, "vm1 is at dc2 already"),
    ({"machine": "vm2"}, "vm1 is at dc2 already, so vm2"),
    ({"identifier": 5}, "is no IPv4 address"),
    ({"identifier": "fd00::1"}, "is no IPv4 address"),
    ({"mac": "x"}, "no MAC"),
])  # fmt: skip
async def test_nobody_is_announced_whom_nobody_carries(tmp_path: Path, params: dict[str, Any], says: str) -> None:
    target = HostNetwork("dc2", Controller().client, Store(tmp_path / "agent.db"))
    target.carried = lambda machine, peer, migration: migration == "m1"
    target.know("vm1", VM, MAC)
    if "migration" not in params:
        target.held = lambda machine: machine == "vm1"
    with pytest.raises(MigrationError, match=says):
        await target.handlers()["expect"]({**EXPECT, **params}, caller())
    assert target.identifier("vm1") == VM


class Site:
    """A site's machines, of which one is carried."""

    def __init__(self) -> None:
        self.running = {"vm1": None}
        self.carried: list[tuple[str, str]] = []
        self.go = asyncio.Event()
        self.error: MigrationError | None = None

    async def carry(self, machine: str, network: str) -> Result:
        self.carried.append((machine, network))
        await self.go.wait()
        if self.error is not None:
            raise self.error
        del self.running[machine]
        return RESULT


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> tuple[Site, Callable[[Carry], Any]]:
    monkeypatch.setattr("followme.agent.carrying.WAIT_S", 0.05)
    made = Site()
    carrying = Carrying("dc1", made.carry, lambda: made.running, {"vm1": VM}.__getitem__)

    async def ask(order: Carry) -> CarryAnswer:
        return decode_answer(await carrying.receive(order.encode()))

    return made, ask


async def test_an_order_is_carried_out_once(site: tuple[Site, Callable[[Carry], Any]]) -> None:
    made, ask = site
    order = Carry("o1", "vm1", "dc2", VM)
    assert [(await ask(order)).state for _ in range(3)] == ["running"] * 3
    made.go.set()
    answer = await ask(order)
    assert (answer.state, answer.source, answer.figures["pause_s"]) == ("done", "dc1", 0.02)
    assert await ask(order) == answer, "though the machine is not here any more"
    assert made.carried == [("vm1", "dc2")]
    assert (await ask(Carry("o2", "vm1", "dc2", VM))).state == "elsewhere"


async def test_an_order_that_fails_says_why(site: tuple[Site, Callable[[Carry], Any]]) -> None:
    made, ask = site
    made.error = MigrationError("dc2 is away")
    made.error.add_note("while rolling back: nothing")
    made.go.set()
    assert (await ask(Carry("o1", "vm1", "dc2", VM))).text == "dc2 is away; while rolling back: nothing"


async def test_orders_for_nothing(site: tuple[Site, Callable[[Carry], Any]]) -> None:
    made, ask = site
    assert (await ask(Carry("o1", "vm1", "dc1", VM))).state == "done", "it is there"
    assert (await ask(Carry("o2", "vm1", "dc2", IPv4Address("10.1.0.6")))).state == "elsewhere"
    assert made.carried == []
