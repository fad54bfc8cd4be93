"""Where nodes are, by what the map system says: mappings, withdrawals, strangers' locators."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from followme.config.lisp import LispConfig, check
from followme.controllers.lisp.places import Moved, Places
from followme.lisp import EidPrefix, Lcaf, Locator, MappingRecord

from ..config.lisp_document import LISP

CONFIG: LispConfig = check(LISP, "lisp.yaml")
IID = LISP["instance_id"]
DC1, DC1_V6, DC2, WLAN1 = "192.0.2.2", "2001:db8::2", "192.0.2.6", "192.0.2.10"
VM = "10.1.0.5"


@pytest.fixture
def places() -> Places:
    return Places(CONFIG.networks, CONFIG.nodes, IID)


def record(eid: str, *locators: Locator | str, iid: int = IID, ttl: int = 1440) -> MappingRecord:
    made = tuple(one if isinstance(one, Locator) else Locator(ip_address(one)) for one in locators)
    return MappingRecord(EidPrefix.of(eid, iid), made, ttl)


def test_everybody_is_at_home_at_first(places: Places) -> None:
    assert places.all == {"vm1": "dc1", "alice": "wlan1", "bob": "wlan1"}
    assert (places.moves, places.unknown) == (0, 0)


def test_a_mapping_at_another_sites_rloc_is_a_move(places: Places) -> None:
    moved = places.changed(record(VM, DC2))
    assert moved is not None
    assert (moved.node.name, moved.left, moved.site) == ("vm1", "dc1", "dc2")
    assert places.all["vm1"] == "dc2"
    assert places.moves == 1


def test_the_same_again_is_no_news(places: Places) -> None:
    assert places.changed(record(VM, DC1)) is None
    assert places.changed(record(VM, DC2)) is not None
    assert places.changed(record(VM, DC2)) is None
    assert places.moves == 1


def test_a_mapping_that_is_gone_says_that_the_node_is_at_home(places: Places) -> None:
    places.changed(record("10.3.0.10", DC2))
    moved = places.changed(record("10.3.0.10", ttl=0))
    assert isinstance(moved, Moved)
    assert (moved.left, moved.site) == ("dc2", "wlan1")
    assert places.changed(record("10.3.0.10", ttl=0)) is None


@pytest.mark.parametrize(
    "told",
    [
        record("10.1.0.0/24", DC2),  # a subnet, not a node
        record("10.1.0.0/28", DC2),
        record("10.1.0.99", DC2),  # nobody of ours
        record(VM, DC2, iid=0),  # another instance's
        record("10.1.0.0/24", ttl=0),
    ],
    ids=["subnet", "part of it", "unknown host", "another instance", "subnet gone"],
)
def test_what_is_not_a_nodes_own_mapping_is_no_news(places: Places, told: MappingRecord) -> None:
    before = dict(places.all)
    assert places.changed(told) is None
    assert places.all == before
    assert places.unknown == 0


def test_strangers_locators_are_counted_and_not_believed(places: Places) -> None:
    assert places.changed(record(VM, "203.0.113.66")) is None
    assert (places.all["vm1"], places.unknown) == ("dc1", 1)


def test_the_best_usable_locator_counts(places: Places) -> None:
    def locator(address: str, priority: int = 1, reachable: bool = True) -> Locator:
        return Locator(ip_address(address), priority, reachable=reachable)

    site_of = places.site_of
    assert site_of(record(VM, locator(DC1, 2), locator(DC2, 1))) == "dc2"
    assert site_of(record(VM, locator(DC1, 2), locator(DC2, 255))) == "dc1", "255: nobody may use it"
    assert site_of(record(VM, locator(DC1, 2), locator(DC2, 1, reachable=False))) == "dc1"
    assert site_of(record(VM, locator("203.0.113.66", 1), locator(DC2, 2))) == "dc2"
    assert site_of(record(VM, locator(DC1_V6))) == "dc1", "each of a site's RLOCs is its own"
    assert site_of(record(VM, Locator(None), Locator(Lcaf(5, b"somewhere")))) is None
    assert site_of(record(VM)) is None


def test_an_unusable_mapping_leaves_the_node_where_it_was(places: Places) -> None:
    places.changed(record(VM, DC2))
    assert places.changed(record(VM, Locator(ip_address(DC1), 255))) is None
    assert places.all["vm1"] == "dc2"
