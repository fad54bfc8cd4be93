"""The data plane as the tunnel router uses it: ways of EIDs to routes, and the tables in which they are.

    rule 900  what comes from the LAN    table 4342: machines that are being carried away (arms)
    rule 901  what comes from the tunnel table 4343: EIDs that are expected here
    rule 902  all                        table 4341: the map-cache. Own prefixes are thrown to the main table,
                                         EIDs that moved in go to the LAN, the EID space goes to the punt.

Routes of one prefix have two metrics: that of a mapping, and a worse one of "on the LAN" and of the punt. So a
switch from one to the other is one request, with the other route still or already beneath.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, ip_network
from typing import Protocol

from followme.lisp import EidPrefix
from followme.system import netns
from followme.xtr import device, fastpath, routemsg
from followme.xtr.errors import DataPlaneError
from followme.xtr.fastpath import FastPath
from followme.xtr.headers import PlainHeaders, table_name
from followme.xtr.routes import MapCacheRoutes

from .arms import Arms
from .config import RouterConfig
from .losses import Losses, Lost, TableLosses
from .netlink import Netlink
from .outputs import Drop, Encap, IPAddress, Native, ToLan, Way
from .punt import MTU

log = logging.getLogger(__name__)

TABLE, ARMS_TABLE, ARRIVALS_TABLE = 4341, 4342, 4343
TABLES = TABLE, ARMS_TABLE, ARRIVALS_TABLE


def rules(config: RouterConfig) -> tuple[tuple[int, int, str | None], ...]:
    """Our rules: priority, table, and the device that a packet came in by, where that counts."""
    return (900, ARMS_TABLE, config.lan), (901, ARRIVALS_TABLE, config.tunnel), (902, TABLE, None)


class DataPlane(Protocol):
    """What the tunnel router needs of the kernel; all methods raise ``DataPlaneError``."""

    lan_mac: bytes
    lan_addresses: tuple[IPAddress, ...]
    """Our own addresses on the LAN; known after ``start``. One that goes counts until another of its family is
    there: the LAN gets them only after it is up."""

    async def start(self, punt: str) -> dict[EidPrefix, Way]:
        """Make or adopt devices, rules and fixed routes (``punt`` is a device that is there); what mappings
        an earlier run left."""

    def watch(self, lost: Lost, addressed: Callable[[], None]) -> None:
        """After ``start``: tell ``lost`` of each device, route, rule or nftables table of ours that is lost, and
        ``addressed`` that ``lan_addresses`` may have changed."""

    async def mend(self, punt: str) -> None:
        """Make again what was lost, as ``start`` does; the routes of mappings and EIDs, neighbours and arms are to
        be set anew. Refused while the LAN's or the core's device is down. May raise ``ProcessError``, ``OSError``.
        """

    def strange(self, way: Way) -> bool:
        """Whether ``admit`` must come before a route of this way."""

    async def admit(self, way: Way) -> None:
        """See to it that the way's RLOCs get the headers that they read."""

    def set_route(self, eid: EidPrefix, way: Way) -> None: ...

    def remove_route(self, eid: EidPrefix) -> None: ...

    def set_neighbour(self, address: IPAddress, mac: bytes, *, permanent: bool) -> None: ...

    def forget_neighbour(self, address: IPAddress) -> None: ...

    def expect(self, eid: EidPrefix) -> None:
        """What comes out of the tunnel for ``eid`` goes to the LAN, whatever the map-cache says."""

    def unexpect(self, eid: EidPrefix) -> None: ...

    async def arm(self, eid: EidPrefix, mac: bytes, rloc: IPAddress) -> None:
        """Frames for ``mac`` that come back from the LAN go to ``rloc``."""

    async def disarm(self, eid: EidPrefix, mac: bytes) -> None: ...

    async def forget_arms(self, but: Mapping[EidPrefix, bytes]) -> None:
        """Take away what an earlier run has armed, but for these (EIDs and their MACs)."""

    async def close(self, *, leave: bool) -> None:
        """``leave``: all stays in the kernel as it is."""


class KernelPlane:
    """``DataPlane`` on Linux."""

    def __init__(self, config: RouterConfig) -> None:
        self._config = config
        self._namespace = config.namespace
        self._netlink = Netlink(config.namespace)
        try:
            self._lan = self._netlink.index(config.lan)
            self.lan_mac = self._netlink.mac(config.lan)
            for device_ in (config.up, config.host_port):
                if device_ is not None:
                    self._netlink.index(device_)
        except BaseException:
            self._netlink.close()
            raise
        self._arms = Arms(config.namespace, config.lan, config.host_port)
        self.lan_addresses: tuple[IPAddress, ...] = ()
        self._tables: list[MapCacheRoutes] = []
        self._headers: PlainHeaders | None = None
        self._fast: FastPath | None = None
        self._losses: Losses | None = None
        self._table_losses: TableLosses | None = None
        self._admitting = asyncio.Lock()
        self._plain: set[IPAddress] = set()

    async def start(self, punt: str) -> dict[EidPrefix, Way]:
        await self._arms.watch()
        return await self._make(punt, adopt=True)

    async def _make(self, punt: str, *, adopt: bool) -> dict[EidPrefix, Way]:
        """``adopt``: with what an earlier run left in the map-cache's table; to list that takes time."""
        config = self._config
        former, former_fast = self._tables, self._fast
        self._lan, self.lan_mac = self._netlink.index(config.lan), self._netlink.mac(config.lan)
        self._address()
        tunnel = await device.ensure(config.tunnel, namespace=self._namespace, core_mtu=config.core_mtu)
        netns.sysctl(self._namespace, {f"ipv4/conf/{config.tunnel}/rp_filter": 0})
        self._plain |= {rloc for rloc, header in config.peers.items() if header == "rfc9300"}
        local = next((one.address for one in config.rlocs if isinstance(one.address, IPv4Address)), None)
        if local is not None:
            self._fast = await fastpath.ensure(
                tunnel, lan=config.lan, up=config.up, local_rloc=local,
                plain=bool(self._plain) or config.header == "rfc9300",
            )  # fmt: skip
        self._hold()
        self._headers = PlainHeaders(tunnel, [config.up], fastpath=self._fast)
        # The fast path mirrors the map-cache alone; what an arm says is held back from it.
        self._routes = MapCacheRoutes(tunnel, table=TABLE, fastpath=self._fast)
        self._armed, self._expected = (MapCacheRoutes(tunnel, table=one) for one in (ARMS_TABLE, ARRIVALS_TABLE))
        self._tables = [self._routes, self._armed, self._expected]
        self._close(former, former_fast)
        if self._losses is not None:
            self._losses.ignore(routes.port for routes in self._tables)
        own = {prefix.network for prefix in config.eid_prefixes}
        space = {prefix.network for prefix in config.eid_space}
        for network in sorted(own, key=str):
            self._routes.replace(routemsg.Negative(network, routemsg.RouteType.THROW))
        await self._set_punt(punt)
        found = self._found(own | space) if adopt else {}
        async with self._admitting:  # else the table would be made without whom ``admit`` lets in meanwhile
            if self._plain or config.header == "rfc9300":
                self._plain |= {rloc for way in found.values() for rloc in self._unprepared(way)}
                await self._headers.ensure(self._plain)
            else:
                await self._headers.remove()
        # Rules last: before the routes are there, packets would be thrown into an empty table.
        for rule in rules(config):
            self._netlink.add_rule(*rule)
        return found

    def _found(self, fixed: set[routemsg.Network]) -> dict[EidPrefix, Way]:
        """The routes of an earlier run; the negative ones among them are removed, but for those of ``fixed``."""
        found: dict[EidPrefix, Way] = {}
        for entry in self._routes.entries():
            eid = EidPrefix.of(entry.eid, self._config.instance_id)
            if isinstance(entry, routemsg.Encap):
                found[eid] = Encap(tuple((one.rloc, one.weight) for one in entry.locators))
            elif isinstance(entry, routemsg.Punt) and entry.interface == self._lan:
                found.setdefault(eid, ToLan())
            elif entry.eid not in fixed:
                self._routes.delete(entry)  # negative: the next packet asks again
        return found

    def _address(self) -> None:
        new = self._netlink.addresses(self._netlink.index(self._config.lan))
        # A link-local address comes before all others.
        there = {one.version for one in new if not one.is_link_local}
        former = (one for one in self.lan_addresses if one.version not in there and not one.is_link_local)
        self.lan_addresses = tuple(dict.fromkeys((*new, *former)))

    def _hold(self) -> None:
        if self._fast is not None:
            for address in self.lan_addresses:
                # The programs do not ask the kernel's local table: a mapping would carry our own packets away.
                self._fast.hold(ip_network(address))

    def watch(self, lost: Lost, addressed: Callable[[], None]) -> None:
        def news() -> None:
            before = self.lan_addresses
            try:
                self._address()
            except DataPlaneError as error:
                log.debug("%s", error)  # the device has gone: that is a loss
                return
            if self._fast is not None:
                for gone in set(before) - set(self.lan_addresses):
                    self._fast.release(ip_network(gone))
            self._hold()
            addressed()

        try:
            self._losses = Losses(self._namespace, (self._config.lan, self._config.up, self._config.tunnel),
                                  self._config.punt, TABLES, lost, news)  # fmt: skip
            news()  # what came between ``start`` and now
            self._losses.ignore(routes.port for routes in self._tables)
            tables = {self._arms.table}
            if self._plain or self._config.header == "rfc9300":  # else we delete it ourselves
                tables.add(table_name(self._config.tunnel))
            self._table_losses = TableLosses(self._namespace, tables, lost)
        except OSError as error:
            log.warning("the kernel does not tell of what it loses (%s): only what packets miss is mended", error)

    async def mend(self, punt: str) -> None:
        for name in (self._config.lan, self._config.up):
            if self._losses is not None and not self._losses.up(name):
                raise DataPlaneError(f"{name} is down, or not there")
        await self._make(punt, adopt=False)
        try:
            await self._arms.watch()
        except DataPlaneError as error:
            log.error("%s", error)  # an arm tries again; all else works without

    async def _set_punt(self, device: str) -> None:
        netns.sysctl(self._namespace, {f"ipv4/conf/{device}/rp_filter": 0, f"ipv4/conf/{device}/accept_local": 1})
        # Before it is up, so that the kernel has nothing of its own to say there.
        link = f"link set dev {device}"
        await netns.ip(self._namespace, [f"{link} addrgenmode none", f"{link} mtu {MTU} up"])
        index = self._netlink.index(device)
        for network in sorted({prefix.network for prefix in self._config.eid_space}, key=str):
            self._routes.replace(routemsg.Punt(network, index))

    def strange(self, way: Way) -> bool:
        return bool(self._unprepared(way))

    async def admit(self, way: Way) -> None:
        async with self._admitting:  # else of two at once the second would undo the first
            new = self._unprepared(way)
            if new and self._headers is not None:
                peers = self._plain | set(new)
                try:
                    await self._headers.set_peers(peers)
                except DataPlaneError as error:
                    log.warning("%s; it is made anew", error)  # somebody has flushed nftables' rules
                    await self._headers.ensure(peers)
                self._plain.update(new)

    def set_route(self, eid: EidPrefix, way: Way) -> None:
        network = eid.network
        if isinstance(way, ToLan):
            self._routes.replace(routemsg.Punt(network, self._lan))
            self._routes.delete(routemsg.Negative(network))
            return
        if isinstance(way, Encap):
            self._routes.replace(self._encap(eid, way))
        elif isinstance(way, Native):
            self._routes.replace(routemsg.Negative(network, routemsg.RouteType.THROW))
        elif isinstance(way, Drop):
            self._routes.replace(routemsg.Negative(network))
        if eid.host:
            self._routes.delete(routemsg.Punt(network, self._lan))

    def remove_route(self, eid: EidPrefix) -> None:
        network = eid.network
        if eid in self._config.eid_prefixes:
            self._routes.replace(routemsg.Negative(network, routemsg.RouteType.THROW))
            return
        self._routes.delete(routemsg.Negative(network))
        if eid.host:
            self._routes.delete(routemsg.Punt(network, self._lan))

    def set_neighbour(self, address: IPAddress, mac: bytes, *, permanent: bool) -> None:
        self._netlink.set_neighbour(self._lan, address, mac, permanent=permanent)

    def forget_neighbour(self, address: IPAddress) -> None:
        self._netlink.forget_neighbour(self._lan, address)

    def expect(self, eid: EidPrefix) -> None:
        self._expected.replace(routemsg.Punt(eid.network, self._lan))

    def unexpect(self, eid: EidPrefix) -> None:
        self._expected.delete(routemsg.Punt(eid.network, self._lan))

    async def arm(self, eid: EidPrefix, mac: bytes, rloc: IPAddress) -> None:
        way = Encap(((rloc, 1),))
        await self.admit(way)
        if self._fast is not None:
            self._fast.hold(eid.network)
        self._armed.replace(self._encap(eid, way))
        await self._arms.add(mac)

    async def disarm(self, eid: EidPrefix, mac: bytes) -> None:
        await self._arms.remove(mac)
        self._armed.delete(routemsg.Negative(eid.network))
        if self._fast is not None:
            self._fast.release(eid.network)

    async def forget_arms(self, but: Mapping[EidPrefix, bytes]) -> None:
        networks = {eid.network for eid in but}
        for entry in self._armed.entries():
            if entry.eid not in networks:
                self._armed.delete(entry)
        await self._arms.keep(but.values())

    async def close(self, *, leave: bool) -> None:
        for watching in (self._losses, self._table_losses):
            if watching is not None:
                watching.close()
        if self._fast is not None and not leave:
            self._fast.remove()
        if not leave:
            for rule in rules(self._config):
                self._netlink.delete_rule(*rule)
            for routes in self._tables:
                for entry in routes.entries():
                    routes.delete(entry)
            await self._arms.keep(())
            if self._headers is not None:
                await self._headers.remove()
            await device.remove(self._config.tunnel, namespace=self._namespace)
        self._close(self._tables, self._fast)
        self._netlink.close()

    @staticmethod
    def _close(tables: list[MapCacheRoutes], fast: FastPath | None) -> None:
        for routes in tables:
            routes.close()
        if fast is not None:
            fast.close()

    def _unprepared(self, way: Way) -> list[IPAddress]:
        if not isinstance(way, Encap):
            return []
        return [rloc for rloc, _ in way.paths if rloc not in self._plain and self._config.plain(rloc)]

    def _encap(self, eid: EidPrefix, way: Encap) -> routemsg.Encap:
        locators = tuple(routemsg.Locator(rloc, weight) for rloc, weight in way.paths[: routemsg.MAX_LOCATORS])
        return routemsg.Encap(eid.network, eid.iid, locators)
