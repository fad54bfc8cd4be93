"""What an agent does for its machines at the tunnel router: asked by peers, after a crash, against other claims."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, cast

import pytest

from followme.agent import network as rules
from followme.agent.network import SiteNetwork
from followme.migration.host import MachineSpec, MigrationError
from followme.remote.client import Client
from followme.remote.server import Caller
from followme.store import Store
from followme.xtr.router import TunnelRouter

EID, OURS, THEIRS = IPv4Address("10.1.0.5"), IPv4Address("192.0.2.6"), IPv4Address("192.0.2.2")
MAC = bytes.fromhex("02fc0000e001")
ASK = {"machine": "vm1", "eid": str(EID), "mac": MAC.hex(":"), "rloc": str(THEIRS)}
SPEC = MachineSpec(name="vm1", mac=MAC, memory_bytes=1 << 27, kernel=Path("/k"), initrd=Path("/i"), cmdline="")


class Router:
    """Notes what it is asked to do."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.here: set[IPv4Address] = set()

    def local(self, eid: IPv4Address) -> bool:
        return eid in self.here

    def claim(self, eid: IPv4Address, mac: bytes | None = None) -> None:
        self.here.add(eid)
        self.calls.append(("claim", eid, mac))

    def switch(self, eid: IPv4Address, rloc: IPv4Address) -> None:
        self.here.discard(eid)
        self.calls.append(("switch", eid, rloc))

    def prefetch(self, prefixes: Iterable[IPv4Network]) -> None:
        self.calls.append(("prefetch", *prefixes))

    async def expect(self, eid: IPv4Address, mac: bytes) -> None:
        self.calls.append(("expect", eid, mac))

    async def unexpect(self, eid: IPv4Address) -> None:
        self.calls.append(("unexpect", eid))

    async def arm(self, eid: IPv4Address, mac: bytes, rloc: IPv4Address) -> None:
        self.calls.append(("arm", eid, rloc))

    async def disarm(self, eid: IPv4Address) -> None:
        self.calls.append(("disarm", eid))


class Peer:
    def __init__(self, name: str) -> None:
        self.peer = name


class Site:
    def __init__(self, path: Path) -> None:
        async def connect(site: str) -> Client:
            raise NotImplementedError

        self.store = Store(path)
        self.router = Router()
        self.network = SiteNetwork("dc2", cast(TunnelRouter, self.router), OURS, self.store, connect)

    async def ask(self, method: str, params: dict[str, Any], peer: str = "dc1") -> Any:
        handlers = {**self.network.handlers(), **self.network.controller_handlers()}
        return await handlers[method](params, cast(Caller, Peer(peer)))

    def done(self) -> list[object]:
        calls, self.router.calls = self.router.calls, []
        return [call[0] for call in calls]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "agent.db")
    yield made
    made.store.close()


async def test_a_machine_is_expected_and_arrives(site: Site) -> None:
    talks_to = ["10.3.0.10/32", "10.4.0.0/24", "nonsense", None, "10.3.0.1/8"]
    answer = await site.ask("expect", {**ASK, "talks_to": talks_to})
    assert answer == {"rloc": str(OURS)}
    assert ("prefetch", IPv4Network("10.3.0.10/32"), IPv4Network("10.4.0.0/24")) in site.router.calls
    assert site.done() == ["expect", "arm", "prefetch"]
    await site.ask("arrived", ASK)
    await site.ask("arrived", ASK)  # sent again
    assert site.done() == ["claim"]
    site.network.here(SPEC)
    await asyncio.sleep(0)
    assert site.done() == ["claim", "disarm"]


async def test_a_machine_that_does_not_come(site: Site) -> None:
    await site.ask("expect", ASK)
    await site.ask("arrived", ASK)
    site.done()
    await site.ask("back", ASK)
    assert site.router.calls == [("switch", EID, THEIRS)]
    await site.ask("unexpect", ASK)
    assert site.done() == ["switch", "unexpect", "disarm"]
    await site.ask("unexpect", ASK)  # nothing is left to do
    assert site.done() == []


@pytest.mark.parametrize("method", ["arrived", "back", "unexpect"])
async def test_only_who_announced_a_machine_may_speak_of_it(site: Site, method: str) -> None:
    await site.ask("expect", ASK)
    site.done()
    with pytest.raises(MigrationError, match="not expected at dc2 from wlan2"):
        await site.ask(method, ASK, "wlan2")
    with pytest.raises(MigrationError, match="from dc1 already"):
        await site.ask("expect", ASK, "wlan2")
    assert site.done() == []


@pytest.mark.parametrize("change", [
    {"eid": "10.1.0"}, {"eid": "fd00::1"}, {"eid": None}, {"eid": 7}, {"mac": "02"}, {"machine": "a/b"},
    {"rloc": "x"},
])  # fmt: skip
async def test_bad_questions(site: Site, change: dict[str, object]) -> None:
    with pytest.raises(MigrationError):
        await site.ask("expect", {**ASK, **change})
    assert site.done() == []


async def test_nobody_takes_the_eid_of_a_machine_that_is_here(site: Site) -> None:
    site.router.here.add(EID)
    with pytest.raises(MigrationError, match="at dc2 already"):
        await site.ask("expect", ASK)


async def test_a_machine_that_runs_here_is_claimed_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "CLAIM_AGAIN_S", 0.01)
    site.network.know("vm1", EID, MAC)
    site.network.runs = lambda machine: SPEC if machine == "vm1" else None
    for _ in range(rules.MAX_CLAIMS):
        site.router.here.clear()
        site.network.departed(EID)
        await asyncio.sleep(0.03)
        assert site.done() == ["claim"]
    site.router.here.clear()
    site.network.departed(EID)  # too often: then the map server decides
    await asyncio.sleep(0.03)
    assert site.done() == []


async def test_what_has_left_is_not_claimed_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "CLAIM_AGAIN_S", 0.01)
    site.network.know("vm1", EID, MAC)
    site.network.departed(EID)  # it does not run here
    site.network.runs = lambda machine: SPEC
    site.network.departed(IPv4Address("10.3.0.10"))  # a user
    site.network.departed(EID)
    site.network.runs = lambda machine: None  # it is being carried now
    await asyncio.sleep(0.03)
    assert site.done() == []
