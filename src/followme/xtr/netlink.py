"""Neighbours and policy rules by rtnetlink: one request, one answer, some ten microseconds each."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from ipaddress import ip_address

from followme.system.netns import socket_in
from followme.xtr import routemsg
from followme.xtr.errors import DataPlaneError

from .outputs import IPAddress

_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_NEWRULE, _RTM_DELRULE = 28, 29, 32, 33
_REQUEST, _ACK, _EXCL, _REPLACE, _CREATE = 0x1, 0x4, 0x200, 0x100, 0x400
_DUMP = 0x300
_ERROR = 2
_SIOCGIFINDEX, _SIOCGIFHWADDR = 0x8933, 0x8927
_HEADER = struct.Struct("=IHHII")
_NUD_STALE, _NUD_PERMANENT = 0x04, 0x80
_NDA_DST, _NDA_LLADDR = 1, 2
_IFADDR = struct.Struct("=BBBBi")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_FRA_IIFNAME, _FRA_PRIORITY, _FRA_TABLE = 3, 6, 15
_TO_TABLE = 1


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _family(address: IPAddress) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


class Netlink:
    """A socket to the tables of one namespace. All methods raise ``DataPlaneError``."""

    def __init__(self, namespace: str | None) -> None:
        self._place = namespace or "this namespace"
        self._socket = socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(5.0)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def set_neighbour(self, device: int, address: IPAddress, mac: bytes, *, permanent: bool) -> None:
        """Who has ``address`` on the device; unless ``permanent`` the kernel verifies it when it is used."""
        state = _NUD_PERMANENT if permanent else _NUD_STALE
        body = struct.pack("=BxxxiHBB", _family(address), device, state, 0, 0)
        body += _attribute(_NDA_DST, address.packed) + _attribute(_NDA_LLADDR, mac)
        self._request(_RTM_NEWNEIGH, _CREATE | _REPLACE, body, f"set the neighbour {address}")

    def forget_neighbour(self, device: int, address: IPAddress) -> bool:
        """False where there is none."""
        body = struct.pack("=BxxxiHBB", _family(address), device, 0, 0, 0) + _attribute(_NDA_DST, address.packed)
        return self._request(_RTM_DELNEIGH, 0, body, f"forget the neighbour {address}", (errno.ENOENT,)) == 0

    def add_rule(self, priority: int, table: int, device: str | None = None) -> None:
        """Packets (that came in by ``device``) are looked up in ``table``; both IP versions; idempotent."""
        self._rule(_RTM_NEWRULE, _CREATE | _EXCL, priority, table, device, (errno.EEXIST, errno.EAFNOSUPPORT))

    def delete_rule(self, priority: int, table: int, device: str | None = None) -> bool:
        """False where there is none."""
        return self._rule(_RTM_DELRULE, 0, priority, table, device, (errno.ENOENT, errno.EAFNOSUPPORT))

    def index(self, name: str) -> int:
        """The number of an interface."""
        return int(struct.unpack_from("=i", self._interface(_SIOCGIFINDEX, name), 16)[0])

    def mac(self, name: str) -> bytes:
        """The MAC of an interface."""
        return self._interface(_SIOCGIFHWADDR, name)[18:24]

    def addresses(self, device: int) -> tuple[IPAddress, ...]:
        """The IP addresses of an interface."""
        self._sequence += 1
        found: list[IPAddress] = []
        try:
            header = _HEADER.pack(_HEADER.size + _IFADDR.size, _RTM_GETADDR, _REQUEST | _DUMP, self._sequence, 0)
            self._socket.send(header + _IFADDR.pack(0, 0, 0, 0, 0))
            while True:
                for kind, sequence, body in routemsg.messages(self._socket.recv(65536)):
                    if sequence != self._sequence:
                        continue
                    if kind == routemsg.NLMSG_DONE:
                        return tuple(found)
                    if kind == _ERROR:
                        raise DataPlaneError(f"{self._place}: cannot list the addresses")
                    if kind == _RTM_NEWADDR and _IFADDR.unpack_from(body)[4] == device:
                        said = routemsg.attributes(body[_IFADDR.size :])
                        # With a peer at the other end the first is that one's.
                        raw = said.get(_IFA_LOCAL) or said.get(_IFA_ADDRESS)
                        if raw:
                            found.append(ip_address(raw))
        except OSError as error:
            raise DataPlaneError(f"{self._place}: the kernel does not answer: {error}") from None

    def _rule(
        self, kind: int, flags: int, priority: int, table: int, device: str | None, accept: tuple[int, ...]
    ) -> bool:
        done = False
        for family in (socket.AF_INET, socket.AF_INET6):
            body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
            body += _attribute(_FRA_PRIORITY, struct.pack("=I", priority))
            body += _attribute(_FRA_TABLE, struct.pack("=I", table))
            if device is not None:
                body += _attribute(_FRA_IIFNAME, device.encode() + b"\0")
            what = f"change the rule {priority} for table {table}"
            done |= self._request(kind, flags, body, what, accept) == 0
        return done

    def _request(self, kind: int, flags: int, body: bytes, what: str, accept: tuple[int, ...] = ()) -> int:
        self._sequence += 1
        message = _HEADER.pack(16 + len(body), kind, flags | _REQUEST | _ACK, self._sequence, 0) + body
        try:
            self._socket.send(message)
            while True:
                answer = self._socket.recv(65536)
                _, answer_kind, _, sequence, _ = _HEADER.unpack_from(answer)
                if sequence == self._sequence and answer_kind == _ERROR:
                    break
        except OSError as error:
            raise DataPlaneError(f"{self._place}: the kernel does not answer: {error}") from None
        code = -int(struct.unpack_from("=i", answer, 16)[0])
        if code and code not in accept:
            raise DataPlaneError(f"{self._place}: cannot {what}: {os.strerror(code)}")
        return code

    def _interface(self, request: int, name: str) -> bytes:
        try:
            return bytes(fcntl.ioctl(self._socket, request, struct.pack("16s24x", name.encode()[:15])))
        except OSError as error:
            raise DataPlaneError(
                f"{self._place} has no interface {name}: {error.strerror}; make it, or write its name in the config"
            ) from None
