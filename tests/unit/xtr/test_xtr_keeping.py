"""What a tunnel router writes down: in time, in a thread, or not acted on; and one router for one state."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from followme.lisp import EidPrefix
from followme.xtr import keeper as keeper_module
from followme.xtr.config import RouterConfig
from followme.xtr.control import Control
from followme.xtr.errors import DataPlaneError
from followme.xtr.keeper import StateKeeper
from followme.xtr.outputs import Way
from followme.xtr.residents import Resident
from followme.xtr.router import RouterError, TunnelRouter
from followme.xtr.state import State, StateFile

from .play import MAC, OTHER, OWN_MAC, POLICY, SITE, eid

EID = IPv4Address("10.4.0.7")
RLOC = "127.0.0.77"


class Plane:
    """A data plane that only says what it was told."""

    lan_mac = OWN_MAC
    lan_addresses = ()

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        async def later() -> dict[EidPrefix, Way]:
            return {}

        def tell(*_: object, **__: object) -> Any:
            self.told.append(name)
            return later() if name in ("start", "admit", "arm", "disarm", "forget_arms", "close") else None

        return tell


def router(directory: Path, plane: Plane) -> TunnelRouter:
    # Not ``check``: another router could not reach this one.
    config = RouterConfig.model_validate({
        "site": "here", "rlocs": [{"address": RLOC}], "space": ["10.0.0.0/8"], "lan": "lo",
        "map_servers": [{"address": "127.0.0.78", "key": "a key for the stage"}], "state_dir": str(directory),
    })  # fmt: skip
    made = TunnelRouter(config, plane=plane)  # type: ignore[arg-type]
    made.control = Control(SITE, POLICY, 1_750_000_000.0, 1000.0, lambda: 1)
    return made


async def test_a_machine_is_not_expected_nor_armed_if_that_cannot_be_written(tmp_path: Path) -> None:
    full, plane = tmp_path / "full", Plane()
    full.write_text("not a directory")
    made = router(full, plane)
    made.control.residents.put(Resident(eid("10.4.0.8/32"), MAC, pinned=True))
    for target in (EID, IPv4Address("10.4.0.8")):
        with pytest.raises(RouterError, match=r"cannot be expected here: .*cannot be written"):
            await made.expect(target, MAC)
        with pytest.raises(RouterError, match=r"cannot be carried: .*cannot be written"):
            await made.arm(target, MAC, OTHER)
    assert plane.told == []
    assert list(made.control.residents.here.values()) == [Resident(eid("10.4.0.8/32"), MAC, pinned=True)]
    full.unlink()  # there is room again
    await made.expect(EID, MAC)
    await made.arm(EID, MAC, OTHER)
    assert {"expect", "arm"} <= set(plane.told)
    state = StateFile(full, "here").load(0)
    assert (Resident(eid("10.4.0.7/32"), MAC, True, True) in state.residents, len(state.arms)) == (True, 1)


async def test_a_claim_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, gate = router(tmp_path, Plane()), threading.Event()
    save = StateFile.save
    monkeypatch.setattr(StateFile, "save", lambda self, state: gate.wait(10.0) and save(self, state))
    made._sockets = type("Nowhere", (), {"send": lambda self, datagram: None})()
    made.claim(EID, MAC)
    await asyncio.sleep(0.05)
    assert not made._file.path.exists()
    assert made.local(EID)
    gate.set()
    await made._keeper.now()
    assert made._file.load(0).residents == (Resident(eid("10.4.0.7/32"), MAC, True),)


async def test_writes_follow_changes_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, state = StateFile(tmp_path, "here"), [State(1)]
    running, written = [0], []
    save = StateFile.save

    def watched(self: StateFile, one: State) -> None:
        running[0] += 1
        assert running[0] == 1
        save(self, one)
        written.append(one.nonce)
        running[0] -= 1

    monkeypatch.setattr(StateFile, "save", watched)
    keeper = StateKeeper(file, lambda: state[0])
    for number in range(2, 30):
        state[0] = State(number)
        keeper.later()
        if number % 3 == 0:
            await keeper.now()
            assert file.load(0) == state[0]
    await asyncio.gather(*(keeper.now() for _ in range(5)))
    assert file.load(0) == State(29)
    assert written == sorted(set(written))


async def test_a_full_disk_is_told_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper_module, "RETRY_S", 0.01)
    full, number = tmp_path / "full", [0]
    full.write_text("not a directory")
    keeper = StateKeeper(StateFile(full, "here"), lambda: State(number[0]))
    with caplog.at_level(logging.INFO):
        for number[0] in range(20):
            keeper.later()
            await asyncio.sleep(0.015)
        assert len(caplog.records) == 1
        full.unlink()
        keeper.later()
        await asyncio.sleep(0.1)
    assert "written again" in caplog.text
    assert StateFile(full, "here").load(0) == State(19)


# -- one router -----------------------------------------------------------------------------------------------


async def test_two_routers_with_one_state(tmp_path: Path) -> None:
    """The second goes without having touched what the first has in the kernel."""
    plane, first = Plane(), StateFile(tmp_path, "here")
    first.lock()
    with pytest.raises(DataPlaneError, match="held by another tunnel router"):
        await router(tmp_path, plane).start()
    assert plane.told == []
    first.unlock()
    second = StateFile(tmp_path, "here")
    second.lock()
    second.unlock()


async def test_two_routers_with_one_locator(tmp_path: Path) -> None:
    plane = Plane()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((RLOC, 4342))
        with pytest.raises(DataPlaneError, match="is another xTR there"):
            await router(tmp_path, plane).start()
    assert plane.told == []
    StateFile(tmp_path, "here").lock()  # it was let go


def test_nonces_go_on_where_the_clock_has_gone_back() -> None:
    """A map server refuses the subscription of a router whose nonces are not above those of its last run."""
    before = Control(SITE, POLICY, 1_750_003_600.0, 1000.0, lambda: 1)
    before.itr.ask(eid("10.1.0.0/24"), 1000.0)
    after = Control(SITE, POLICY, 1_750_000_000.0, 1000.0, lambda: 1, before.nonces.last)
    assert after.nonces.next(1000.0) > before.nonces.last
    assert Control(SITE, POLICY, 1_750_000_000.0, 1000.0, lambda: 1).nonces.next(1000.0) < before.nonces.last


@pytest.mark.parametrize("value", [-1, 1 << 64, "1", 1.5])
def test_a_nonce_that_is_none_is_damage(tmp_path: Path, value: object) -> None:
    file = StateFile(tmp_path, "here")
    file.save(State(5))
    data = json.loads(file.path.read_text())
    file.path.write_text(json.dumps({**data, "request_nonce": value}))
    with pytest.raises(DataPlaneError, match="damaged"):
        file.load(0)
