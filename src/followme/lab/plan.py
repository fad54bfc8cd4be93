"""The lab on paper: networks, addresses and delays of the papers' figure 1. No I/O.

Two sites, each with a data centre and a WLAN: site A = dc1 and wlan1, site B = dc2 and wlan2. One router
joins the four networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from itertools import permutations

from followme.domain import Mac, Network, NetworkKind
from followme.lab.delay import DelayedPath

ROUTER_PORT = 1
HYPERVISOR_PORT = 2
CLIENT_PORT = 2
FIRST_HOST_PORT = 10
CONTROLLER_PORT = 6653

_DC, _WLAN = NetworkKind.DATACENTRE, NetworkKind.ACCESS
# Name -> number (datapath and second octet of the prefix), kind, site (area).
_NETWORKS = {"dc1": (1, _DC, 0), "dc2": (2, _DC, 8), "wlan1": (3, _WLAN, 0), "wlan2": (4, _WLAN, 8)}
_SHARED_INSIDE = IPv4Network("10.0.0.0/24")
# In overlapping data centres not even the first hop is the same (paper, section IV.B.5).
_SHARED_GATEWAYS = {"dc1": IPv4Address("10.0.0.1"), "dc2": IPv4Address("10.0.0.126")}


@dataclass(frozen=True, slots=True)
class LabConfig:
    """What may vary from lab to lab.

    ``round_trips`` overrides the round-trip time of single pairs: ``{frozenset({"dc1", "wlan2"}): 0.1}``.
    ``management_rate_bit_s`` limits the link between the hypervisors. With ``overlapping``, hosts in both
    data centres are configured in 10.0.0.0/24.
    """

    overlapping: bool = False
    same_site_rtt_s: float = 0.001
    between_sites_rtt_s: float = 0.050
    round_trips: Mapping[frozenset[str], float] = field(default_factory=dict)
    management_rate_bit_s: int | None = None
    controller_port: int = CONTROLLER_PORT

    def __post_init__(self) -> None:
        for pair in self.round_trips:
            if len(pair) != 2 or not pair <= _NETWORKS.keys():
                raise ValueError(
                    f"round_trips: {set(pair)} is not a pair of the lab's networks {', '.join(_NETWORKS)}"
                )
        times = (self.same_site_rtt_s, self.between_sites_rtt_s, *self.round_trips.values())
        if min(times) < 0:
            raise ValueError(f"a round-trip time of {min(times)} s is negative")
        if self.management_rate_bit_s is not None and self.management_rate_bit_s < 1_000_000:
            raise ValueError(
                f"management_rate_bit_s = {self.management_rate_bit_s}: below 1 Mbit/s no machine would arrive"
            )


def mac(group: int, number: int) -> Mac:
    """A locally administered MAC address, the same in each run."""
    return bytes((0x02, 0xFC, 0, 0, group, number))


def networks(config: LabConfig) -> list[Network]:
    """The four networks as the controller is to know them."""
    return [_network(name, config) for name in _NETWORKS]


def _network(name: str, config: LabConfig) -> Network:
    number, kind, area = _NETWORKS[name]
    prefix = IPv4Network(f"10.{number}.0.0/24")
    shared = config.overlapping and kind is NetworkKind.DATACENTRE
    return Network(
        name=name,
        kind=kind,
        datapath=number,
        uplink_port=ROUTER_PORT,
        router_mac=mac(number, 1),
        prefix=prefix,
        inside=_SHARED_INSIDE if shared else prefix,
        gateway=_SHARED_GATEWAYS[name] if shared else prefix[1],
        locators=list(prefix.subnets(prefixlen_diff=1))[1],
        area=area,
    )


def round_trip(config: LabConfig, one: Network, other: Network) -> float:
    """The round-trip time that the router adds between two networks, in seconds."""
    default = config.same_site_rtt_s if one.area == other.area else config.between_sites_rtt_s
    return config.round_trips.get(frozenset({one.name, other.name}), default)


def delayed_paths(config: LabConfig) -> list[DelayedPath]:
    """Half of the round trip for each direction between each two networks."""
    return [
        DelayedPath(source.name, target.prefix, round_trip(config, source, target) / 2)
        for source, target in permutations(networks(config), 2)
    ]
