"""What an agent knows of machines on their way after it was restarted, and what it settles with the other one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from followme.agent.hooks import LiveHooks
from followme.agent.network import SiteNetwork
from followme.domain import Migration, MigrationState
from followme.migration.host import MigrationError
from followme.migration.recovery import Verdict
from followme.remote.client import Client
from followme.xtr.router import TunnelRouter

from .fake import ASK, EID, MAC, OURS, SPEC, THEIRS, Router, Site, Target

CAME = Migration("m1", "vm1", "dc1", "dc2", "live", MigrationState.RELEASED, 1.0)
WENT = Migration("m1", "vm1", "dc2", "dc1", "live", MigrationState.SWITCHED, 1.0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "agent.db")
    yield made
    made.store.close()


def restarted(site: Site) -> SiteNetwork:
    """The same router and store, and another agent."""
    async def connect(name: str) -> Client:
        return cast(Client, site.target)

    site.network = SiteNetwork("dc2", cast(TunnelRouter, site.router), OURS, site.store, connect)
    site.network.restore()
    site.done()
    return site.network


# ---- the target was restarted


async def test_what_was_expected_is_so_again(site: Site) -> None:
    await site.ask("expect", ASK)
    await restarted(site).started({"vm1"}, [EID])
    assert site.done() == []
    await site.ask("arrived", ASK)
    await site.ask("back", ASK)
    assert site.router.calls == [("claim", EID, MAC), ("switch", EID, THEIRS)]
    await site.ask("unexpect", ASK)
    assert site.done() == ["claim", "switch", "unexpect", "disarm"]
    found = site.store.migration("m1")
    assert found is not None
    assert found.state is MigrationState.FAILED


@pytest.mark.parametrize("arrived", [False, True])
async def test_what_has_no_guest_will_not_come(site: Site, arrived: bool) -> None:
    await site.ask("expect", ASK)
    if arrived:
        await site.ask("arrived", ASK)
    await restarted(site).started((), () if arrived else (EID,))
    assert site.done() == ["switch" if arrived else "unexpect", "disarm"]
    await restarted(site).started((), ())
    assert site.done() == []


async def test_what_is_taken_back_while_the_target_is_away(site: Site) -> None:
    """The source has its guest ended as soon as the target is there again."""
    await site.ask("expect", ASK)
    network = restarted(site)
    await network.started({"vm1"}, [EID])
    network.gone(SPEC)
    await asyncio.sleep(0)
    assert site.done() == ["unexpect", "disarm"]


async def test_a_way_that_nobody_knows_of_is_removed(site: Site) -> None:
    await restarted(site).started((), [EID])
    assert site.done() == ["unexpect", "disarm"]


async def test_a_machine_that_came_is_expected_no_more(site: Site) -> None:
    await site.ask("expect", ASK)
    site.store.put_migration(CAME, 2.0)  # its guest was kept
    await restarted(site).started((), ())
    assert site.done() == []
    await site.ask("arrived", ASK)  # its source did not hear the answer
    assert site.done() == []


# ---- the source was restarted, and settles


async def test_a_machine_that_runs_at_the_target(site: Site) -> None:
    site.store.put_migration(CAME, 2.0)
    site.network.runs = lambda machine: SPEC
    assert await site.ask("settled", ASK) == {"rloc": str(OURS), "runs": True}
    assert site.router.calls == [("claim", EID, MAC)]
    await site.ask("settled", ASK)
    assert site.done() == ["claim"]
    with pytest.raises(MigrationError, match="not expected"):
        await site.ask("back", ASK)  # it is not the source's any more


async def test_a_machine_that_has_gone_on_from_the_target(site: Site) -> None:
    site.store.put_migration(CAME, 2.0)
    site.network.know("vm1", EID, MAC)
    assert await site.ask("settled", ASK) == {"rloc": str(OURS), "runs": False}
    assert site.done() == []
    await site.ask("expect", {**ASK, "migration": "m2"}, "dc3")  # and it can come again
    assert site.done() == ["expect", "arm", "prefetch"]


@pytest.mark.parametrize(("change", "peer"), [
    ({}, "dc3"), ({"migration": "m2"}, "dc1"), ({"machine": "vm2"}, "dc1"), ({"eid": "10.1.0.9"}, "dc1"),
    ({"mac": "02:fc:00:00:e0:09"}, "dc1"), ({"migration": None}, "dc1"),
])  # fmt: skip
async def test_who_did_not_carry_it_settles_nothing(site: Site, change: dict[str, str], peer: str) -> None:
    site.store.put_migration(CAME, 2.0)
    site.network.know("vm1", EID, MAC)
    site.network.runs = lambda machine: SPEC
    with pytest.raises(MigrationError):
        await site.ask("settled", {**ASK, **change}, peer)
    assert site.done() == []


@pytest.mark.parametrize("state", [MigrationState.PREPARED, MigrationState.FAILED])
async def test_a_migration_that_did_not_end_well_settles_nothing(site: Site, state: MigrationState) -> None:
    await site.ask("expect", ASK)
    if state is MigrationState.FAILED:
        await site.ask("unexpect", ASK)
    site.done()
    with pytest.raises(MigrationError, match="has not come to dc2 from dc1"):
        await site.ask("settled", ASK)
    assert site.done() == []


@pytest.mark.parametrize(("runs", "local", "calls"), [
    (True, True, ["switch", "release", "smr"]), (True, False, ["switch", "release", "smr"]),
    # It has gone on: a route that the map system has told of since is better than the one to the target.
    (False, False, ["release", "smr"]), (False, True, ["switch", "release", "smr"]),
])  # fmt: skip
async def test_where_the_source_sends_what_still_comes(
    site: Site, runs: bool, local: bool, calls: list[str]
) -> None:
    site.network.know("vm1", EID, MAC)
    site.target = Target(runs)
    if local:
        site.router.here.add(EID)
    await site.network.settled(WENT, SPEC, Verdict.FINISH_AT_TARGET)
    assert [(method, params["migration"]) for method, params in site.target.calls] == [("settled", "m1")]
    assert site.done() == calls


async def test_a_machine_that_stayed_is_expected_at_the_target_no_more(site: Site) -> None:
    site.network.know("vm1", EID, MAC)
    site.target = Target(False)
    await site.network.settled(WENT, SPEC, Verdict.RESUME_AT_SOURCE)
    assert [(method, params["migration"]) for method, params in site.target.calls] == [("unexpect", "m1")]
    assert site.done() == ["claim", "disarm"]


# ---- a full disk at the source


@pytest.mark.parametrize("full", [False, True])
async def test_a_machine_does_not_leave_unless_that_is_written(full: bool) -> None:
    router, target = Router(), Target(True)
    router.full = full
    hooks = LiveHooks(cast(TunnelRouter, router), cast(Client, target), OURS, "m1", "vm1", EID, MAC)
    if full:
        with pytest.raises(MigrationError, match=r"vm1 cannot leave: .*No space left"):
            await hooks.prepare()
    else:
        await hooks.prepare()
    await hooks.rollback("enough")
    assert [call[0] for call in router.calls] == (["disarm"] if full else ["arm", "disarm"])
    asked = [(method, params["migration"]) for method, params in target.calls]
    assert asked == [("expect", "m1"), ("unexpect", "m1")]
