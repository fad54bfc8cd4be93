"""The lab on paper."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from followme.domain import NetworkKind
from followme.lab import plan
from followme.lab.plan import LabConfig


def test_four_networks_at_two_sites() -> None:
    networks = plan.networks(LabConfig())
    assert [(n.name, n.kind, n.area) for n in networks] == [
        ("dc1", NetworkKind.DATACENTRE, 0),
        ("dc2", NetworkKind.DATACENTRE, 8),
        ("wlan1", NetworkKind.ACCESS, 0),
        ("wlan2", NetworkKind.ACCESS, 8),
    ]
    dc2 = networks[1]
    assert dc2.prefix == dc2.inside == IPv4Network("10.2.0.0/24")
    assert dc2.gateway == IPv4Address("10.2.0.1")
    assert dc2.locators == IPv4Network("10.2.0.128/25")
    assert len({n.datapath for n in networks}) == len({n.router_mac for n in networks}) == 4
    assert all(n.router_mac[0] & 0x03 == 0x02 for n in networks), "locally administered, unicast"


def test_overlapping_data_centres_share_the_inside_but_not_prefix_or_gateway() -> None:
    dc1, dc2, wlan1, _ = plan.networks(LabConfig(overlapping=True))
    assert dc1.inside == dc2.inside == IPv4Network("10.0.0.0/24")
    assert (dc1.gateway, dc2.gateway) == (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.126"))
    assert (dc1.prefix, dc2.prefix) == (IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/24"))
    assert wlan1.inside == wlan1.prefix


def test_each_direction_gets_half_of_the_round_trip() -> None:
    config = LabConfig(round_trips={frozenset({"dc1", "wlan2"}): 0.1})
    paths = {(p.interface, str(p.target)): p.delay_s for p in plan.delayed_paths(config)}
    assert len(paths) == 12
    assert paths["dc1", "10.3.0.0/24"] == paths["wlan1", "10.1.0.0/24"] == 0.0005
    assert paths["dc2", "10.3.0.0/24"] == 0.025
    assert paths["dc1", "10.4.0.0/24"] == paths["wlan2", "10.1.0.0/24"] == 0.05


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"round_trips": {frozenset({"dc1", "dc9"}): 0.1}}, "dc9"),
        ({"round_trips": {frozenset({"dc1"}): 0.1}}, "dc1"),
        ({"same_site_rtt_s": -1.0}, "negative"),
        ({"management_rate_bit_s": 1000}, "management_rate_bit_s"),
    ],
)
def test_wrong_values_are_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        LabConfig(**arguments)  # type: ignore[arg-type]
