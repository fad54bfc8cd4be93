"""What hosts of several domains have open with one machine: pings, sessions from either end; and what they see."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal, Self

from followme.lab.base import Host
from followme.lab.guest import DIAL_PORT
from followme.lab.pinger import Pinger
from followme.lab.tcpmeter import TcpMeter, TcpReport
from followme.system.netns import socket_in

LISTEN_PORT = 2000
TCP_INTERVAL_S = 0.020
DIAL_AGAIN_S, DIAL_S = 1.0, 10.0
_HEADERS = 34
"""Octets of a frame up to the end of the IPv4 addresses."""
_ETH_IPV4 = 0x0800

Opener = Literal["peer", "machine"]


class DialledMeter(TcpMeter):
    """A session that the machine opens, to a port of this host; a datagram from the namespace ``via`` tells it."""

    def __init__(self, namespace: str, own: IPv4Address, machine: IPv4Address, via: str) -> None:
        super().__init__(namespace, machine, interval_s=TCP_INTERVAL_S)
        self._own, self._via = own, via
        self.opened_from: IPv4Address | None = None
        """The address that the session came from, as this host sees it."""

    async def _open(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        with contextlib.closing(socket_in(self.namespace, socket.AF_INET, socket.SOCK_STREAM)) as listener:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((str(self._own), LISTEN_PORT))
            listener.listen(4)
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            try:
                async with asyncio.timeout(DIAL_S):
                    while not accepting.done():
                        self._tell()
                        await asyncio.wait([accepting], timeout=DIAL_AGAIN_S)
                    made, (address, _) = await accepting
            except TimeoutError:
                raise TimeoutError(f"{self.target} has opened no session to {self._own} in {DIAL_S:g} s") from None
            finally:
                accepting.cancel()
        made.setblocking(False)
        self.opened_from = IPv4Address(address)
        return made

    def _tell(self) -> None:
        with contextlib.closing(socket_in(self._via, socket.AF_INET, socket.SOCK_DGRAM)) as orders:
            orders.sendto(f"{self._own} {LISTEN_PORT}".encode(), (str(self.target), DIAL_PORT))


class Sniffer:
    """All IPv4 addresses in packets that a host gets or sends, while the ``async with`` block runs."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.addresses: set[IPv4Address] = set()
        self._known: set[bytes] = set()

    async def __aenter__(self) -> Self:
        self._socket = socket_in(self._host.namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_IPV4))
        self._socket.setblocking(False)
        self._socket.bind((self._host.interface, _ETH_IPV4))
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                pair = self._socket.recv(_HEADERS)[26:_HEADERS]
                if len(pair) == 8 and pair not in self._known:
                    self._known.add(pair)
                    self.addresses |= {IPv4Address(pair[:4]), IPv4Address(pair[4:])}


@dataclass(slots=True)
class Session:
    """``opened_at``: where the machine was; ``opened_s``: how long it took."""

    network: str
    opener: Opener
    opened_at: str
    opened_s: float
    meter: TcpMeter

    @property
    def name(self) -> str:
        return f"{self.network}, opened by the {self.opener} while at {self.opened_at}"

    def report(self) -> TcpReport:
        return self.meter.report()


class Peers:
    """Hosts, one a network, and what they have open with ``machine``. ``close`` ends it all; then read reports."""

    def __init__(self, machine: IPv4Address, is_locator: Callable[[IPv4Address], bool]) -> None:
        self.machine = machine
        self.hosts: dict[str, tuple[Host, IPv4Address]] = {}
        self.pingers: dict[str, Pinger] = {}
        self.sessions: list[Session] = []
        self._sniffers: dict[str, Sniffer] = {}
        self._is_locator = is_locator
        self._exit = contextlib.AsyncExitStack()

    async def add(self, network: str, host: Host, address: IPv4Address) -> None:
        """A host that says nothing yet, and is watched."""
        self.hosts[network] = host, address
        self._sniffers[network] = await self._exit.enter_async_context(Sniffer(host))

    async def ping(self, network: str) -> None:
        """From now on, from that network's host (``pingers``)."""
        pinger = Pinger(self.hosts[network][0].namespace, self.machine)
        self.pingers[network] = await self._exit.enter_async_context(pinger)

    async def open(self, network: str, opener: Opener, at: str, via: str = "") -> Session:
        """A new session; ``via``: the network whose host tells the machine to open it (that one itself)."""
        host, address = self.hosts[network]
        if opener == "peer":
            meter = TcpMeter(host.namespace, self.machine, interval_s=TCP_INTERVAL_S)
        else:
            meter = DialledMeter(host.namespace, address, self.machine, self.hosts[via or network][0].namespace)
        begin = asyncio.get_running_loop().time()
        await self._exit.enter_async_context(meter)
        session = Session(network, opener, at, asyncio.get_running_loop().time() - begin, meter)
        self.sessions.append(session)
        return session

    def locators_seen(self) -> dict[str, list[str]]:
        """By network: addresses of the core that its host has seen. There must be none."""
        seen = {
            network: sorted(str(one) for one in sniffer.addresses if self._is_locator(one))
            for network, sniffer in self._sniffers.items()
        }  # fmt: skip
        return {network: found for network, found in seen.items() if found}

    async def close(self) -> None:
        await self._exit.aclose()
