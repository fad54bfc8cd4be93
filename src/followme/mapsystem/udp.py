"""The map server's UDP sockets: emptied in one go, answered in the same turn."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from followme.lisp import CONTROL_PORT
from followme.system.seldom import Seldom
from followme.system.sendbuffer import widen

from .answers import Answers
from .outbox import Datagram

log = logging.getLogger(__name__)

MAX_DATAGRAM: Final = 65535
DRAIN: Final = 256
"""Datagrams read in one turn; then timers and other sockets have theirs."""
RECEIVE_BUFFER: Final = 8 << 20
MAX_HOSTS: Final = 1 << 16

Received = tuple[bytes, tuple[str, int]]


def open_sockets(
    addresses: Iterable[IPv4Address | IPv6Address], port: int, shared: bool
) -> list[socket.socket]:
    """A bound socket for each address, all on one port (0: a free one); ``shared`` with other processes of
    ours. ``OSError`` names the address."""
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            one = socket.socket(family, socket.SOCK_DGRAM)
            opened.append(one)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if shared:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            widen(one)
            one.setblocking(False)
            try:
                one.bind((str(address), port))
            except OSError as error:
                raise OSError(error.errno, f"{address} port {port}: {error.strerror}") from None
            port = one.getsockname()[1]
    except BaseException:
        for one in opened:
            one.close()
        raise
    return opened


def is_listened_on(
    addresses: Collection[IPv4Address | IPv6Address], port: int, address: IPv4Address | IPv6Address
) -> bool:
    """Whether a datagram to ``address``, port 4342, would come to sockets on ``addresses`` and ``port``."""
    if port != CONTROL_PORT or address in addresses:
        return port == CONTROL_PORT
    if all(one.version != address.version or not one.is_unspecified for one in addresses):
        return False
    return _is_ours(address)


def _is_ours(address: IPv4Address | IPv6Address) -> bool:
    """Whether this host has the address: also one that it never takes as a source by itself."""
    try:
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            if not Path(f"/proc/sys/net/ipv{address.version}/ip_nonlocal_bind").read_text().strip("0\n"):
                probe.bind((str(address), 0))
                return True
            probe.connect((str(address), CONTROL_PORT))  # where anything can be bound to
            return address.is_loopback or address_of(probe) == str(address)
    except OSError:
        return False


def address_of(one: socket.socket) -> str:
    """The address that it is bound to."""
    return str(ip_address(one.getsockname()[0]))


@dataclass(slots=True)
class Wire:
    """All sockets, with what goes wrong counted."""

    sockets: Sequence[socket.socket]
    answered: int = 0
    unsent: int = 0
    _hosts: dict[bytes, str] = field(default_factory=dict)
    _seldom: Seldom = field(default_factory=lambda: Seldom(log))

    def drain(self, one: socket.socket, answers: Answers) -> list[Received]:
        """Read what is there, within a bound; answer look-ups at once, and return the rest."""
        rest: list[Received] = []
        receive, send, fast, hosts = one.recvfrom, one.sendto, answers.fast, self._hosts
        octets = 4 if one.family == socket.AF_INET else 16
        for _ in range(DRAIN):
            try:
                data, source = receive(MAX_DATAGRAM)
            except BlockingIOError:
                break
            except OSError:  # what ICMP said of an earlier datagram
                continue
            reply = fast(data)
            if reply is None:
                rest.append((data, source[:2]))
                continue
            answer, rloc, port = reply
            host = hosts.get(rloc)
            if host is None:
                host = self._host(rloc)
            if not host:  # not an address of one host: the full parser refuses it
                rest.append((data, source[:2]))
                continue
            try:
                if len(rloc) == octets:
                    send(answer, (host, port))
                    self.answered += 1
                else:
                    self.send((Datagram(answer, host, port),))
            except OSError as error:
                self._failed(host, port, error)
        return rest

    def send(self, datagrams: Iterable[Datagram], through: socket.socket | None = None) -> None:
        """From the datagram's own ``local`` address; without one by ``through``, where the question came in, if it
        is of the family, else by the socket whose address the routes to the host name."""
        for data, host, port, local in datagrams:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            of_family = [one for one in self.sockets if one.family == family]
            own = through if through is not None and through.family == family else None
            if local:
                own = next((one for one in of_family if address_of(one) == local), own)
            try:
                (own or self._towards(host, port, of_family)).sendto(data, (host, port))
            except OSError as error:
                self._failed(host, port, error)

    def _towards(self, host: str, port: int, of_family: list[socket.socket]) -> socket.socket:
        if not of_family:
            raise OSError("no address of its family is listened on")
        if len(of_family) > 1:
            with socket.socket(of_family[0].family, socket.SOCK_DGRAM) as probe:
                probe.connect((host, port))
                source = address_of(probe)
            loopback = ip_address(host).is_loopback
            of_family = sorted(of_family, key=lambda one: (
                address_of(one) != source, ip_address(address_of(one)).is_loopback != loopback,
            ))  # fmt: skip
        return of_family[0]

    def _failed(self, host: str, port: int, error: OSError) -> None:
        self.unsent += 1
        if self._seldom.due(host, time.monotonic()):
            log.warning("a datagram to %s port %d was not sent: %s", host, port, error.strerror or error)

    def _host(self, rloc: bytes) -> str:
        """The address as text, "" if it is not one host's."""
        address = ip_address(rloc)
        usable = not (address.is_multicast or address.is_unspecified or rloc == b"\xff\xff\xff\xff")
        if len(self._hosts) >= MAX_HOSTS:
            self._hosts.clear()
        host = self._hosts[rloc] = str(address) if usable else ""
        return host
