"""The LISP lab on paper: sites, their EID prefixes and RLOCs, and how far apart the places are. No I/O.

The papers' figure 1 with a tunnel router (xTR) in front of each network instead of an OpenFlow switch. The
places that the core joins are the four sites, the map server ``ms``, the controller ``ctl`` and the
management links of the hypervisors, which stand where their data centres stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network
from itertools import permutations

from followme.domain import Mac, NetworkKind
from followme.lab.delay import DelayedPath
from followme.lab.plan import mac

MAP_SERVER, CONTROLLER = "ms", "ctl"
LAN = "lan"
ANYCAST_MAC: Mac = mac(0xA0, 1)
ANYCAST_LINK_LOCAL = IPv6Address("fe80::1")
CLIENT_ADDRESS = IPv4Interface("10.3.0.10/24")

_DC, _WLAN = NetworkKind.DATACENTRE, NetworkKind.ACCESS
# Name -> number (second octet of the EID prefix), kind, area: as in the OpenFlow lab.
_SITES = {"dc1": (1, _DC, 0), "dc2": (2, _DC, 8), "wlan1": (3, _WLAN, 0), "wlan2": (4, _WLAN, 8)}
# Hypervisor -> the data centre that it stands in.
HYPERVISORS = {"hv1": "dc1", "hv2": "dc2"}
_PLACES = (*_SITES, MAP_SERVER, CONTROLLER)
_UNDERLAY = IPv4Network("192.0.2.0/24")
_LINKS = dict(zip((*_PLACES, *HYPERVISORS), _UNDERLAY.subnets(new_prefix=30), strict=False))
_LOWEST_RATE_BIT_S = 1_000_000
_LOWEST_MTU, _HIGHEST_MTU = 1280, 9216


@dataclass(frozen=True, slots=True)
class LispLabConfig:
    """What may vary from lab to lab; ``ValueError`` names what is wrong.

    ``round_trips`` overrides the round-trip time of single pairs of places, in seconds:
    ``{frozenset({"dc1", "wlan2"}): 0.1, frozenset({"ctl", "dc1"}): 0.03}``; the places are the sites, ``ms``
    and ``ctl``. ``control_rtt_s`` is what lies between ``ms`` or ``ctl`` and any other place otherwise.
    ``uplink_rate_bit_s`` limits each site's uplink, and each hypervisor's management link, in each of the
    two directions (None: no limit); ``uplink_rates`` overrides it for single sites. ``core_mtu`` is the MTU
    of all links of the core: 1600 bytes carry an encapsulated packet of 1500.
    """

    same_site_rtt_s: float = 0.001
    between_sites_rtt_s: float = 0.050
    control_rtt_s: float = 0.001
    round_trips: Mapping[frozenset[str], float] = field(default_factory=dict)
    uplink_rate_bit_s: int | None = None
    uplink_rates: Mapping[str, int | None] = field(default_factory=dict)
    core_mtu: int = 1600

    def __post_init__(self) -> None:
        for pair in self.round_trips:
            if len(pair) != 2 or not pair <= set(_PLACES):
                raise ValueError(
                    f"round_trips: {set(pair)} is not a pair of the lab's places {', '.join(_PLACES)}"
                )
        times = (
            self.same_site_rtt_s, self.between_sites_rtt_s, self.control_rtt_s, *self.round_trips.values()
        )
        for time in times:
            if not 0 <= time <= 10:
                raise ValueError(f"a round-trip time of {time} s: it must be 0 to 10 s")
        unknown = self.uplink_rates.keys() - _SITES.keys()
        if unknown:
            raise ValueError(f"uplink_rates: {', '.join(sorted(unknown))} is not one of {', '.join(_SITES)}")
        for rate in (self.uplink_rate_bit_s, *self.uplink_rates.values()):
            if rate is not None and rate < _LOWEST_RATE_BIT_S:
                raise ValueError(f"an uplink rate of {rate} bit/s: below 1 Mbit/s no machine would arrive")
        if not _LOWEST_MTU <= self.core_mtu <= _HIGHEST_MTU:
            raise ValueError(f"core_mtu = {self.core_mtu}: it must be {_LOWEST_MTU} to {_HIGHEST_MTU} bytes")

    def rate(self, place: str) -> int | None:
        """What a place's link to the core carries in each direction, in bit/s; None: no limit."""
        site = HYPERVISORS.get(place, place)
        return self.uplink_rates.get(site, self.uplink_rate_bit_s) if site in _SITES else None

    def round_trip(self, one: str, other: str) -> float:
        """The round-trip time that the core adds between two places (or hypervisors), in seconds."""
        one, other = HYPERVISORS.get(one, one), HYPERVISORS.get(other, other)
        if one == other:
            return 0.0
        if not {one, other} <= _SITES.keys():
            default = self.control_rtt_s
        elif _SITES[one][2] == _SITES[other][2]:
            default = self.same_site_rtt_s
        else:
            default = self.between_sites_rtt_s
        return self.round_trips.get(frozenset({one, other}), default)


@dataclass(frozen=True, slots=True)
class LispSite:
    """A LISP site with one xTR, which runs in ``namespace``.

    Nodes of the site use EIDs of ``eid_prefix`` and ``eid_prefix6``; ``gateway`` and ``gateway6`` are the
    xTR's addresses among them, on its bridge ``lan_device``, whose MAC is ``gateway_mac`` at all sites
    alike (and so is its link-local ``fe80::1``): who moves finds its first hop as at home. ``rloc`` is the
    xTR's address on ``uplink``, where the core is at ``core_address``. ``area`` is the place on the line of
    service areas.
    """

    name: str
    kind: NetworkKind
    area: int
    namespace: str
    eid_prefix: IPv4Network
    eid_prefix6: IPv6Network
    gateway: IPv4Address
    gateway6: IPv6Address
    gateway_mac: Mac
    lan_device: str
    uplink: str
    rloc: IPv4Address
    core_address: IPv4Address


def sites(namespace: Callable[[str], str]) -> list[LispSite]:
    """The four sites; ``namespace`` gives the name of the namespace for a role such as ``x-dc1``."""
    return [_site(name, namespace(f"x-{name}")) for name in _SITES]


def _site(name: str, namespace: str) -> LispSite:
    number, kind, area = _SITES[name]
    prefix, prefix6 = IPv4Network(f"10.{number}.0.0/24"), IPv6Network(f"fd00:{number}::/64")
    return LispSite(
        name=name,
        kind=kind,
        area=area,
        namespace=namespace,
        eid_prefix=prefix,
        eid_prefix6=prefix6,
        gateway=prefix[1],
        gateway6=prefix6[1],
        gateway_mac=ANYCAST_MAC,
        lan_device=LAN,
        uplink="up",
        rloc=underlay_address(name).ip,
        core_address=core_address(name).ip,
    )


def underlay_address(place: str) -> IPv4Interface:
    """The address of a site's xTR, of ``ms``, ``ctl`` or a hypervisor on its link to the core."""
    return IPv4Interface((_LINKS[place][2], 30))


def core_address(place: str) -> IPv4Interface:
    """The core's address on the link to that place."""
    return IPv4Interface((_LINKS[place][1], 30))


def delayed_paths(config: LispLabConfig) -> list[DelayedPath]:
    """Half of the round trip for each direction between each two places.

    The core knows RLOCs. The EID prefixes are as far away as the RLOCs in front of them, for who routes EIDs
    natively to compare (a node that is away from home is then delayed as if it were at home).
    """
    paths = []
    for source, target in permutations(_LINKS, 2):
        delay_s = config.round_trip(source, target) / 2
        paths.append(DelayedPath(source, _LINKS[target], delay_s))
        if target in _SITES:
            paths.append(DelayedPath(source, IPv4Network(f"10.{_SITES[target][0]}.0.0/24"), delay_s))
    return paths
