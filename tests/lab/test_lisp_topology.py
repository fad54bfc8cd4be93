"""The LISP lab carries packets as far, as fast and as whole as it says; who roams finds its first hop."""

import asyncio
import socket
import time
from ipaddress import IPv4Interface, IPv6Interface

import pytest

from followme.domain import Mac
from followme.lab.lisp_topology import Host, LabError, LispLab, LispLabConfig
from followme.lab.pinger import Pinger
from followme.migration import host as migration_host
from followme.migration.bounce import Bounce
from followme.packets import ARP_REQUEST, ETHERTYPE_ARP, parse_arp, parse_ethernet
from followme.system import needs, netns
from followme.system.process import ProcessError, run

PROBLEMS = needs.check(LispLab.NEEDS)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]

MACHINE_MAC: Mac = bytes.fromhex("5254000a0009")


async def route_eids_natively(lab: LispLab) -> None:
    """What LISP does away with: the core knows the sites' own prefixes."""
    await netns.ip(lab.core_namespace, [f"route add {site.eid_prefix} via {site.rloc}" for site in lab.sites])


async def ping(namespace: str, target: object, *options: str) -> bool:
    try:
        await run(["ping", "-c", "1", "-W", "2", *options, str(target)], namespace=namespace)
    except ProcessError:
        return False
    return True


async def shortest(namespace: str, target: str) -> float:
    """The shortest of some round trips, in seconds: a busy host makes some longer, none shorter."""
    answer = await run(["ping", "-q", "-c", "8", "-i", "0.05", "-W", "2", target], namespace=namespace)
    return float(answer.rsplit("= ", 1)[1].split("/")[0]) / 1e3


async def throughput(sender: str, receiver: str, address: str) -> float:
    """What one TCP connection carries between two namespaces, in bit/s, once it is under way."""
    loop = asyncio.get_running_loop()
    with netns.socket_in(receiver, socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind((address, 0))
        listening.listen()
        listening.setblocking(False)
        with netns.socket_in(sender, socket.AF_INET, socket.SOCK_STREAM) as out:
            out.setblocking(False)
            await loop.sock_connect(out, listening.getsockname())
            incoming, _ = await loop.sock_accept(listening)

            async def send() -> None:
                while True:
                    await loop.sock_sendall(out, bytes(1 << 16))

            sending = asyncio.create_task(send())
            received, began = 0, time.monotonic()
            with incoming:
                while (now := time.monotonic()) - began < 1.8:
                    some = len(await loop.sock_recv(incoming, 1 << 18))
                    if now - began > 0.6:  # by then the burst that the limit allows is spent
                        received += some
            sending.cancel()
            await asyncio.wait([sending])
    return received * 8 / 1.2


class Capture:
    """The frames that pass an interface; ``sent`` are those that its own namespace sent."""

    def __init__(self, namespace: str, interface: str) -> None:
        self._socket = netns.socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((interface, 3))
        self._socket.setblocking(False)

    def read(self) -> tuple[list[bytes], list[bytes]]:
        """Frames sent and frames received since the last time."""
        sent: list[bytes] = []
        received: list[bytes] = []
        while True:
            try:
                frame, address = self._socket.recvfrom(65536)
            except BlockingIOError:
                return sent, received
            except OSError:  # the interface was down for a moment
                continue
            (sent if address[2] == socket.PACKET_OUTGOING else received).append(frame)

    def close(self) -> None:
        self._socket.close()


def is_arp(frame: bytes) -> bool:
    return parse_ethernet(frame).ethertype == ETHERTYPE_ARP


async def test_places_are_as_far_apart_as_configured() -> None:
    far = {frozenset({"ctl", "dc1"}): 0.030}
    async with LispLab(LispLabConfig(round_trips=far)) as lab:
        dc1, hv1 = lab.site("dc1").namespace, lab.hosts["dc1"]
        expected = [
            (dc1, str(lab.site("wlan1").rloc), 0.001),
            (dc1, str(lab.site("dc2").rloc), 0.050),
            (hv1.namespace, lab.hosts["dc2"].management_address, 0.050),
            (hv1.namespace, str(lab.site("dc1").rloc), 0.0),
            (lab.map_server_namespace, str(lab.site("wlan2").rloc), 0.001),
            (lab.controller_namespace, str(lab.site("dc1").rloc), 0.030),
            (lab.controller_namespace, str(lab.map_server_address), 0.001),
        ]
        for namespace, target, rtt_s in expected:
            measured = await shortest(namespace, target)
            print(f"{namespace} - {target}: {measured * 1e3:.3f} ms, asked {rtt_s * 1e3:.0f} ms ({lab.delay.kind})")
            assert rtt_s <= measured < rtt_s + 0.010
        assert (await lab.delay.statistics()).dropped == 0


async def test_sites_reach_each_other_natively_only_where_the_core_is_told_of_eids() -> None:
    async with LispLab() as lab:
        server = await lab.add_host("dc2", "server", IPv4Interface("10.2.0.10/24"))
        user = await lab.add_host("wlan1", "user", IPv4Interface("10.3.0.20/24"))
        assert not await ping(user.namespace, "10.2.0.10", "-W", "1"), "the core knows RLOCs only"
        await route_eids_natively(lab)
        assert 0.050 <= await shortest(user.namespace, "10.2.0.10") < 0.060
        assert await ping(server.namespace, "10.3.0.20", "-s", "1472", "-M", "do")


async def test_the_core_carries_encapsulated_packets_whole() -> None:
    async with LispLab() as lab:
        wlan1, far = lab.site("wlan1").namespace, lab.site("dc2").rloc
        assert await ping(wlan1, far, "-s", "1572", "-M", "do"), "1600 bytes, through the delay, too"
        assert not await ping(wlan1, far, "-s", "1573", "-M", "do")
    async with LispLab(LispLabConfig(core_mtu=1500)) as lab:
        wlan1, far = lab.site("wlan1").namespace, lab.site("dc2").rloc
        assert await ping(wlan1, far, "-s", "1472", "-M", "do")
        assert not await ping(wlan1, far, "-s", "1473", "-M", "do")


async def test_uplinks_carry_what_they_are_limited_to_in_both_directions() -> None:
    config = LispLabConfig(uplink_rate_bit_s=100_000_000, uplink_rates={"wlan2": None, "dc2": None})
    async with LispLab(config) as lab:
        dc1, dc2, wlan2 = lab.site("dc1"), lab.site("dc2"), lab.site("wlan2")
        hv1, hv2 = lab.hosts["dc1"], lab.hosts["dc2"]
        rates = {
            "out": await throughput(dc1.namespace, lab.map_server_namespace, str(lab.map_server_address)),
            "in": await throughput(lab.map_server_namespace, dc1.namespace, str(dc1.rloc)),
            "machines": await throughput(hv2.namespace, hv1.namespace, hv1.management_address),
            "unlimited": await throughput(wlan2.namespace, dc2.namespace, str(dc2.rloc)),
        }
        print({name: f"{rate / 1e6:.1f} Mbit/s" for name, rate in rates.items()})
        for name in ("out", "in", "machines"):
            assert 40e6 < rates[name] < 105e6
        assert rates["unlimited"] > 110e6


async def test_who_roams_reaches_its_gateway_without_asking() -> None:
    async with LispLab() as lab:
        await route_eids_natively(lab)
        await lab.add_host("dc1", "server", IPv4Interface("10.1.0.10/24"))
        await lab.move_client("wlan1")
        assert await ping(lab.client.namespace, "10.1.0.10")
        # What the xTR of wlan2 and the map system would do.
        there = lab.site("wlan2")
        await netns.ip(lab.core_namespace, [f"route add {lab.client_address.ip}/32 via {there.rloc}"])
        await netns.ip(there.namespace, [f"route add {lab.client_address.ip}/32 dev {there.lan_device}"])
        capture = Capture(lab.client.namespace, lab.client.interface)
        lan = Capture(there.namespace, there.lan_device)
        try:
            began = time.monotonic()
            await lab.move_client("wlan2")
            print(f"moved in {(time.monotonic() - began) * 1e3:.1f} ms")
            await asyncio.sleep(0.2)
            sent, _ = capture.read()
            assert [parse_arp(frame, 14).is_gratuitous for frame in sent if is_arp(frame)] == [True]
            assert len(sent) == 1, "one announcement and nothing else"
            assert sent[0] in lan.read()[1], "yet a packet socket on the LAN sees it"
            assert await ping(lab.client.namespace, "10.1.0.10")
            sent, _ = capture.read()
            asked = [frame for frame in sent if is_arp(frame) and parse_arp(frame, 14).op == ARP_REQUEST]
            assert asked == []
            first = next(frame for frame in sent if not is_arp(frame))
            assert first[:6] == there.gateway_mac
        finally:
            capture.close()
            lan.close()
        shown = await run(["ip", "-4", "address", "show", "dev", "wl0"], namespace=lab.client.namespace)
        assert f"inet {lab.client_address} " in shown
        assert lab.client_network == "wlan2"


async def test_nobody_contradicts_a_newcomer_that_announces_its_address() -> None:
    async with LispLab() as lab:
        capture = Capture(lab.client.namespace, lab.client.interface)
        try:
            for network in ("wlan2", "wlan1"):
                await lab.move_client(network)
                await asyncio.sleep(0.1)
                sent, received = capture.read()
                assert len(sent) == 1
                # An answer would say that somebody else has the address (RFC 5227, 2.4).
                assert [frame for frame in received if is_arp(frame)] == []
        finally:
            capture.close()


async def test_association_alone_is_silent_and_can_be_repeated() -> None:
    async with LispLab() as lab:
        capture = Capture(lab.client.namespace, lab.client.interface)
        try:
            for network in ("wlan2", "wlan1", "wlan1", "wlan2"):
                await lab.attach_client(network)
                await asyncio.sleep(0.05)
                assert capture.read()[0] == []
        finally:
            capture.close()
        for name in ("wlan1", "wlan2"):
            ports = await run(["bridge", "-d", "link"], namespace=lab.site(name).namespace)
            assert (" air@" in ports) is (name == "wlan2")
        with pytest.raises(LabError, match="dc1 is a data centre"):
            await lab.attach_client("dc1")
        with pytest.raises(LabError, match="no site 'wlan9'"):
            await lab.move_client("wlan9")
        assert lab.client_network == "wlan2"


async def test_who_has_forgotten_its_gateway_gets_the_same_mac_from_any_site_at_once() -> None:
    async with LispLab() as lab:
        guest = await lab.add_host("dc2", "guest", IPv4Interface("10.3.0.30/24"))
        for address in ("10.3.0.1", "10.3.0.99"):
            began = time.monotonic()
            await ping(guest.namespace, address, "-W", "0.2")
            took = time.monotonic() - began
            known = await run(["ip", "neighbour", "show", address], namespace=guest.namespace)
            assert "lladdr 02:fc:00:00:a0:01" in known
            assert took < 0.6, "the kernel's own delay before proxied answers is up to 0.8 s"


async def test_ipv6_has_the_anycast_gateway_too() -> None:
    async with LispLab() as lab:
        one = await lab.add_host("dc1", "one", IPv4Interface("10.1.0.10/24"), IPv6Interface("fd00:1::10/64"))
        moved = await lab.add_host("dc2", "two", IPv4Interface("10.1.0.11/24"), IPv6Interface("fd00:1::11/64"))
        assert await ping(one.namespace, lab.site("dc1").gateway6)
        # What the xTR of dc2 would do for the one that moved in.
        await netns.ip(lab.site("dc2").namespace, ["route add fd00:1::11/128 dev lan"])
        for host in (one, moved):
            assert await ping(host.namespace, "fe80::1%eth0")
            known = await run(["ip", "-6", "neighbour", "show", "fe80::1"], namespace=host.namespace)
            assert "lladdr 02:fc:00:00:a0:01" in known
            assert await forwards_ipv6(host)


async def forwards_ipv6(host: Host) -> bool:
    """Whether the router takes a packet for elsewhere and says that it knows no way (rather than nothing)."""
    answer = await run(["sh", "-c", "ping -6 -c 1 -W 2 fd00:4::10; true"], namespace=host.namespace)
    return "No route" in answer or "unreachable" in answer.lower()


async def test_frames_that_a_host_bounces_come_back_to_the_lan() -> None:
    async with LispLab() as lab:
        site, hypervisor = lab.site("dc1"), lab.hosts["dc1"]
        host = migration_host.Host(
            hypervisor.name, hypervisor.namespace, hypervisor.bridge, hypervisor.uplink,
            hypervisor.management_address, hypervisor.run_dir,
        )
        neighbour = f"neighbour add 10.1.0.9 lladdr {MACHINE_MAC.hex(':')} dev {site.lan_device} nud permanent"
        await netns.ip(site.namespace, [neighbour])
        capture = Capture(site.namespace, hypervisor.name)
        bounce = Bounce(host, None, MACHINE_MAC)

        async def frames_for_the_machine() -> tuple[list[bytes], list[bytes]]:
            assert not await ping(site.namespace, "10.1.0.9", "-W", "0.2")
            sent, received = ([f for f in frames if f[:6] == MACHINE_MAC] for frames in capture.read())
            return sent, received

        try:
            sent, received = await frames_for_the_machine()
            assert (len(sent), received) == (1, [])
            bounce.flip()
            sent, received = await frames_for_the_machine()
            assert len(sent) == 1
            assert received == sent
            assert received[0][6:12] == site.gateway_mac, "its own address as source: the LAN must not mind"
        finally:
            bounce.close()
            capture.close()
        for namespace in (site.namespace, hypervisor.namespace):
            ports = await run(["bridge", "-d", "link"], namespace=namespace)
            assert "learning off" in ports
            assert "learning on" not in ports


async def test_a_stream_of_pings_survives_a_move_but_for_the_moment_of_it() -> None:
    async with LispLab(LispLabConfig(between_sites_rtt_s=0.010)) as lab:
        await route_eids_natively(lab)
        server = await lab.add_host("dc1", "server", IPv4Interface("10.1.0.10/24"))
        there = lab.site("wlan2")
        await lab.move_client("wlan1")
        async with Pinger(server.namespace, lab.client_address.ip) as pinger:
            await asyncio.sleep(0.3)
            await netns.ip(there.namespace, [f"route add {lab.client_address.ip}/32 dev {there.lan_device}"])
            await lab.move_client("wlan2")
            await netns.ip(lab.core_namespace, [f"route add {lab.client_address.ip}/32 via {there.rloc}"])
            await asyncio.sleep(0.5)
        answered = [ping.rtt_s is not None for ping in pinger.pings]
        print(f"{answered.count(False)} of {len(answered)} pings lost")
        assert all(answered[1:20])
        assert all(answered[-20:])


async def test_two_labs_at_once_do_not_meet() -> None:
    async with LispLab() as one, LispLab() as other:
        await one.add_host("dc1", "here", IPv4Interface("10.1.0.10/24"))
        assert await ping(one.site("dc1").namespace, "10.1.0.10")
        assert not await ping(other.site("dc1").namespace, "10.1.0.10", "-W", "1")
