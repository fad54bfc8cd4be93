"""The map server's UDP sockets: emptied in one go, answered in the same turn."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from .answers import Answers
from .outbox import Datagram

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


@dataclass(slots=True)
class Wire:
    """All sockets, with what goes wrong counted."""

    sockets: Sequence[socket.socket]
    answered: int = 0
    unsent: int = 0
    _hosts: dict[bytes, str] = field(default_factory=dict)

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
            except OSError:
                self.unsent += 1
        return rest

    def send(self, datagrams: Iterable[Datagram], through: socket.socket | None = None) -> None:
        """By ``through`` if it is of the family (it is where the question came in), else by the first that is."""
        for data, host, port in datagrams:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            one = through
            if one is None or one.family != family:
                one = next((other for other in self.sockets if other.family == family), None)
            try:
                if one is None:
                    self.unsent += 1
                else:
                    one.sendto(data, (host, port))
            except OSError:
                self.unsent += 1

    def _host(self, rloc: bytes) -> str:
        """The address as text, "" if it is not one host's."""
        address = ip_address(rloc)
        usable = not (address.is_multicast or address.is_unspecified or rloc == b"\xff\xff\xff\xff")
        if len(self._hosts) >= MAX_HOSTS:
            self._hosts.clear()
        host = self._hosts[rloc] = str(address) if usable else ""
        return host
