"""A restart: registrations, nonces, losers and subscriptions are as they were."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from followme.mapsystem import Gone, MapServer, Moved
from followme.mapsystem import store as store_module
from followme.mapsystem.store import GAP, MapStore
from followme.store import StoreError

from .fakes import KEYS, RLOCS, Router, answer, eid, notifies, record, server, site

WALL = 1_700_000_000.0


def restart(
    map_server: MapServer, path: Path, now: float, later: float = 0.0, nonce: int = 1 << 50
) -> MapServer:
    """Save at ``now``, and load into a new one whose clock begins at 0, ``later`` seconds after that."""
    store = MapStore(path)
    store.save(map_server, now, WALL + now)
    store.close()
    assert not map_server.outbox.unsaved
    fresh = MapServer(map_server.sites.by_name.values(), map_server.settings, nonce=nonce)
    store = MapStore(path)
    store.load(fresh, 0.0, WALL + now + later)
    store.close()
    return fresh


def test_everything_is_there_again(tmp_path: Path) -> None:
    old = server()
    routers = {name: Router(old, name) for name in KEYS}
    routers["wlan1"].own("10.3.0.0/24", 5.0)
    routers["wlan2"].own("10.3.0.5/32", 5.0)  # wlan1 does not acknowledge
    routers["dc1"].own("10.1.0.0/24", 5.0, proxy_map_reply=False)
    routers["ctl"].subscribe("10.3.0.0/24")
    routers["dc2"].own("10.3.0.6/32", 6.0)
    new = restart(old, tmp_path / "map.db", 7.0)
    assert answer(new, "10.3.0.5") == (record("10.3.0.5/32", RLOCS["wlan2"]),)
    assert new.registry.table.get(eid("10.1.0.0/24")) is not None
    assert new.answers.records(eid("10.1.0.9/32")) is None, "its ETR answers for itself, as before"
    replayed = routers["wlan2"].registration(record("10.3.0.5/32", "192.0.2.66"), nonce=routers["wlan2"].nonce)
    assert new.receive(replayed, routers["wlan2"].source, 1.0).datagrams == []
    assert new.refusals.counts["replay"] == 1
    for router in routers.values():
        router.server = new
    assert routers["wlan1"].own("10.3.0.5/32", 2.0).events == []
    assert new.refusals.counts["lost"] == 1, "it is remembered that it has not acknowledged"
    last = max(one.nonce for one in new.subscriptions)
    outcome = routers["wlan2"].own("10.3.0.6/32", 3.0)
    assert isinstance(outcome.events[0], Moved)
    (notify,) = notifies(outcome, RLOCS["ctl"])
    assert notify.nonce == last + 1 + GAP, "none is used again, also if the last ones were not stored"


def told_wlan1(map_server: MapServer, routers: dict[str, Router], host: str, now: float) -> int:
    """A user of wlan1 shows up at wlan2: the nonce of what wlan1 is told."""
    for router in routers.values():
        router.server = map_server
    (notify,) = notifies(routers["wlan2"].own(host, now), RLOCS["wlan1"])
    return notify.nonce


def test_a_clock_that_was_set_back_does_not_take_its_own_nonces_back(tmp_path: Path) -> None:
    old = server()
    routers = {name: Router(old, name) for name in ("wlan1", "wlan2")}
    routers["wlan1"].own("10.3.0.0/24")
    used = [told_wlan1(old, routers, "10.3.0.1/32", 1.0)]
    for life in range(2, 6):
        old = restart(old, tmp_path / "map.db", 10.0, nonce=1000)
        used.append(told_wlan1(old, routers, f"10.3.0.{life}/32", 1.0))
    assert used == sorted(used)
    assert len(set(used)) == len(used)
    assert used[-1] > 1 << 40


def test_its_own_nonces_are_stored_before_they_are_used_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RESERVED", 3)
    path, map_server = tmp_path / "map.db", server()
    routers = {name: Router(map_server, name) for name in ("wlan1", "wlan2")}
    routers["wlan1"].own("10.3.0.0/24")
    store = MapStore(path)
    for number in range(20):  # the process may be killed after any of them
        nonce = told_wlan1(map_server, routers, f"10.3.0.{number}/32", 1.0)
        store.save_claims(map_server, 1.0, WALL)  # as it is before anything is sent
        with sqlite3.connect(path) as db:
            ((own,),) = db.execute("SELECT own FROM nonces").fetchall()
        assert int.from_bytes(own, "big") >= nonce
    store.close()


def test_a_file_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    old, path = server(), tmp_path / "map.db"
    Router(old, "dc1").own("10.1.0.0/24")
    store = MapStore(path)
    store.save(old, 0.0, WALL)
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE nonces")
        for table, column in (("routers", "local"), ("registrations", "remaining"), ("subscriptions", "local")):
            db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        db.execute("PRAGMA user_version = 1")
    new = restart(old, path, 1.0)
    assert list(new.registry.table) == [eid("10.1.0.0/24")]
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 4")
    with pytest.raises(StoreError, match="schema version 4, this program knows 3"):
        MapStore(path)


def test_its_directory_is_made(tmp_path: Path) -> None:
    MapStore(tmp_path / "var" / "lib" / "map.db").close()
    assert (tmp_path / "var" / "lib" / "map.db").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=f"directory {tmp_path}/file/lib: Not a directory"):
        MapStore(tmp_path / "file" / "lib" / "map.db")


def test_what_ended_is_not_there_again(tmp_path: Path) -> None:
    old = server()
    router, ctl = Router(old, "dc1"), Router(old, "ctl")
    router.own("10.1.0.4/32")
    ctl.subscribe("10.1.0.0/24")
    restart(old, tmp_path / "map.db", 0.0)
    router.register(record("10.1.0.4/32", ttl=0))
    ctl.nonce += 10
    ctl.acknowledge(ctl.send(ctl.subscription("10.1.0.0/24", rloc="0.0.0.0")).datagrams[0])
    new = restart(old, tmp_path / "map.db", 1.0)
    assert (len(new.registry.table), len(new.subscriptions)) == (0, 0)


def test_a_registration_has_its_time_and_after_a_long_pause_one_life_time(tmp_path: Path) -> None:
    old = server(interval_s=10.0)
    router = Router(old, "dc1")
    router.own("10.1.0.0/24", 100.0)
    router.register(record("10.1.0.1/32", "192.0.2.1", ttl=10), now=100.0, use_ttl=True)
    new = restart(old, tmp_path / "map.db", 110.0)
    assert new.timer(29.9).events == []
    assert new.timer(30.0).events == [Gone(eid("10.1.0.0/24"), "expired", 30.0)]
    assert new.timer(590.0).events == [Gone(eid("10.1.0.1/32"), "expired", 590.0)]
    late = restart(old, tmp_path / "map.db", 110.0, later=5000.0)
    assert late.timer(29.0).events == []
    assert len(late.timer(30.0).events) == 2


def test_what_the_config_does_not_allow_any_more_is_dropped(tmp_path: Path) -> None:
    old = server(site("dc1"), site("dc2"))
    for name, prefix in (("dc1", "10.1.0.0/24"), ("dc2", "10.2.0.0/24")):
        Router(old, name).own(prefix)
        Router(old, name).subscribe("10.0.0.0/8")
    store = MapStore(tmp_path / "map.db")
    store.save(old, 0.0, WALL)
    new = server(site("dc2"))
    store.load(new, 0.0, WALL)
    assert list(new.registry.table) == [eid("10.2.0.0/24")]
    assert [one.site.name for one in new.subscriptions] == ["dc2"]
    store.save(new, 0.0, WALL)
    store.close()
    with sqlite3.connect(tmp_path / "map.db") as db:
        assert db.execute("SELECT site FROM registrations").fetchall() == [("dc2",)]
        assert db.execute("SELECT site FROM subscriptions").fetchall() == [("dc2",)]


def test_the_keys_are_not_in_the_file(tmp_path: Path) -> None:
    old = server()
    Router(old, "dc1").own("10.1.0.0/24")
    restart(old, tmp_path / "map.db", 0.0)
    for file in tmp_path.iterdir():
        assert KEYS["dc1"] not in file.read_bytes()


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (x)")
    with pytest.raises(StoreError, match="another program"):
        MapStore(path)
    path.write_text("this is no database, and it is long enough to be looked at" * 20)
    with pytest.raises(StoreError, match="not a database"):
        MapStore(path)


def test_a_file_belongs_to_one_map_server_at_a_time(tmp_path: Path) -> None:
    store = MapStore(tmp_path / "map.db")
    with pytest.raises(StoreError, match="has it open"):
        MapStore(tmp_path / "map.db")
    store.close()


def test_what_could_not_be_stored_is_stored_with_the_next_save(tmp_path: Path) -> None:
    old = server()
    Router(old, "dc1").own("10.1.0.0/24")
    store = MapStore(tmp_path / "map.db")
    with sqlite3.connect(tmp_path / "map.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.save(old, 0.0, WALL)
        other.execute("ROLLBACK")
    assert old.outbox.unsaved
    store.close()
    assert len(restart(old, tmp_path / "map.db", 1.0).registry.table) == 1


def test_a_clock_that_was_set_back_keeps_no_registration_longer(tmp_path: Path) -> None:
    old = server(interval_s=10.0)
    Router(old, "dc1").own("10.1.0.0/24", 100.0)
    Router(old, "dc2").register(record("10.2.0.1/32", "192.0.2.5", ttl=10), now=100.0, use_ttl=True)
    new = restart(old, tmp_path / "map.db", 110.0, later=-365 * 86400.0)
    assert [event.at for event in new.timer(30.0).events] == [30.0]
    assert new.timer(589.0).events == []
    assert len(new.timer(590.0).events) == 1


def test_the_address_that_a_router_speaks_to_is_remembered(tmp_path: Path) -> None:
    old = server()
    routers = {name: Router(old, name) for name in ("wlan1", "wlan2", "ctl")}
    wlan1, ctl = routers["wlan1"], routers["ctl"]
    old.receive(wlan1.registration(record("10.3.0.0/24", wlan1.host)), wlan1.source, 0.0, "192.0.2.18")
    (asked,) = old.receive(ctl.subscription("10.3.0.0/24"), ctl.source, 0.0, "192.0.2.22").datagrams
    assert asked.local == "192.0.2.22"
    ctl.acknowledge(asked)
    for map_server in (old, restart(old, tmp_path / "map.db", 1.0)):
        routers["wlan2"].server = map_server
        outcome = routers["wlan2"].own("10.3.0.7/32", 1.0)
        expected = {(wlan1.host, "192.0.2.18"), (ctl.host, "192.0.2.22"), (RLOCS["wlan2"], "")}
        assert {(one.host, one.local) for one in outcome.datagrams} == expected
        again = {(one.host, one.local) for one in map_server.timer(2.5).datagrams}
        assert again == expected - {(RLOCS["wlan2"], "")}


def test_recorded_registers_from_many_addresses_shut_out_no_router(tmp_path: Path) -> None:
    map_server = server(site("dc1", replay_protection=False))
    router = Router(map_server, "dc1")
    holder = Router(map_server, "dc1", host="192.0.2.2")
    holder.own("10.1.0.7/32", xtr_id=None, site_id=0)
    recorded = router.registration(record("10.1.0.0/24", router.host), xtr_id=None, site_id=0)
    for number in range(600):
        map_server.receive(recorded, (f"203.0.{number // 250}.{number % 250}", 4342), 1.0)
        if number == 99:
            restart(map_server, tmp_path / "map.db", 1.0)
    router.host = "192.0.2.77"
    assert router.own("10.1.0.0/24", xtr_id=None, site_id=0).datagrams
    for one in (map_server, restart(map_server, tmp_path / "map.db", 2.0)):
        known = {router.host for router in one.registry.routers.values()}
        assert (len(known), {"192.0.2.77", "192.0.2.2", "203.0.2.99"} - known) == (256, set())
