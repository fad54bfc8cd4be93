"""The LISP lab on paper."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network
from itertools import combinations

import pytest

from followme.domain import NetworkKind
from followme.lab import lisp_plan, plan
from followme.lab.lisp_plan import LispLabConfig

PLACES = ("dc1", "dc2", "wlan1", "wlan2", "ms", "ctl", "hv1", "hv2")


def test_four_sites_with_prefixes_of_their_own_behind_rlocs_of_their_own() -> None:
    sites = lisp_plan.sites(lambda role: f"fm-7-{role}")
    assert [(s.name, s.kind, s.area, s.namespace) for s in sites] == [
        ("dc1", NetworkKind.DATACENTRE, 0, "fm-7-x-dc1"),
        ("dc2", NetworkKind.DATACENTRE, 8, "fm-7-x-dc2"),
        ("wlan1", NetworkKind.ACCESS, 0, "fm-7-x-wlan1"),
        ("wlan2", NetworkKind.ACCESS, 8, "fm-7-x-wlan2"),
    ]
    dc2 = sites[1]
    assert (dc2.eid_prefix, dc2.gateway) == (IPv4Network("10.2.0.0/24"), IPv4Address("10.2.0.1"))
    assert (dc2.eid_prefix6, dc2.gateway6) == (IPv6Network("fd00:2::/64"), IPv6Address("fd00:2::1"))
    assert len({s.eid_prefix for s in sites}) == len({s.eid_prefix6 for s in sites}) == 4


def test_the_gateway_has_one_mac_at_all_sites_which_nobody_else_has() -> None:
    sites = lisp_plan.sites(str)
    macs = {site.gateway_mac for site in sites}
    assert len(macs) == 1
    (mac,) = macs
    assert mac[0] & 0x03 == 0x02, "locally administered, unicast"
    assert mac not in {network.router_mac for network in plan.networks(plan.LabConfig())}


def test_eids_are_those_of_the_openflow_lab() -> None:
    here = {site.name: (site.eid_prefix, site.area, site.kind) for site in lisp_plan.sites(str)}
    assert here == {n.name: (n.prefix, n.area, n.kind) for n in plan.networks(plan.LabConfig())}


def test_each_place_has_a_link_to_the_core_and_none_holds_eids() -> None:
    links = {place: lisp_plan.underlay_address(place) for place in PLACES}
    assert len({address.network for address in links.values()}) == len(PLACES)
    assert links["dc1"] == IPv4Interface("192.0.2.2/30")
    for place, address in links.items():
        core = lisp_plan.core_address(place)
        assert address.network == core.network
        assert address.ip != core.ip
        assert address.ip in IPv4Network("192.0.2.0/24")
    for site in lisp_plan.sites(str):
        assert site.rloc == links[site.name].ip
        assert site.core_address == lisp_plan.core_address(site.name).ip


def test_round_trips_of_areas_of_control_and_of_hypervisors() -> None:
    config = LispLabConfig()
    assert config.round_trip("dc1", "wlan1") == config.round_trip("wlan2", "dc2") == 0.001
    assert config.round_trip("dc1", "wlan2") == config.round_trip("dc1", "dc2") == 0.050
    assert config.round_trip("ms", "dc2") == config.round_trip("wlan1", "ctl") == 0.001
    assert config.round_trip("hv1", "hv2") == 0.050, "a machine's way is that between the data centres"
    assert config.round_trip("hv1", "dc1") == 0.0, "the same room"
    assert config.round_trip("hv2", "ctl") == 0.001


def test_single_pairs_are_overridden_in_both_directions() -> None:
    far = {frozenset({"dc1", "dc2"}): 0.2, frozenset({"ctl", "dc1"}): 0.03}
    config = LispLabConfig(round_trips=far, control_rtt_s=0.004)
    assert config.round_trip("dc2", "dc1") == config.round_trip("hv1", "dc2") == 0.2
    assert config.round_trip("hv1", "ctl") == config.round_trip("ctl", "dc1") == 0.03
    assert config.round_trip("ctl", "ms") == 0.004
    assert config.round_trip("dc1", "wlan2") == 0.050
    for one, other in combinations(PLACES, 2):
        assert config.round_trip(one, other) == config.round_trip(other, one)


def test_each_direction_gets_half_of_the_round_trip() -> None:
    config = LispLabConfig(round_trips={frozenset({"dc1", "wlan2"}): 0.1})
    paths = {(p.interface, str(p.target)): p.delay_s for p in lisp_plan.delayed_paths(config)}
    rloc = {place: str(lisp_plan.underlay_address(place).network) for place in PLACES}
    assert paths["dc1", rloc["wlan2"]] == paths["wlan2", rloc["dc1"]] == 0.05
    assert paths["dc1", "10.4.0.0/24"] == paths["wlan2", "10.1.0.0/24"] == 0.05
    assert paths["hv1", rloc["hv2"]] == 0.025
    assert paths["hv1", rloc["dc1"]] == 0
    assert paths["ms", rloc["dc2"]] == 0.0005
    assert len(paths) == 8 * 7 + 4 * 7, "to each link, and to each site's EIDs, from everywhere else"


def test_rates_are_those_of_the_sites_and_of_the_hypervisors_in_them() -> None:
    config = LispLabConfig(uplink_rate_bit_s=100_000_000, uplink_rates={"dc2": 10_000_000, "wlan1": None})
    assert [config.rate(place) for place in PLACES] == [
        100_000_000, 10_000_000, None, 100_000_000, None, None, 100_000_000, 10_000_000
    ]  # fmt: skip
    assert LispLabConfig().rate("dc1") is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"round_trips": {frozenset({"dc1", "dc9"}): 0.1}}, "dc9"),
        ({"round_trips": {frozenset({"dc1"}): 0.1}}, "dc1"),
        ({"round_trips": {frozenset({"dc1", "hv2"}): 0.1}}, "hv2"),
        ({"round_trips": {frozenset({"dc1", "ms"}): -0.1}}, r"-0\.1"),
        ({"same_site_rtt_s": -1.0}, r"-1\.0"),
        ({"control_rtt_s": float("nan")}, "nan"),
        ({"between_sites_rtt_s": 11.0}, r"11\.0"),
        ({"uplink_rate_bit_s": 1000}, "1000 bit/s"),
        ({"uplink_rates": {"dc1": 0}}, "0 bit/s"),
        ({"uplink_rates": {"ms": 10_000_000}}, "ms"),
        ({"core_mtu": 1279}, "core_mtu = 1279"),
        ({"core_mtu": 70_000}, "core_mtu = 70000"),
    ],
)
def test_wrong_values_are_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        LispLabConfig(**arguments)  # type: ignore[arg-type]


def test_a_changed_copy_is_checked_too() -> None:
    with pytest.raises(ValueError, match="core_mtu"):
        replace(LispLabConfig(), core_mtu=0)
