"""The control sockets on real links: hosts that do not answer ARP must not keep back what is sent to others."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from ipaddress import IPv4Address

import pytest

from followme.mapsystem.outbox import Datagram
from followme.mapsystem.udp import Wire, is_listened_on, open_sockets
from followme.system import needs, netns
from followme.xtr import outputs
from followme.xtr.sockets import ControlSockets

PROBLEMS = needs.check([needs.Need.ROOT, needs.Need.NETWORKS])
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]


@pytest.fixture
async def namespace() -> AsyncIterator[str]:
    name = f"fmms{os.getpid()}"
    await netns.add(name)
    try:
        await netns.ip(name, [
            "link set lo up", "link add link0 type veth peer name other",
            "addr add 192.0.2.18/24 dev link0", "addr add 192.0.2.9/24 dev link0",
            "link set dev link0 up", "link set dev other up",
        ])  # fmt: skip
        yield name
    finally:
        await netns.delete(name)


@pytest.fixture
def itr(namespace: str) -> Iterator[socket.socket]:
    with netns.socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("192.0.2.9", 4342))
        sock.settimeout(1.0)
        yield sock


async def test_answers_to_hosts_that_are_not_there_silence_no_map_server(
    namespace: str, itr: socket.socket
) -> None:
    sockets = netns.call_in(namespace, lambda: open_sockets([IPv4Address("192.0.2.18")], 4342, False))
    with sockets[0]:
        wire = Wire(sockets)
        for number in range(2000):
            wire.send([Datagram(bytes(100), f"192.0.2.{70 + number % 8}", 4342)])
        wire.send([Datagram(b"an answer", "192.0.2.9", 4342)])
        assert (wire.unsent, itr.recv(100)) == (0, b"an answer")


async def test_who_listens_everywhere_knows_each_address_of_this_host(namespace: str) -> None:
    """The second address of a subnet, too: an ETR registered there would be ourselves."""
    everywhere = (IPv4Address("0.0.0.0"),)
    asked = {address: partial(is_listened_on, everywhere, 4342, IPv4Address(address))
             for address in ("192.0.2.18", "192.0.2.9", "192.0.2.10", "198.51.100.1")}  # fmt: skip
    ours = [address for address, ask in asked.items() if netns.call_in(namespace, ask)]
    assert ours == ["192.0.2.18", "192.0.2.9"]


async def test_answers_to_hosts_that_are_not_there_silence_no_router(namespace: str, itr: socket.socket) -> None:
    sockets = ControlSockets(namespace, (IPv4Address("192.0.2.18"),), lambda *_: None, lambda: None)
    with contextlib.closing(sockets):
        for number in range(2000):
            sockets.send(outputs.Datagram(bytes(100), IPv4Address(f"192.0.2.{70 + number % 8}"), 4342))
        sockets.send(outputs.Datagram(b"an answer", IPv4Address("192.0.2.9"), 4342))
        assert (sockets.unsent, itr.recv(100)) == (0, b"an answer")
