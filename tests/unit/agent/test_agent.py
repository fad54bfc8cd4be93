"""What an agent tells its router's rules about its machines."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from followme.agent.config import check
from followme.agent.parts import AgentError
from followme.agent.serve import Agent
from followme.remote.machines import SiteMachines

from ..config.document import changed
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


async def test_a_control_port_that_is_taken_ends_the_start_before_anything_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        control = {"address": "127.0.0.1", "port": port}
        agent = Agent(check(changed(
            (("control",), control), (("store",), str(tmp_path / "agent.db")), of=RIGHT
        ), "agent.yaml"))  # fmt: skip
        with pytest.raises(AgentError, match=f"control: 127.0.0.1 port {port}: Address already in use"):
            await agent.__aenter__()
    assert list(tmp_path.iterdir()) == []
