"""What an agent tells its router's rules about its machines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from followme.agent.config import check
from followme.agent.serve import Agent
from followme.remote.machines import SiteMachines

from .document import RIGHT


def test_which_machines_are_here() -> None:
    agent = Agent(check(RIGHT, "agent.yaml"))
    guest = SimpleNamespace(peer="dc2", migration="m1")
    machines = SimpleNamespace(
        running={"vm1": SimpleNamespace(spec="a spec"), "vm2": SimpleNamespace(spec="another")},
        carried_to={"vm2": "dc2", "vm3": "dc2"}, hypervisor=SimpleNamespace(guests={"vm4": guest}),
    )  # fmt: skip
    assert not agent._held("vm1")
    assert not agent._carried("vm4", "dc2", "m1")
    agent.machines = cast(SiteMachines, machines)
    assert [agent._held(name) for name in ("vm1", "vm2", "vm3", "vm4")] == [True, True, True, False]
    assert [bool(agent._runs(name)) for name in ("vm1", "vm2", "vm3", "vm4")] == [True, False, False, False]
    assert agent._carried("vm4", "dc2", "m1")
    for asked in (("vm4", "dc3", "m1"), ("vm4", "dc2", "m2"), ("vm1", "dc2", "m1")):
        assert not agent._carried(*asked)
