"""Orders to carry a machine: who may give one, where it goes, and that it is carried out once."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from followme.domain import Network, NetworkKind
from followme.federation.memory import MemoryHub
from followme.federation.orders import (
    Carry,
    CarryAnswer,
    OrderBus,
    OrderDesk,
    OrderError,
    ToDomain,
    ToHost,
    carry,
    decode_answer,
    decode_order,
    is_order,
    route,
)
from followme.federation.registry import Domain, Registry

VM = IPv4Address("10.1.0.5")
KINDS = {"dc1": NetworkKind.DATACENTRE, "dc2": NetworkKind.DATACENTRE, "dc3": NetworkKind.DATACENTRE,
         "far": NetworkKind.ACCESS}  # fmt: skip
OWNERS = {"dc1": "alpha", "dc2": "beta", "dc3": "gamma", "far": "delta"}


def network(number: int, name: str) -> Network:
    prefix = IPv4Network(f"10.{number}.0.0/24")
    pool = IPv4Network(f"10.{number}.0.128/25")
    return Network(name, KINDS[name], 0, 1, bytes(6), prefix, prefix, prefix[1], pool)


def registry(domain: str) -> Registry:
    made = {owner: Domain(owner, (network(number, name),), bytes(32))
            for number, (name, owner) in enumerate(OWNERS.items(), start=1)}  # fmt: skip
    return Registry(domain, made)


def routed(order: Carry, sender: str, domain: str, here: str | None) -> ToHost | ToDomain | CarryAnswer:
    named = {"vm1": VM}.get if domain == "alpha" else lambda name: None
    return route(order, sender, registry(domain), named, lambda identifier: here)


ORDER = Carry("o1", "vm1", "dc3")
FULL = Carry("o1", "vm1", "dc3", VM)


def test_home_brings_it_to_where_the_machine_is() -> None:
    assert routed(ORDER, "alpha", "alpha", "dc1") == ToHost("dc1", FULL)
    assert routed(ORDER, "alpha", "alpha", "dc2") == ToDomain("beta", FULL)
    assert routed(FULL, "alpha", "beta", "dc2") == ToHost("dc2", FULL)


def test_a_copy_goes_to_the_host_that_has_it_wherever_the_machine_is_by_then() -> None:
    again = Carry("o1", "vm1", "dc3", VM, "dc2")
    assert routed(again, "alpha", "alpha", "dc3") == ToDomain("beta", again)
    assert routed(again, "alpha", "beta", "dc3") == ToHost("dc2", again)


@pytest.mark.parametrize(("order", "sender", "domain", "here", "says"), [
    (Carry("o1", "vm1", "far"), "alpha", "alpha", "dc1", "far is no data centre"),
    (Carry("o1", "vm1", "dc9"), "alpha", "alpha", "dc1", "dc9 is no data centre"),
    (Carry("o1", "vm2", "dc3"), "alpha", "alpha", "dc1", "no machine vm2 is at home in alpha"),
    (ORDER, "gamma", "gamma", None, "no machine vm1 is at home in gamma"),
    (FULL, "gamma", "gamma", "dc1", "neither in gamma nor at home there"),
    (FULL, "gamma", "gamma", None, "neither in gamma nor at home there"),
    (FULL, "gamma", "beta", "dc2", "gamma is not home to 10.1.0.5"),
    (FULL, "delta", "alpha", "dc1", "delta is not home to 10.1.0.5"),
])  # fmt: skip
def test_who_is_refused(order: Carry, sender: str, domain: str, here: str | None, says: str) -> None:
    answer = routed(order, sender, domain, here)
    assert isinstance(answer, CarryAnswer)
    assert answer.state == "failed"
    assert says in answer.text


def test_whoever_has_the_machine_may_send_it_on_by_its_identifier() -> None:
    order = Carry("o1", str(VM), "dc3")
    assert routed(order, "beta", "beta", "dc2") == ToHost("dc2", Carry("o1", str(VM), "dc3", VM))


def test_a_domain_that_does_not_know_yet_says_again() -> None:
    for here in (None, "dc3"):
        answer = routed(FULL, "alpha", "beta", here)
        assert isinstance(answer, CarryAnswer)
        assert answer.state == "again"


class Host:
    """A host's agent that needs three questions."""

    def __init__(self, network: str) -> None:
        self.network, self.asked, self.orders = network, 0, set[str]()

    async def receive(self, payload: bytes) -> bytes:
        order = decode_order(payload)
        self.asked += 1
        self.orders.add(order.id)
        if self.asked < 3:
            return CarryAnswer("running", "on its way", self.network).encode()
        return CarryAnswer("done", "it is there", self.network, {"pause_s": 0.02}).encode()


class Realm:
    """A controller with an order desk, at which nothing else is served."""

    def __init__(self, hub: MemoryHub, domain: str, here: dict[IPv4Address, str]) -> None:
        self.own: list[bytes] = []
        bus = hub.bus(domain)
        named = {"vm1": VM}.get if domain == "alpha" else lambda name: None
        desk = OrderDesk(registry(domain), bus, named, here.get, lambda network: network)
        self.bus = OrderBus(bus, desk)

    async def start(self) -> None:
        await self.bus.serve(self._other)
        await self.bus.serve_hosts(self._other)

    async def _other(self, sender: str, payload: bytes) -> bytes:
        self.own.append(payload)
        return b"other"


async def test_over_the_bus_from_the_operator_to_the_host_and_back() -> None:
    hub, here = MemoryHub(), {VM: "dc2"}
    realms = {name: Realm(hub, name, here) for name in ("alpha", "beta")}
    for realm in realms.values():
        await realm.start()
    host = Host("dc2")
    await hub.host_bus("beta", "dc2").serve(host.receive)
    told: list[CarryAnswer] = []

    def tell(answer: CarryAnswer) -> None:
        told.append(answer)
        here[VM] = "dc3"  # it has gone on: the next copy must go to the host that carries it all the same

    answer = await carry(hub.host_bus("alpha", "operator"), ORDER, tell)
    assert (answer.state, dict(answer.figures)) == ("done", {"pause_s": 0.02})
    assert host.orders == {"o1"}
    assert [one.state for one in told] == ["running", "running"]
    assert realms["alpha"].own == realms["beta"].own == []
    assert await hub.host_bus("alpha", "dc1").request(b'["prepare"]', 1) == b"other"
    assert await realms["alpha"].bus.request("beta", b"[1,[]]", 1) == b"other"


async def test_a_host_may_not_order() -> None:
    hub = MemoryHub()
    await Realm(hub, "alpha", {VM: "dc1"}).start()
    answer = decode_answer(await hub.host_bus("alpha", "dc1").request(ORDER.encode(), 1))
    assert (answer.state, answer.text) == ("failed", "dc1 is no operator")


async def test_a_controller_that_is_away_is_asked_again() -> None:
    hub = MemoryHub()
    realm = Realm(hub, "alpha", {VM: "dc1"})
    asking = asyncio.create_task(carry(hub.host_bus("alpha", "operator"), ORDER))
    await asyncio.sleep(0.05)
    assert not asking.done()
    await realm.start()
    host = Host("dc1")
    await hub.host_bus("alpha", "dc1").serve(host.receive)
    assert (await asyncio.wait_for(asking, 5)).state == "done"


async def test_a_host_that_is_away_is_asked_again() -> None:
    hub = MemoryHub()
    await Realm(hub, "alpha", {VM: "dc1"}).start()
    answer = decode_answer(await hub.host_bus("alpha", "operator").request(ORDER.encode(), 1))
    assert answer.state == "again"


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b'["carry",' + tail))
def test_no_octets_raise_anything_else(payload: bytes) -> None:
    for decode in (decode_order, decode_answer):
        try:
            decode(payload)
        except OrderError:
            continue
        assert is_order(payload)


@given(st.builds(
    Carry, st.text("abc-1", min_size=1, max_size=64), st.text("vm.1", min_size=1, max_size=40),
    st.text("dc1", min_size=1, max_size=32), st.ip_addresses(v=4).filter(int) | st.none(),
    st.text("dc", max_size=9),
))  # fmt: skip
def test_orders_survive_the_way(order: Carry) -> None:
    assert is_order(order.encode())
    assert decode_order(order.encode()) == order
