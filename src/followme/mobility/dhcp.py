"""DHCP handling (RFC 2131): the controller is the server of every access network.

A known user keeps its address wherever it shows up (the identifier), so its own sessions survive its move;
its gateway and mask stay those of its home. Unknown users get an address of the network's pool and are known
from then on. A request in somebody else's name is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from followme.config.openflow import DhcpSection
from followme.domain import Mac, Network, Node, NodeKind
from followme.mobility.locations import LocationManager, usable
from followme.packets import (
    OPTION_DNS,
    OPTION_ROUTER,
    OPTION_SUBNET_MASK,
    ZERO,
    Dhcp,
    MessageType,
    answer,
    reply_frame,
)
from followme.store import Lease, Store

FULL_S = 1.0
"""How long a pool that was found used up is not searched again: strangers may ask at any rate."""
OFFER_S = 60.0
"""How long an offered address waits for its request."""
DECLINED_S = 600.0
"""How long an address that a client found in use stays out of the pool (RFC 2131, 4.3.3)."""


@dataclass(frozen=True, slots=True)
class DhcpResult:
    """``reply`` is the frame to send back; ``attached`` the user who now uses its address in this network
    (``fresh`` if it was not known before, or has a new address); ``refused`` says why nothing was done."""

    reply: bytes | None = None
    attached: Node | None = None
    fresh: bool = False
    released: Node | None = None
    refused: str | None = None


class DhcpServer:
    """Decides on one message at a time; the controller sends what it returns."""

    def __init__(
        self,
        networks: Mapping[str, Network],
        pools: Mapping[str, DhcpSection],
        locations: LocationManager,
        store: Store,
        clock: Callable[[], float],
    ) -> None:
        self._networks = networks
        self._pools = pools
        self._locations = locations
        self._store = store
        self._clock = clock
        self._leases: dict[Mac, Lease] = {lease.mac: lease for lease in store.leases()}
        self._offers: dict[tuple[str, IPv4Address], tuple[Mac, float]] = {}
        self._offered: dict[tuple[str, Mac], IPv4Address] = {}
        self._next: dict[str, int] = {}
        self._full: dict[str, float] = {}

    def handle(self, network: Network, source: Mac, message: Dhcp) -> DhcpResult:
        """One client message seen in ``network``, in a frame from MAC ``source``."""
        pool = self._pools.get(network.name)
        if pool is None:
            return DhcpResult()
        if message.chaddr != source:
            return DhcpResult(refused="asks by DHCP in another hardware address's name")
        if message.giaddr != ZERO:
            return DhcpResult(refused=f"asks by DHCP as a relay agent, {message.giaddr}; there is none here")
        kind = message.message_type
        if kind is MessageType.DISCOVER:
            return self._discover(network, pool, message)
        if kind is MessageType.REQUEST:
            return self._request(network, pool, message)
        if kind is MessageType.RELEASE:
            return self._release(message)
        if kind is MessageType.DECLINE and message.requested_ip is not None:
            return self._decline(network, source, message.requested_ip)
        if kind is MessageType.INFORM:
            return DhcpResult(self._frame(network, network, pool, message, MessageType.ACK, ZERO))
        return DhcpResult(refused=f"sends a DHCP message of type {kind!r} that no client sends")

    def expired(self) -> list[Mac]:
        """MACs whose lease ran out; they are named until ``forget``."""
        now = self._clock()
        gone = [mac for mac, lease in self._leases.items() if lease.expires_at <= now]
        self._offers = {key: offer for key, offer in self._offers.items() if offer[1] > now}
        self._offered = {(name, mac): address for (name, address), (mac, _) in self._offers.items() if mac}
        return gone

    def forget(self, mac: Mac) -> None:
        """The lease has gone from the store: the caller deletes it there, in one commit with its holder."""
        self._leases.pop(mac, None)

    def keep(self, mac: Mac) -> None:
        """The client is where another serves it: its lease of our address is granted anew. ``StoreError``."""
        lease = self._anew(self._leases[mac], self._clock())
        if lease is not self._leases[mac]:
            self._store.put_lease(lease)
            self._leases[mac] = lease

    def _anew(self, lease: Lease, now: float) -> Lease:
        pool = self._pools.get(lease.network)
        if pool is None or lease.expires_at >= now + pool.lease_s:
            return lease
        return replace(lease, expires_at=now + pool.lease_s)

    def store_again(self) -> None:
        """Write all leases: the store has lost some that are held."""
        for lease in self._leases.values():
            self._store.put_lease(lease)

    def prolong(self) -> Iterator[Mac]:
        """All leases were granted by another controller, whose clock may be minutes behind ours, and an address
        that a client still uses must not go to another: each gets its time anew, one by one. The store is not told:
        who takes over next does the same."""
        now = self._clock()
        for mac, lease in list(self._leases.items()):
            self._leases[mac] = self._anew(lease, now)
            yield mac

    def _discover(self, network: Network, pool: DhcpSection, message: Dhcp) -> DhcpResult:
        home, address = self._address(network, pool, message)
        if address is None:
            return DhcpResult(refused=f"asks for an address, but {network.name}'s pool {pool.first} to "
                                      f"{pool.last} has none left")  # fmt: skip
        if home is network:
            self._offers[network.name, address] = (message.chaddr, self._clock() + OFFER_S)
            self._offered[network.name, message.chaddr] = address
        return DhcpResult(self._frame(network, home, pool, message, MessageType.OFFER, address))

    def _request(self, network: Network, pool: DhcpSection, message: Dhcp) -> DhcpResult:
        wanted = message.requested_ip or (message.ciaddr if message.ciaddr != ZERO else None)
        if message.server_id is not None and message.server_id not in self._servers():
            return DhcpResult()  # the client has chosen another server
        home, address = self._address(network, pool, message)
        if address is None or wanted != address:
            holder = self._locations.holder(network.name, wanted) if wanted else None
            if holder is not None and holder.mac != message.chaddr:
                refused = f"asks by DHCP for {wanted}, which is {holder.name}'s"
            else:
                refused = f"asks by DHCP for {wanted}, which is not its own"
            nak = self._frame(network, home, pool, message, MessageType.NAK, ZERO)
            return DhcpResult(nak, refused=refused)
        node = self._locations.node(message.chaddr)
        fresh = node is None or node.home != home.name or node.address != address
        if fresh:
            name = node.name if node else "user-" + message.chaddr.hex()
            node = Node(name, NodeKind.USER, message.chaddr, home.outer(address), address, home.name)
        assert node is not None
        frame = self._frame(network, home, pool, message, MessageType.ACK, address)
        lease = Lease(message.chaddr, node.identifier, home.name, self._clock() + pool.lease_s)
        self._store.put_lease(lease)
        self._leases[message.chaddr] = lease
        self._offers.pop((network.name, address), None)
        self._offered.pop((network.name, message.chaddr), None)
        return DhcpResult(frame, attached=node, fresh=fresh)

    def _release(self, message: Dhcp) -> DhcpResult:
        node = self._locations.node(message.chaddr)
        if node is None or node.address != message.ciaddr:
            return DhcpResult(refused=f"releases {message.ciaddr}, which is not its own")
        self._end_lease(message.chaddr)
        return DhcpResult(released=node)

    def _decline(self, network: Network, source: Mac, address: IPv4Address) -> DhcpResult:
        """The client found its address in use (RFC 2131, 4.3.3); only who was given it can say so."""
        key = (network.name, address)
        node = self._locations.node(source)
        mine = node is not None and (node.home, node.address) == key
        if not mine and self._offers.get(key, (b"", 0.0))[0] != source:
            return DhcpResult(refused=f"declines {address}, which it was not given")
        self._offers[key] = (b"", self._clock() + DECLINED_S)
        self._end_lease(source)
        return DhcpResult()

    def _end_lease(self, mac: Mac) -> None:
        """It runs out now: ``expired`` names it at its next turn, so that all that it held is freed."""
        lease = self._leases.get(mac)
        if lease is not None:
            lease = replace(lease, expires_at=self._clock())
            self._store.put_lease(lease)
            self._leases[mac] = lease

    def _address(self, network: Network, pool: DhcpSection, message: Dhcp) -> tuple[Network, IPv4Address | None]:
        """The home and the configured address for this client here: its own, or a free one of the pool."""
        node = self._locations.node(message.chaddr)
        if node is not None and (
            node.kind is NodeKind.MACHINE or node.home == network.name or pool.keep_address
            or not self._networks[node.home].ours  # a visitor: its home has the say about its address
        ):
            return self._networks[node.home], node.address
        for preferred in (self._offered.get((network.name, message.chaddr)), message.requested_ip):
            within = preferred is not None and pool.first <= preferred <= pool.last
            if preferred is not None and within and self._free(network, preferred, message.chaddr):
                return network, preferred
        return network, self._any_free(network, pool, message.chaddr)

    def _any_free(self, network: Network, pool: DhcpSection, mac: Mac) -> IPv4Address | None:
        """The next free address behind the last one given, so that a search is short and reuse is late."""
        if self._full.get(network.name, 0.0) > self._clock():
            return None
        first, last = int(pool.first), int(pool.last)
        start = self._next.get(network.name, first)
        for number in itertools.chain(range(start, last + 1), range(first, start)):
            address = IPv4Address(number)
            if self._free(network, address, mac):
                self._next[network.name] = number
                return address
        self._full[network.name] = self._clock() + FULL_S
        return None

    def _free(self, network: Network, address: IPv4Address, mac: Mac) -> bool:
        if self._locations.holder(network.name, address):
            return False
        offered_to, until = self._offers.get((network.name, address), (mac, 0.0))
        return (until <= self._clock() or offered_to == mac) and usable(network, address)

    def _servers(self) -> set[IPv4Address]:
        return {self._networks[name].gateway for name in self._pools}

    def _frame(
        self, network: Network, home: Network, pool: DhcpSection, message: Dhcp, kind: MessageType,
        address: IPv4Address,
    ) -> bytes:  # fmt: skip
        """The server is the visited network's gateway; mask and router are those of the user's home."""
        options = {
            OPTION_SUBNET_MASK: home.inside.netmask.packed,
            OPTION_ROUTER: home.gateway.packed,
        }
        if pool.dns:
            options[OPTION_DNS] = b"".join(server.packed for server in pool.dns)
        lease = None if kind is MessageType.NAK or message.message_type is MessageType.INFORM else pool.lease_s
        reply = answer(message, kind, server=network.gateway, yiaddr=address, lease_s=lease,
                       options={} if kind is MessageType.NAK else options)  # fmt: skip
        return reply_frame(reply, server_mac=network.router_mac, server=network.gateway, ciaddr=message.ciaddr)
