"""The kernel data plane of two xTRs: client - xtr1 - core - xtr2 - server, in namespaces of their own."""

import asyncio
import contextlib
import ipaddress
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from followme.system import needs, netns
from followme.system.process import ProcessError, run
from followme.xtr import device
from followme.xtr.device import TunnelDevice
from followme.xtr.errors import DataPlaneError
from followme.xtr.headers import PlainHeaders
from followme.xtr.routemsg import Encap, Entry, Locator, Negative, Punt, RouteType
from followme.xtr.routes import MapCacheRoutes

PROBLEMS = needs.check([needs.Need.ROOT, needs.Need.NETWORKS, needs.Need.VXLAN_GPE])
if shutil.which("nft") is None:
    PROBLEMS.append("missing nft: apt-get install nftables")
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]

R1, R2 = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("192.0.2.6")
R1_6, R2_6 = ipaddress.ip_address("2001:db8:a::1"), ipaddress.ip_address("2001:db8:b::2")
SITE1, SITE2 = ipaddress.ip_network("10.1.0.0/24"), ipaddress.ip_network("10.2.0.0/24")
SITE1_6, SITE2_6 = ipaddress.ip_network("2001:db8:1::/64"), ipaddress.ip_network("2001:db8:2::/64")
IID = 7


@dataclass(slots=True)
class Path:
    """The five namespaces, and at both xTRs the tunnel device and its routes."""

    client: str
    xtr1: str
    core: str
    xtr2: str
    server: str
    one: TunnelDevice
    two: TunnelDevice
    routes1: MapCacheRoutes
    routes2: MapCacheRoutes

    def connect(self, *, locators6: bool = False) -> None:
        for eid in (SITE2, SITE2_6):
            self.routes1.replace(Encap(eid, IID, (Locator(R2_6 if locators6 else R2),)))
        for eid in (SITE1, SITE1_6):
            self.routes2.replace(Encap(eid, IID, (Locator(R1_6 if locators6 else R1),)))

    def plain(self) -> tuple[PlainHeaders, PlainHeaders]:
        return PlainHeaders(self.one, ["u0"]), PlainHeaders(self.two, ["u0"])

    async def ping(self, target: str, *more: str) -> str:
        return await run(["ping", "-c", "3", "-i", "0.1", "-W", "2", *more, target], namespace=self.client)


@pytest.fixture
async def path() -> AsyncIterator[Path]:
    tag = f"fmd{os.getpid()}"
    names = [f"{tag}{role}" for role in ("c", "x1", "k", "x2", "s")]
    client, xtr1, core, xtr2, server = names
    try:
        for name in names:
            await netns.add(name)
            netns.sysctl(name, {"ipv6/conf/all/accept_dad": 0, "ipv6/conf/default/accept_dad": 0})
        for name in (xtr1, core, xtr2):
            netns.sysctl(name, {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})
        for left, dev1, right, dev2 in ((client, "e0", xtr1, "e0"), (xtr1, "u0", core, "k1"),
                                        (core, "k2", xtr2, "u0"), (xtr2, "e0", server, "e0")):  # fmt: skip
            await netns.ip(None, [f"link add {dev1} netns {left} type veth peer name {dev2} netns {right}"])
        addresses = {
            client: ["e0 10.1.0.2/24", "e0 2001:db8:1::2/64"], server: ["e0 10.2.0.2/24", "e0 2001:db8:2::2/64"],
            xtr1: ["e0 10.1.0.1/24", "e0 2001:db8:1::1/64", "u0 192.0.2.1/30", "u0 2001:db8:a::1/64"],
            xtr2: ["e0 10.2.0.1/24", "e0 2001:db8:2::1/64", "u0 192.0.2.6/30", "u0 2001:db8:b::2/64"],
            core: ["k1 192.0.2.2/30", "k1 2001:db8:a::2/64", "k2 192.0.2.5/30", "k2 2001:db8:b::1/64"],
        }  # fmt: skip
        for name, some in addresses.items():
            shown = [one.split() for one in some]
            await netns.ip(name, [f"addr add {address} dev {dev}" for dev, address in shown])
            await netns.ip(name, [f"link set {dev} up" for dev in dict.fromkeys(dev for dev, _ in shown)])
        await netns.ip(client, ["route add default via 10.1.0.1", "route add default via 2001:db8:1::1"])
        await netns.ip(server, ["route add default via 10.2.0.1", "route add default via 2001:db8:2::1"])
        for name, ways in {
            xtr1: ["192.0.2.4/30 via 192.0.2.2", "2001:db8:b::/64 via 2001:db8:a::2"],
            xtr2: ["192.0.2.0/30 via 192.0.2.5", "2001:db8:a::/64 via 2001:db8:b::1"],
        }.items():
            await netns.ip(name, [f"route add {way}" for way in ways])
        one, two = await device.ensure(namespace=xtr1), await device.ensure(namespace=xtr2)
        with contextlib.closing(MapCacheRoutes(one)) as routes1, contextlib.closing(MapCacheRoutes(two)) as routes2:
            yield Path(client, xtr1, core, xtr2, server, one, two, routes1, routes2)
    finally:
        for name in names:
            await netns.delete(name)


@contextlib.contextmanager
def capture(namespace: str, name: str) -> Iterator[socket.socket]:
    """A socket that sees all IPv4 and IPv6 frames of a device."""
    raw = netns.socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind((name, 3))
    raw.settimeout(2)
    with contextlib.closing(raw):
        yield raw


def outer_packet(raw: socket.socket, source: str) -> bytes:
    """The first UDP packet to port 4341 from an IPv4 locator: from its UDP header on."""
    return outer_ip(raw, source)[20:]


def outer_ip(raw: socket.socket, source: str) -> bytes:
    """The same, from its IP header on."""
    wanted = ipaddress.ip_address(source).packed
    end = time.monotonic() + 3
    while time.monotonic() < end:
        frame = raw.recv(65536)
        lisp = frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == b"\x10\xf5"
        if lisp and frame[26:30] == wanted:
            return frame[14:]
    raise AssertionError("no LISP packet was seen")


async def tcp_transfer(path: Path, address: str, size: int) -> bytes:
    """What a server behind xtr2 receives of ``size`` bytes sent by the client."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = netns.socket_in(path.server, family, socket.SOCK_STREAM)
    sender = netns.socket_in(path.client, family, socket.SOCK_STREAM)
    loop = asyncio.get_running_loop()
    with contextlib.closing(listener), contextlib.closing(sender):
        for one in (listener, sender):
            one.setblocking(False)
        listener.bind((address, 5001))
        listener.listen()
        await asyncio.wait_for(loop.sock_connect(sender, (address, 5001)), 5)
        receiver, _ = await loop.sock_accept(listener)
        with contextlib.closing(receiver):
            sending = asyncio.create_task(loop.sock_sendall(sender, bytes(range(256)) * (size // 256)))
            got = bytearray()
            while len(got) < size and (part := await asyncio.wait_for(loop.sock_recv(receiver, 1 << 16), 5)):
                got += part
            await sending
            return bytes(got)


@pytest.mark.parametrize("locators6", [False, True], ids=["locators4", "locators6"])
async def test_pings_and_tcp_pass_for_both_families_of_eids(path: Path, locators6: bool) -> None:
    path.connect(locators6=locators6)
    for target in ("10.2.0.2", "2001:db8:2::2"):
        assert " 0% packet loss" in await path.ping(target)
        assert await tcp_transfer(path, target, 1 << 20) == bytes(range(256)) * 4096


@pytest.mark.parametrize(("target", "version", "protocol"), [("10.2.0.2", 4, 1), ("2001:db8:2::2", 6, 2)])
async def test_on_the_wire_it_is_lisp_gpe(path: Path, target: str, version: int, protocol: int) -> None:
    path.connect()
    with capture(path.core, "k1") as raw:
        await path.ping(target)
        udp = outer_packet(raw, str(R1))
    assert int.from_bytes(udp[4:6], "big") == len(udp)
    assert udp[6:8] == b"\0\0"  # no UDP checksum
    assert udp[8:16] == bytes([0x0C, 0, 0, protocol, 0, 0, IID, 0])  # I and P; the instance id is 24 bits
    assert udp[16] >> 4 == version


async def test_the_outer_header_has_the_ecn_bits_but_neither_dscp_nor_ttl_of_the_inner(path: Path) -> None:
    path.connect()
    with capture(path.core, "k1") as raw:
        await path.ping("10.2.0.2", "-Q", "0x2a", "-t", "9")  # DSCP 10, ECT(0)
        seen = outer_ip(raw, str(R1))
    inner = seen[36:]
    assert (inner[1], inner[8]) == (0x2A, 8)
    assert (seen[1], seen[8]) == (0x02, 64)


@pytest.mark.parametrize(("target", "version"), [("10.2.0.2", 4), ("2001:db8:2::2", 6)])
async def test_peers_in_the_set_get_plain_rfc_9300_headers(path: Path, target: str, version: int) -> None:
    path.connect()
    first, second = path.plain()
    await first.ensure([R2, R2_6])
    await second.ensure([R1, R1_6])
    with capture(path.core, "k1") as raw:
        assert " 0% packet loss" in await path.ping(target)
        out, back = outer_packet(raw, str(R1)), outer_packet(raw, str(R2))
    for udp in (out, back):
        assert udp[8:16] == bytes([0x08, 0, 0, 0, 0, 0, IID, 0])
        assert udp[16] >> 4 == version
    assert await tcp_transfer(path, target, 1 << 20) == bytes(range(256)) * 4096


async def test_plain_headers_work_between_ipv6_locators(path: Path) -> None:
    path.connect(locators6=True)
    for headers, peer in zip(path.plain(), (R2_6, R1_6), strict=True):
        await headers.ensure([peer])
    assert " 0% packet loss" in await path.ping("10.2.0.2")


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (bytes([0xC8, 1, 2, 3, 0, 0, IID, 0x03]), "nonce, locator status bits and an instance id"),
        (bytes([0xC0, 1, 2, 3, 0, 0, 0, 0x03]), "nonce and locator status bits, no instance id"),
        (bytes(8), "no flag at all"),
    ],
)
async def test_what_an_rfc_9300_peer_may_put_in_its_header_is_understood(
    path: Path, header: bytes, what: str
) -> None:
    """The core sends as if it were xtr2, with a UDP checksum that is right for its own header."""
    path.connect()
    await path.plain()[0].ensure([R2])
    await netns.ip(path.core, ["addr add 192.0.2.6/32 dev lo"])
    listener = netns.socket_in(path.client, socket.AF_INET, socket.SOCK_DGRAM)
    sender = netns.socket_in(path.core, socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.closing(listener), contextlib.closing(sender):
        listener.bind(("10.1.0.2", 7000))
        listener.settimeout(3)
        sender.bind(("192.0.2.6", 45000))
        inner_udp = b"\x1b\x58\x1b\x58\x00\x0d\x00\x00hello"
        packet = bytearray(b"\x45\0\0\0\0\0\0\0\x40\x11\0\0\x0a\x02\0\x02\x0a\x01\0\x02")
        packet[2:4] = (20 + len(inner_udp)).to_bytes(2, "big")
        total = sum(int.from_bytes(packet[at : at + 2], "big") for at in range(0, 20, 2))
        total = (total & 0xFFFF) + (total >> 16)
        packet[10:12] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
        sender.sendto(header + bytes(packet) + inner_udp, ("192.0.2.1", device.DATA_PORT))
        assert listener.recv(100) == b"hello", what


async def test_the_set_of_plain_peers_can_be_changed_and_read(path: Path) -> None:
    path.connect()
    headers, _ = path.plain()
    await headers.ensure([])
    assert await headers.peers() == set()
    await headers.set_peers([R2, R2_6])
    assert await headers.peers() == {R2, R2_6}
    await headers.ensure([R2])  # again: it takes the place of the first
    assert await headers.peers() == {R2}
    await headers.set_peers([])
    with capture(path.core, "k1") as raw:
        await path.ping("10.2.0.2")
        assert outer_packet(raw, str(R1))[8] == 0x0C
    await headers.remove()
    await headers.remove()
    with pytest.raises(DataPlaneError, match="nftables refused table lisp_lisp0"):
        await headers.peers()


async def test_a_restart_adopts_device_and_routes_and_loses_no_packet(path: Path) -> None:
    path.connect()
    argv = ["ping", "-q", "-c", "200", "-i", "0.005", "10.2.0.2"]
    pinging = asyncio.create_task(run(argv, namespace=path.client))
    await asyncio.sleep(0.2)
    again = await device.ensure(namespace=path.xtr1)
    assert again == path.one
    with contextlib.closing(MapCacheRoutes(again)) as routes:
        assert set(routes.entries()) == {Encap(eid, IID, (Locator(R2),)) for eid in (SITE2, SITE2_6)}
    assert "200 received" in await pinging


async def test_what_is_put_in_is_read_back_and_deleted(path: Path) -> None:
    entries: list[Entry] = [
        Encap(ipaddress.ip_network("10.9.0.1/32"), 0xFFFFFF, (Locator(R2, 3), Locator(R2_6, 255))),
        Encap(ipaddress.ip_network("2001:db8:9::/48"), 0, (Locator(R2_6, 1),)),
        Negative(ipaddress.ip_network("10.8.0.0/16")),
        Negative(ipaddress.ip_network("2001:db8:8::/48"), RouteType.UNREACHABLE),
        Negative(ipaddress.ip_network("10.7.0.0/16"), RouteType.THROW),
        Punt(ipaddress.ip_network("10.0.0.0/8"), path.one.index),
    ]
    await netns.ip(path.xtr1, ["route add 10.77.0.0/24 dev e0 metric 100"])  # somebody else's
    for entry in entries:
        path.routes1.replace(entry)
    assert set(path.routes1.entries()) == set(entries)
    for entry in entries:
        assert path.routes1.delete(entry)
        assert not path.routes1.delete(entry)
    assert path.routes1.entries() == []
    stranger = Negative(ipaddress.ip_network("10.77.0.0/24"))
    assert not path.routes1.delete(stranger)
    assert "10.77.0.0/24" in await run(["ip", "route"], namespace=path.xtr1)


async def test_an_ipv6_eid_goes_to_its_heaviest_locator(path: Path) -> None:
    path.routes1.replace(Encap(SITE2_6, IID, (Locator(R1, 1), Locator(R2, 9))))
    assert path.routes1.entries() == [Encap(SITE2_6, IID, (Locator(R2, 1),))]


async def test_a_negative_entry_takes_the_place_of_a_positive_one_and_back(path: Path) -> None:
    for eid, target in ((SITE2, "10.2.0.2"), (SITE2_6, "2001:db8:2::2")):
        path.connect()
        path.routes1.replace(Negative(eid, RouteType.UNREACHABLE))
        assert [one for one in path.routes1.entries() if one.eid == eid] == [Negative(eid, RouteType.UNREACHABLE)]
        with pytest.raises(ProcessError, match=r"nreachable|No route"):
            await path.ping(target, "-c", "1")
        path.connect()
        assert " 0% packet loss" in await path.ping(target)


async def test_a_miss_goes_to_the_tun_device(path: Path) -> None:
    tun = netns.open_tun(path.xtr1, "miss0")
    try:
        await netns.ip(path.xtr1, ["link set miss0 up"])
        index = netns.call_in(path.xtr1, lambda: socket.if_nametoindex("miss0"))
        path.routes1.replace(Punt(ipaddress.ip_network("10.0.0.0/8"), index))
        with pytest.raises(ProcessError):
            await path.ping("10.2.0.2", "-c", "1", "-W", "1")
        os.set_blocking(tun, False)
        packets = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packets.append(os.read(tun, 2048))
        assert [one[16:20] for one in packets if one[0] >> 4 == 4] == [bytes([10, 2, 0, 2])]
    finally:
        os.close(tun)


async def test_a_packet_too_big_for_the_tunnel_is_answered(path: Path) -> None:
    path.connect()
    fits = path.one.mtu - 28
    assert " 0% packet loss" in await path.ping("10.2.0.2", "-M", "do", "-s", str(fits))
    await netns.ip(path.client, ["route flush cache"])
    with pytest.raises(ProcessError, match=rf"mtu ?= ?{path.one.mtu}"):
        await path.ping("10.2.0.2", "-M", "do", "-s", str(fits + 1))


async def test_twenty_thousand_entries_are_loaded_and_read_back(path: Path) -> None:
    base = int(ipaddress.ip_address("10.128.0.0"))
    entries = [Encap(ipaddress.IPv4Network(base + number), IID, (Locator(R2),)) for number in range(20_000)]
    assert await path.routes1.load(entries) == 20_000
    assert set(path.routes1.entries()) == set(entries)


async def test_a_refused_entry_is_named(path: Path) -> None:
    with pytest.raises(DataPlaneError, match=r"refused Punt.*10\.3\.0\.0/16.*on lisp0 in fmd.*table 254"):
        await path.routes1.load([
            Negative(SITE2), Punt(ipaddress.ip_network("10.3.0.0/16"), 9999), Negative(SITE1_6),
        ])  # fmt: skip
    path.routes1.replace(Negative(SITE1))  # the next request is not confused by it


async def test_another_kind_of_device_is_not_adopted(path: Path) -> None:
    await netns.ip(path.xtr1, ["link add wrong type bridge"])
    with pytest.raises(DataPlaneError, match=r"wrong in fmd.* is no LISP-GPE device"):
        await device.ensure("wrong", namespace=path.xtr1)
    with pytest.raises(DataPlaneError, match="listens on UDP port 4341, not 4342"):
        await device.ensure(namespace=path.xtr1, port=4342)
    with pytest.raises(DataPlaneError, match="raise the core's MTU"):
        await device.ensure("small", namespace=path.xtr1, core_mtu=1300)
    assert await device.remove(namespace=path.xtr2)
    assert not await device.remove(namespace=path.xtr2)
