"""Who has no key, or no right, changes nothing: at the agents' control port, at UDP 4342, and on a LAN."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
import pytest_asyncio
from tests.lab.following import MARKS, home, refused

from followme.lab.base import Host
from followme.lab.lisp_document import LispScenarioConfig
from followme.lab.lisp_scenario import LispScenario
from followme.lab.meter import Meter
from followme.lab.pinger import Pinger, checksum
from followme.lisp import (
    EidPrefix,
    EidRecord,
    Locator,
    MapNotify,
    MappingRecord,
    MapRegister,
    MapReply,
    MapRequest,
    sign,
)
from followme.packets import arp_request_frame
from followme.remote.channel import ChannelError
from followme.remote.client import Client, Refused
from followme.remote.keys import Key, load_key
from followme.system.netns import socket_in

pytestmark = MARKS
AGENTS = 4360
WRONG_KEY = b"a key that nobody gave us"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario() -> AsyncIterator[LispScenario]:
    async with LispScenario(LispScenarioConfig(policy="always")) as scenario:
        await home(scenario)
        scenario.use_policy("never", {})
        yield scenario


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def evil(scenario: LispScenario) -> Host:
    """A host of wlan2's LAN."""
    return await scenario.lab.add_host("wlan2", "evil", IPv4Interface("10.4.0.66/24"))


def tcp(scenario: LispScenario, namespace: str, site: str) -> socket.socket:
    sock = socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(2.0)
    sock.connect((str(scenario.lab.site(site).rloc), AGENTS))
    return sock


async def as_peer(scenario: LispScenario, name: str, server: str, key: Key) -> Client:
    sock = tcp(scenario, scenario.lab.core_namespace, server)
    sock.setblocking(False)
    return await Client.connect("", AGENTS, name=name, server=server, key=key, sock=sock)


# ---- the control port


async def test_noise_and_wrong_keys_at_the_control_port(scenario: LispScenario) -> None:
    async with Meter(scenario.client.namespace, scenario.machine_identifier, interval_s=0.005) as meter:
        idle = [tcp(scenario, scenario.lab.core_namespace, "dc1") for _ in range(100)]
        for octets in (1, 100, 5000, 200_000):
            with tcp(scenario, scenario.lab.core_namespace, "dc1") as sock, contextlib.suppress(OSError):
                sock.sendall(os.urandom(octets))
                sock.sendall(b"\n")
                sock.recv(4096)
        for name in ("ctl", "dc2", "nobody"):
            with pytest.raises(ChannelError):
                await as_peer(scenario, name, "dc1", Key.random())
        assert (await scenario.site_status("dc1"))["problems"] == {}
        for sock in idle:
            sock.close()
        await asyncio.sleep(0.3)
    assert [ping.sequence for ping in meter.pings if ping.rtt_s is None] == []


async def test_each_role_has_its_own_methods(scenario: LispScenario) -> None:
    keys = scenario.lab.directory / "keys"
    agent = await as_peer(scenario, "dc2", "dc1", load_key(Path(keys / "dc1-dc2.key")))
    order = {"machine": "vm1", "target": "dc2", "eid": "10.1.0.5", "mac": "02:00:00:00:00:01"}
    for method in ("carry", "cancel", "machines", "register", "erase", "site"):
        with pytest.raises(Refused, match="dc2 is no controller"):
            await agent.call(method, order)
    await agent.close()
    for method in ("incoming", "qmp", "kill", "stop_process", "bounce", "keep", "expect", "arrived", "back"):
        with pytest.raises(Refused, match="ctl is no agent"):
            await scenario.controller.sites["dc1"].call(method, {"machine": "vm1", "eid": "10.1.0.5"})
    # An access network's agent is an agent, but nobody told this site to expect a machine of it.
    access = await as_peer(scenario, "wlan2", "dc1", load_key(Path(keys / "dc1-wlan2.key")))
    for method in ("arrived", "back", "unexpect"):
        with contextlib.suppress(Refused):
            await access.call(method, {"eid": "10.1.0.5"})
    with pytest.raises(Refused, match="is at dc1 already"):
        await access.call("expect", {
            "machine": "other", "eid": "10.1.0.5", "mac": "02:00:00:00:00:01", "rloc": "192.0.2.14"})  # fmt: skip
    with contextlib.suppress(Refused):
        await access.call("kill", {"machine": "vm1"})
    await access.close()
    await answers(scenario)


async def answers(scenario: LispScenario, seconds: float = 0.5) -> None:
    """The user reaches the machine, and no ping is lost."""
    async with Pinger(scenario.client.namespace, scenario.machine_identifier, interval_s=0.005) as pinger:
        await asyncio.sleep(seconds)
    assert pinger.pings
    assert not pinger.lost


# ---- UDP 4342


def spoofed(source: IPv4Address, target: IPv4Address, payload: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram from and to port 4342."""
    udp = struct.pack("!HHHH", 4342, 4342, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + source.packed + target.packed
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + udp


def forgeries(evil: IPv4Address, xtr_id: bytes) -> Iterator[bytes]:
    """What would send the user's or the machine's packets to ``evil``, if it were believed."""
    for eid in ("10.3.0.10/32", "10.1.0.5/32", "10.1.0.0/24"):
        record = MappingRecord(EidPrefix.of(eid), (Locator(evil),), authoritative=True)
        yield MapReply(int.from_bytes(os.urandom(8)), (record,)).encode()
        for identity in (None, xtr_id):
            number = 0 if identity is None else 1
            notify = MapNotify((1 << 64) - 2, (record,), identity, number)
            yield sign(notify, WRONG_KEY).encode()
            register = MapRegister(
                (1 << 64) - 2, (record,), proxy_map_reply=True, want_map_notify=True, xtr_id=identity,
                site_id=number,
            )  # fmt: skip
            yield sign(register, WRONG_KEY).encode()
            yield sign(register, WRONG_KEY, key_id=77).encode()
        if record.eid.host:  # type: ignore[union-attr]
            smr = MapRequest(1, (evil,), (EidRecord(record.eid),), source_eid=record.eid, smr=True)
            yield smr.encode()
    yield os.urandom(300)
    yield b""


async def test_forged_control_messages(scenario: LispScenario) -> None:
    """From an address of its own, and in the names of the map server and of each router."""
    lab = scenario.lab
    evil = lab.site("wlan1").core_address
    await answers(scenario)
    places = dict(scenario.controller.places.all)
    names = [evil, lab.map_server_address, *(site.rloc for site in lab.sites)]
    targets = [lab.map_server_address, lab.controller_address, *(site.rloc for site in lab.sites)]
    async with Meter(scenario.client.namespace, scenario.machine_identifier, interval_s=0.005) as meter:
        await asyncio.sleep(0.2)
        with socket_in(lab.core_namespace, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            for target in targets:
                for source in names:
                    if source == target:
                        continue
                    for data in forgeries(evil, os.urandom(16)):
                        with contextlib.suppress(OSError):
                            sock.sendto(spoofed(source, target, data), (str(target), 0))
                await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)
    assert [ping.sequence for ping in meter.pings if ping.rtt_s is None] == []
    assert meter.tcp.alive
    assert scenario.controller.places.all == places
    for site, reasons in (await refused(scenario)).items():
        assert {"Map-Notify with a wrong key", "Map-Notify from a stranger", "SMR from a stranger",
                "Map-Reply with a wrong nonce", "not a LISP message"} <= set(reasons), site  # fmt: skip
    await scenario.move_client("wlan2")  # and what is true is still believed
    await answers(scenario)
    await scenario.move_client("wlan1")


# ---- on a LAN


def claims(host: Host, eid: IPv4Address, count: int = 1, macs: int = 1) -> None:
    """Gratuitous ARP of the host for another's address, under ``macs`` MACs."""
    with socket_in(host.namespace, socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((host.interface, 0))
        for number in range(count):
            mac = host.mac if macs == 1 else b"\x02\xee\x00\x00" + (number % macs).to_bytes(2, "big")
            with contextlib.suppress(OSError):
                link.send(arp_request_frame(mac, eid, eid))


async def test_a_host_of_an_access_network_cannot_have_a_machines_eid(scenario: LispScenario, evil: Host) -> None:
    async with Meter(scenario.client.namespace, scenario.machine_identifier, interval_s=0.005) as meter:
        await asyncio.sleep(0.2)
        claims(evil, scenario.machine_identifier, 50)
        await asyncio.sleep(1.0)
    assert [ping.sequence for ping in meter.pings if ping.rtt_s is None] == []
    assert scenario.machine_network == "dc1"
    assert (await refused(scenario))["wlan2"]["claim outside the dynamic ranges"] >= 50


async def test_a_flood_of_claims_is_bounded(scenario: LispScenario, evil: Host) -> None:
    async with Meter(scenario.client.namespace, scenario.machine_identifier, interval_s=0.005) as meter:
        await asyncio.sleep(0.2)
        for number in range(100, 200):  # one MAC, many addresses
            claims(evil, IPv4Address(f"10.3.0.{number}"))
        claims(evil, IPv4Address("10.3.0.201"), 500, macs=500)  # many MACs, one address
        await asyncio.sleep(1.0)
    status = (await scenario.site_status("wlan2"))["router"]
    assert status["refused"]["EIDs of one MAC"] >= 50
    assert status["refused"]["EID claimed to and fro"] >= 100
    assert len(status["dynamic_eids"]) <= 20
    assert [ping.sequence for ping in meter.pings if ping.rtt_s is None] == []
    assert meter.tcp.alive


async def test_two_routers_that_claim_one_eid(scenario: LispScenario, evil: Host) -> None:
    """The user's EID is claimed at another access network, where it may roam to: the latest claim wins, and the
    user's next packet is one."""
    user = scenario.lab.client_address.ip
    await asyncio.sleep(1.0)
    async with Meter(scenario.client.namespace, scenario.machine_identifier, interval_s=0.005) as meter:
        await asyncio.sleep(0.3)
        for _ in range(3):
            claims(evil, user)
            await asyncio.sleep(2.5)
    lost = [ping.sent_s for ping in meter.pings if ping.rtt_s is None]
    print(f"{len(lost)} of {len(meter.pings)} pings lost to three claims")
    await scenario.controller.wait_for_place("alice", "wlan1", 5.0)
    assert meter.tcp.intact
    assert meter.tcp.alive
    assert len(lost) * 0.005 < 3 * 0.5, "the user's own packets win it back at once"
    await answers(scenario)
