"""The lab of several domains on paper: who owns which network, addresses, delays. No I/O.

Each domain has one network: ``dc1``, ``dc2``, ... with a data centre each, and access networks ``far1``, ...
where correspondents are. One router joins the networks; between any two of them packets take their time.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import permutations

from followme.domain import Mac, Network, NetworkKind
from followme.lab.base import HOST_MACS
from followme.lab.delay import DelayedPath
from followme.lab.plan import ROUTER_PORT, mac

CENTRES = ("alpha", "beta", "gamma", "epsilon", "zeta", "eta")
"""Domains with a data centre, in order; the machine's home is the first's."""
CORRESPONDENTS = ("delta", "kappa", "sigma")
"""Domains with an access network."""
FEWEST = 3
FIRST_FAR = 11
MACHINE_NUMBER, PEER_NUMBER = 5, 11
"""Host numbers in any network."""
_MANAGEMENT = IPv4Network("172.31.255.0/24")
_CONTROLLER_PORT = 6653


@dataclass(frozen=True, slots=True)
class LabDomain:
    """A domain and its one network."""

    name: str
    number: int
    network: Network

    @property
    def has_centre(self) -> bool:
        return self.network.kind is NetworkKind.DATACENTRE

    def host(self, number: int) -> IPv4Interface:
        """The address of a host of its network."""
        return IPv4Interface(f"{self.network.prefix[number]}/{self.network.prefix.prefixlen}")


@dataclass(frozen=True, slots=True)
class DomainsLabConfig:
    """``centres`` data centres and ``correspondents`` access networks, each of a domain of its own, with
    ``instances`` controllers."""

    centres: int = FEWEST
    correspondents: int = 1
    between_domains_rtt_s: float = 0.020
    instances: int = 1

    def __post_init__(self) -> None:
        if not FEWEST <= self.centres <= len(CENTRES):
            raise ValueError(f"{self.centres} domains with a data centre: the lab has {FEWEST} to {len(CENTRES)}")
        if not 1 <= self.correspondents <= len(CORRESPONDENTS):
            raise ValueError(f"{self.correspondents} domains of correspondents: the lab has 1 to 3")
        if self.between_domains_rtt_s < 0:
            raise ValueError(f"a round-trip time of {self.between_domains_rtt_s} s is negative")
        if not 1 <= self.instances <= 3:
            raise ValueError(f"{self.instances} controllers for each domain: the lab has 1 to 3")


def domains(config: DomainsLabConfig) -> list[LabDomain]:
    """All domains, those of correspondents last."""
    centres = [
        _domain(name, number, f"dc{number}", NetworkKind.DATACENTRE)
        for number, name in enumerate(CENTRES[: config.centres], start=1)
    ]
    return centres + [
        _domain(name, FIRST_FAR + index, f"far{index + 1}", NetworkKind.ACCESS)
        for index, name in enumerate(CORRESPONDENTS[: config.correspondents])
    ]


def _domain(name: str, number: int, network: str, kind: NetworkKind) -> LabDomain:
    prefix = IPv4Network(f"10.{number}.0.0/24")
    return LabDomain(name, number, Network(
        name=network, kind=kind, datapath=number, uplink_port=ROUTER_PORT, router_mac=mac(number, 1), prefix=prefix,
        inside=prefix, gateway=prefix[1], locators=list(prefix.subnets(prefixlen_diff=1))[1], area=number,
    ))  # fmt: skip


def delayed_paths(config: DomainsLabConfig) -> list[DelayedPath]:
    """Half of the round trip for each direction between each two networks."""
    return [
        DelayedPath(source.network.name, target.network.prefix, config.between_domains_rtt_s / 2)
        for source, target in permutations(domains(config), 2)
    ]


def peer_mac(domain: LabDomain) -> Mac:
    """Of the first host of its network."""
    return mac(HOST_MACS, domain.number)


def management_address(number: int) -> IPv4Interface:
    """Of the hypervisor of domain ``number``."""
    return IPv4Interface(f"{_MANAGEMENT[number]}/{_MANAGEMENT.prefixlen}")


def bus_address() -> IPv4Interface:
    """Of the NATS server, in the management network."""
    return IPv4Interface(f"{_MANAGEMENT[250]}/{_MANAGEMENT.prefixlen}")


def switches_address() -> IPv4Interface:
    """Where switches and controllers are, on the management network."""
    return IPv4Interface(f"{_MANAGEMENT[254]}/{_MANAGEMENT.prefixlen}")


def controller_port(number: int, instance: int) -> int:
    """Where the controller ``instance`` (from 1) of domain ``number`` listens for its switch."""
    return _CONTROLLER_PORT + 10 * number + instance - 1


def is_locator(config: DomainsLabConfig, address: IPv4Address) -> bool:
    """Whether it is an address of the core that no session's end may ever see."""
    return any(address in domain.network.locators for domain in domains(config))
