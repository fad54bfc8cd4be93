"""What a host's agent says that it has."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from followme.agent.custody import Custodian
from followme.domain import Node, NodeKind, Placement
from followme.federation.custody import decode_answer, encode_question
from followme.migration.host import MachineSpec
from followme.remote.machines import SiteMachines
from followme.store import Store

VM, MAC = IPv4Address("10.1.0.5"), bytes.fromhex("02fc0000e001")
OTHER, ANOTHER = IPv4Address("10.1.0.6"), IPv4Address("10.1.0.7")
NODE = Node("vm1", NodeKind.MACHINE, MAC, VM, VM, "dc1")
SPEC = MachineSpec(name="vm1", mac=MAC, memory_bytes=1 << 27, kernel=Path("/k"), initrd=Path("/i"), cmdline="")


class Machines:
    """As far as they are looked at."""

    site = "dc1"

    def __init__(self) -> None:
        self.running: dict[str, Any] = {}
        self.written: dict[str, MachineSpec] = {}
        self.carried_to: dict[str, str] = {}
        self.problems: dict[str, str] = {}
        self.hypervisor = SimpleNamespace(machines=self.running, guests={}, specs=lambda: self.written)

    def run(self) -> None:
        self.running["vm1"] = SimpleNamespace(spec=SPEC)
        self.written["vm1"] = SPEC

    def carry(self, *, done: bool = False) -> None:
        self.run()
        self.carried_to["vm1"] = "dc2"
        if done:
            del self.running["vm1"], self.written["vm1"]

    def end(self) -> None:
        self.written["vm1"] = SPEC
        self.problems["vm1"] = "its QEMU ended by itself"


def _guest(machines: Machines) -> None:
    machines.hypervisor.guests["vm1"] = SimpleNamespace(spec=SPEC)


@pytest.mark.parametrize("by", ["identifier", "mac", "spec"])
@pytest.mark.parametrize(("happened", "place", "has", "says"), [
    (Machines.run, "dc1", "yes", "vm1 runs at dc1"),
    (Machines.end, "dc1", "yes", "its QEMU ended by itself"),
    (lambda machines: machines.written.update(vm1=SPEC), None, "yes", "not started yet"),
    (Machines.carry, "dc1", "unsettled", "from dc1 to dc2"),
    (lambda machines: machines.carry(done=True), "dc1", "unsettled", "from dc1 to dc2"),
    (lambda machines: machines.carry(done=True), "dc2", "no", "does not have"),
    (_guest, None, "unsettled", "on its way to dc1"),
    (_guest, "dc2", "unsettled", "on its way to dc1"),
    (lambda machines: None, "dc2", "no", "does not have"),
    (lambda machines: machines.written.update(vm1=SPEC), "dc2", "no", "does not have"),
    (lambda machines: None, "dc1", "no", "does not have"),
])  # fmt: skip
def test_what_it_has(
    tmp_path: Path, happened: Callable[[Machines], object], place: str | None, has: str, says: str, by: str
) -> None:
    machines, store = Machines(), Store(tmp_path / "agent.db")
    happened(machines)
    if by == "spec" and not (machines.running or machines.written or machines.hypervisor.guests):
        return  # without its store it knows nothing of such a machine
    if place is not None:
        store.put_placement(Placement("vm1", place, 0, IPv4Address(0), 1))
    if by != "spec":
        store.put_node(NODE)
    custodian = Custodian(cast(SiteMachines, machines), store, [])
    custody = custodian.of(OTHER if by == "mac" else VM, b"" if by == "identifier" else MAC)
    assert (custody.has, says in custody.text) == (has, True), custody
    assert custodian.of(ANOTHER, bytes.fromhex("02fc0000e002")).has == "no"
    store.close()


async def test_a_machine_of_its_file_is_its_own_before_it_is_started(tmp_path: Path) -> None:
    store = Store(tmp_path / "agent.db")
    store.put_node(NODE)
    custodian = Custodian(cast(SiteMachines, Machines()), store, ["vm1"])
    assert decode_answer(await custodian.receive(encode_question(VM, MAC))).has == "yes"
    store.put_placement(Placement("vm1", "dc2", 0, IPv4Address(0), 1))
    assert decode_answer(await custodian.receive(encode_question(VM, MAC))).has == "no"
    store.close()
