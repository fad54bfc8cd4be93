"""What an agent does for its machines at the tunnel router: asked by peers, after a crash, against other claims."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from followme.agent import claims as rules
from followme.agent.network import SiteNetwork
from followme.domain import Migration
from followme.migration.host import MigrationError
from followme.store import StoreError

from .fake import ASK, EID, MAC, OURS, SPEC, THEIRS, Site

EID2 = IPv4Address("10.1.0.6")


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


async def test_one_that_is_not_expected_in_the_end_keeps_its_eid(site: Site) -> None:
    site.network.know("vm1", EID2, MAC)
    site.router.full = True
    with pytest.raises(MigrationError, match="cannot be written"):
        await site.ask("expect", ASK)
    assert site.network.identifier("vm1") == EID2
    site.router.full = False
    await site.ask("expect", {**ASK, "migration": "m2"})
    assert site.network.identifier("vm1") == EID


async def test_what_was_expected_before_a_restart_has_its_eid(site: Site) -> None:
    await site.ask("expect", ASK)
    site.store.delete_node("vm1")  # as if the crash had come before it was stored
    site.network = SiteNetwork("dc2", site.network.router, OURS, site.store, site.network._connect)
    site.network.restore()
    assert site.network.identifier("vm1") == EID


async def test_a_machine_that_got_another_name_is_claimed_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "CLAIM_AGAIN_S", 0.0)
    for name in ("old", "vm1", "older"):
        site.network.know(name, EID, MAC)
    site.network.runs = lambda machine: SPEC if machine == "vm1" else None
    site.network.departed(EID)
    await asyncio.sleep(0.05)
    assert site.router.calls == [("claim", EID, MAC)]


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


@pytest.mark.parametrize("method", ["arrived", "back", "unexpect"])
async def test_only_the_migration_that_is_under_way_counts(site: Site, method: str) -> None:
    await site.ask("expect", ASK)
    site.done()
    with pytest.raises(MigrationError, match="in that migration"):
        await site.ask(method, {**ASK, "migration": "m0"})
    assert site.done() == []


@pytest.mark.parametrize("change", [
    {"eid": "10.1.0"}, {"eid": "fd00::1"}, {"eid": None}, {"eid": 7}, {"mac": "02"}, {"machine": "a/b"},
    {"rloc": "x"}, {"migration": None}, {"migration": ""}, {"migration": "m" * 65},
])  # fmt: skip
async def test_bad_questions(site: Site, change: dict[str, object]) -> None:
    with pytest.raises(MigrationError):
        await site.ask("expect", {**ASK, **change})
    assert site.done() == []


async def test_nobody_takes_the_eid_of_a_machine_that_is_here(site: Site) -> None:
    site.router.here.add(EID)
    with pytest.raises(MigrationError, match="at dc2 already"):
        await site.ask("expect", ASK)


@pytest.mark.parametrize("peer", ["dc1", "wlan2"])
async def test_nobody_takes_over_a_machine_that_runs_here(site: Site, peer: str) -> None:
    """With all that a peer can know: name, EID and MAC."""
    site.network.know("vm1", EID, MAC)
    site.network.runs = lambda machine: SPEC if machine == "vm1" else None
    site.network.here(SPEC)
    site.done()
    for change in ({}, {"machine": "other"}, {"eid": "10.1.0.9"}):
        with pytest.raises(MigrationError, match="at dc2 already"):
            await site.ask("expect", {**ASK, **change}, peer)
        for method in ("arrived", "back"):
            with pytest.raises(MigrationError, match="not expected"):
                await site.ask(method, {**ASK, **change}, peer)
        await site.ask("unexpect", {**ASK, **change}, peer)
    await asyncio.sleep(0)
    assert site.done() == []
    assert site.router.local(EID)
    assert site.network.identifier("vm1") == EID


async def test_a_machine_that_is_just_being_carried_away_is_not_expected(site: Site) -> None:
    site.network.know("vm1", EID, MAC)
    site.network.held = lambda machine: machine == "vm1"
    with pytest.raises(MigrationError, match="at dc2 already"):
        await site.ask("expect", ASK)


async def test_a_machine_without_a_guest_is_not_expected(site: Site) -> None:
    site.network.carried = lambda machine, peer, migration: (machine, peer, migration) == ("vm1", "dc1", "m1")
    for change, peer in (({}, "wlan2"), ({"migration": "m2"}, "dc1"), ({"machine": "vm2"}, "dc1")):
        with pytest.raises(MigrationError, match="is not carrying"):
            await site.ask("expect", {**ASK, **change}, peer)
    assert site.done() == []
    await site.ask("expect", ASK)


async def test_one_on_its_way_home_comes_though_its_eid_is_of_our_subnet(site: Site) -> None:
    site.network.know("vm1", EID, MAC)
    site.router.here.add(EID)  # nobody has told this router yet that it is elsewhere
    await site.ask("expect", ASK)
    assert site.done() == ["expect", "arm", "prefetch"]


async def test_what_cannot_be_written_is_not_expected(site: Site) -> None:
    site.router.full = True
    with pytest.raises(MigrationError, match=r"dc2 cannot expect vm1: .*No space left"):
        await site.ask("expect", ASK)
    assert site.done() == ["unexpect", "disarm"]
    with pytest.raises(MigrationError, match="not expected"):
        await site.ask("arrived", ASK)


async def test_one_that_is_given_up_while_all_is_made_ready(site: Site) -> None:
    arm = site.router.arm

    async def slow(eid: IPv4Address, mac: bytes, rloc: IPv4Address) -> None:
        await site.ask("unexpect", ASK)
        await arm(eid, mac, rloc)

    site.router.arm = slow  # type: ignore[method-assign]
    with pytest.raises(MigrationError, match="was given up"):
        await site.ask("expect", ASK)
    assert site.done() == ["expect", "unexpect", "disarm", "arm", "disarm"]


async def test_what_cannot_be_stored_is_not_expected(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(migration: Migration, at: float) -> None:
        raise StoreError("database or disk is full")

    monkeypatch.setattr(site.store, "put_migration", full)
    with pytest.raises(StoreError):
        await site.ask("expect", ASK)
    assert site.done() == []


async def test_a_machine_that_runs_here_is_claimed_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "CLAIM_AGAIN_S", 0.01)
    site.network.know("vm1", EID, MAC)
    site.network.runs = lambda machine: SPEC if machine == "vm1" else None
    for _ in range(rules.MAX_CLAIMS):
        site.router.here.clear()
        site.network.departed(EID)
        await asyncio.sleep(0.03)
        assert site.done() == ["claim"]
    other = replace(SPEC, name="vm2", mac=bytes.fromhex("02fc0000e002"))
    site.network.know("vm2", IPv4Address("10.1.0.6"), other.mac)
    site.network.runs = {"vm1": SPEC, "vm2": other}.get
    monkeypatch.setattr(rules, "CLAIMS_S", 0.4)
    site.router.here.clear()
    site.network.departed(EID)  # too often: then the map server decides, for a while
    site.network.departed(EID)
    site.network.departed(IPv4Address("10.1.0.6"))  # another one has its own bound
    await asyncio.sleep(0.03)
    assert site.router.calls == [("claim", IPv4Address("10.1.0.6"), other.mac)]
    site.done()
    await asyncio.sleep(0.5)
    assert site.router.calls == [("claim", EID, MAC)]


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
