"""What the kernel loses of ours without our doing, as netlink tells it: devices that go down or away, routes, rules
and nftables' tables that somebody deletes; and that the LAN's addresses are others.

A device that goes down takes its IPv4 routes with it, and the kernel says nothing of those. A filter at the socket
keeps from us what we delete ourselves, so a busy map-cache costs nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from followme.system.netns import socket_in
from followme.xtr import routemsg

from . import lanfilter

_LINKS, _ROUTES4, _ROUTES6, _RULES4, _RULES6, _ADDRESSES = 0x1, 0x40, 0x400, 0x80, 1 << 18, 0x10 | 0x100
"""Groups of rtnetlink."""
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _DELRULE = 16, 17, 20, 21, 33
_IFADDR = struct.Struct("=BBBBi")
_IFINFO = struct.Struct("=BxHiII")
_IFNAME, _UP = 3, 0x1
_SIOCGIFFLAGS, _SIOCGIFINDEX = 0x8913, 0x8933
_LDW, _LDH, _LDB, _JEQ, _RET = 0x20, 0x28, 0x30, 0x15, 0x06
_TYPE_AT, _SENDER_AT, _PROTOCOL_AT = 4, 12, 21
_RECEIVE_BYTES = 1 << 16
_OVERRUN = -1
Lost = Callable[[str, str], None]
"""Told what was lost, and how."""
_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES = 12, 270, 1, 7
_NEWTABLE, _DELTABLE, _NFGENMSG_BYTES, _TABLE_NAME = 0x0A00, 0x0A02, 4, 1


def _news(sock: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """Kind, causer's port and body of each message that waits; ``_OVERRUN`` where some were lost."""
    while True:
        try:
            data = sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield _OVERRUN, 0, b""
            continue
        at = 0
        for kind, _, body in routemsg.messages(data):
            yield kind, int(routemsg.HEADER.unpack_from(data, at)[4]), body
            at += (routemsg.HEADER.size + len(body) + 3) & ~3


def _text(data: bytes, kind: int) -> str:
    return routemsg.attributes(data).get(kind, b"").rstrip(b"\0").decode(errors="replace")


class TableLosses:
    """Tells ``lost`` of nftables' tables that are deleted, as ``nft flush ruleset`` does, and not made again in the
    same transaction. Raises ``OSError``."""

    def __init__(self, namespace: str | None, tables: Collection[str], lost: Lost) -> None:
        self._tables, self._lost = tables, lost
        self._socket = socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        try:
            self._socket.setblocking(False)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES)
        except BaseException:
            self._socket.close()
            raise
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _read(self) -> None:
        deleted: dict[str, bool] = {}
        for kind, _, body in _news(self._socket):
            if kind in (_NEWTABLE, _DELTABLE):
                deleted[_text(body[_NFGENMSG_BYTES:], _TABLE_NAME)] = kind == _DELTABLE
        for name in self._tables:
            if deleted.get(name):
                self._lost(f"nftables table {name}", "was deleted by somebody else")


class Losses:
    """Tells ``lost``, by the event loop and in words, what was lost of ``devices`` and of the routes and rules of
    ``tables``. ``punt`` is the device whose own end shows that it is gone. ``addressed`` is called when an address
    of the first device comes or goes. Raises ``OSError``."""

    def __init__(
        self, namespace: str | None, devices: Sequence[str], punt: str, tables: Collection[int],
        lost: Lost, addressed: Callable[[], None],
    ) -> None:  # fmt: skip
        self._punt, self._tables, self._lost = punt, tables, lost
        self._lan, self._addressed = devices[0], addressed
        self._socket = socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self.ignore(())
            self._socket.bind((0, _LINKS | _ROUTES4 | _ROUTES6 | _RULES4 | _RULES6 | _ADDRESSES))
            self._names = frozenset((*devices, punt))
            self._up = {name: self.up(name) for name in self._names}
        except BaseException:
            self._socket.close()
            raise
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def ignore(self, ports: Iterable[int]) -> None:
        """What these netlink ports (of sockets of ours) delete is no loss."""
        self._mine = frozenset(port & 0xFFFFFFFF for port in ports)
        # The loads of a filter are of network order, the header is of the machine's.
        kinds = [socket.htons(kind) for kind in (_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _DELRULE)]
        accept: lanfilter.Instruction = (_RET, 0, 0, 0xFFFFFFFF)
        code: list[lanfilter.Instruction] = [(_LDH, 0, 0, _TYPE_AT)]
        for kind in kinds:
            code += [(_JEQ, 0, 1, kind), accept]
        code += [(_JEQ, 1, 0, socket.htons(routemsg.DELROUTE)), (_RET, 0, 0, 0)]
        code += [(_LDB, 0, 0, _PROTOCOL_AT), (_JEQ, 1, 0, routemsg.PROTOCOL), (_RET, 0, 0, 0)]
        code.append((_LDW, 0, 0, _SENDER_AT))
        for port in self._mine:
            code += [(_JEQ, 0, 1, socket.htonl(port)), (_RET, 0, 0, 0)]
        code.append(accept)
        with contextlib.suppress(OSError):  # it has no room for that (net.core.optmem_max): then all news come here
            lanfilter.attach(self._socket, code)

    def up(self, name: str) -> bool:
        """Whether a device is there and set up."""
        return bool(struct.unpack_from("=H", self._asked(_SIOCGIFFLAGS, name))[0] & _UP)

    def _asked(self, request: int, name: str) -> bytes:
        """What an ioctl says of a device; zeros where there is none."""
        try:
            return bytes(fcntl.ioctl(self._socket, request, struct.pack("16s24x", name.encode()[:15])))[16:]
        except OSError:
            return bytes(24)

    def _read(self) -> None:
        indexes: set[int] = set()
        for kind, sender, body in _news(self._socket):
            if kind in (_NEWADDR, _DELADDR) and len(body) >= _IFADDR.size:
                indexes.add(_IFADDR.unpack_from(body)[4])
            elif sender not in self._mine:
                self._heard(kind, body)
        if indexes and struct.unpack_from("=i", self._asked(_SIOCGIFINDEX, self._lan))[0] in indexes:
            self._addressed()

    def _heard(self, kind: int, body: bytes) -> None:
        if kind == _OVERRUN:
            self._lost("what the kernel tells of routes", "was more than there is room for")
        elif kind == _DELRULE or (kind == routemsg.DELROUTE and routemsg.protocol_of(body) == routemsg.PROTOCOL):
            table = routemsg.table_of(body)
            if table in self._tables:
                what = "routes" if kind == routemsg.DELROUTE else "rules"
                self._lost(f"{what} of table {table}", "were deleted by somebody else")
        elif kind in (_NEWLINK, _DELLINK) and len(body) >= _IFINFO.size:
            family, _, _, flags, _ = _IFINFO.unpack_from(body)
            name = _text(body[_IFINFO.size :], _IFNAME)
            if family == socket.AF_UNSPEC and name in self._names:  # else a bridge speaks of its ports
                self._changed(name, there=kind == _NEWLINK, up=bool(flags & _UP))

    def _changed(self, name: str, *, there: bool, up: bool) -> None:
        before, self._up[name] = self._up.get(name, False), there and up
        if not there and name != self._punt:
            self._lost(name, "is gone")
        elif there and before and not up:
            self._lost(name, "is down: the kernel has dropped its routes")
