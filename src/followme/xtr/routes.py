"""The map-cache in the kernel: one route for each EID-prefix.

Every change is one netlink request that the kernel carries out within the call, in microseconds; only the
bulk load is a coroutine, which lets others run between its batches.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterable, Iterator

from followme.system import netns
from followme.xtr import routemsg
from followme.xtr.device import TunnelDevice
from followme.xtr.errors import DataPlaneError
from followme.xtr.fastpath import FastPath
from followme.xtr.routemsg import Entry

_BATCH = 128
_RECEIVE_BYTES = 1 << 18
_BUFFER_BYTES = 1 << 22
_TIMEOUT_S = 5.0
_HINTS = {
    errno.EPERM: "run as root or with CAP_NET_ADMIN",
    errno.ENODEV: "the tunnel device is gone or down: make it again",
    errno.ENETDOWN: "set the tunnel device up",
    errno.ENOMEM: "the kernel has no memory for more routes",
    errno.ENOBUFS: "the kernel has no memory for more routes",
    errno.ESRCH: "there is no such entry",
}


class MapCacheRoutes:
    """The routes of one tunnel device in one table; close it when done (the routes stay).

    ``fastpath`` is told of each change, and by ``entries`` of what an earlier run left. Only the table of the
    map-cache may have one.
    """

    def __init__(
        self, device: TunnelDevice, *, table: int = routemsg.MAIN_TABLE, fastpath: FastPath | None = None
    ) -> None:
        self._device = device
        self._fastpath = fastpath
        self._table = table
        self._sequence = itertools.count(1)
        self._socket = netns.socket_in(device.namespace, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.bind((0, 0))

    @property
    def port(self) -> int:
        """Who the kernel says has made a change of ours (netlink port)."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        self._socket.close()

    def replace(self, entry: Entry) -> None:
        """Add the entry, or put it in the place of the one for its EID-prefix: no packet sees neither."""
        self._change([entry])

    def delete(self, entry: Entry) -> bool:
        """Remove what stands for the entry's EID-prefix; False if nothing did."""
        if self._fastpath is not None:
            self._fastpath.drop(entry)
        sequence = next(self._sequence)
        self._send(routemsg.encode_delete(entry, self._device.index, self._table, sequence, routemsg.ACK))
        code = self._answers({sequence: entry}, sequence, tolerate=errno.ESRCH)
        return code == 0

    async def load(self, entries: Iterable[Entry]) -> int:
        """Add or replace many; how many. The first that the kernel refuses ends it."""
        count = 0
        waiting = iter(entries)
        while batch := list(itertools.islice(waiting, _BATCH)):
            self._change(batch)
            count += len(batch)
            await asyncio.sleep(0)
        return count

    def entries(self) -> list[Entry]:
        """What the kernel holds of ours, IPv4 first: so a daemon that starts again learns its entries."""
        found: list[Entry] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for body in self._dump(family):
                entry = routemsg.decode(body, self._device.index, self._table)
                if entry is not None:
                    found.append(entry)
        if self._fastpath is not None:
            # Exceptions before what covers them, which would catch their packets.
            for entry in sorted(found, key=lambda one: -one.eid.prefixlen):
                self._fastpath.put(entry)
        return found

    def _change(self, batch: list[Entry]) -> None:
        sent: dict[int, Entry] = {}
        data = bytearray()
        sequence = 0
        for position, entry in enumerate(batch):
            sequence = next(self._sequence)
            sent[sequence] = entry
            # An acknowledgement for the last alone: errors of the others come without being asked for.
            last = routemsg.ACK if position == len(batch) - 1 else 0
            data += routemsg.encode_add(entry, self._device.index, self._table, sequence, last)
        self._send(data)
        self._answers(sent, sequence)
        if self._fastpath is not None:
            for entry in batch:
                self._fastpath.put(entry)

    def _answers(self, sent: dict[int, Entry], last: int, tolerate: int = 0) -> int:
        """Read until the last request is answered; raise for the first refused. The last one's code."""
        refused: tuple[Entry, int] | None = None
        while True:
            for kind, sequence, body in routemsg.messages(self._receive()):
                if kind != routemsg.NLMSG_ERROR or sequence not in sent or len(body) < 4:
                    continue
                code = -int(struct.unpack_from("=i", body)[0])
                if code not in (0, tolerate) and refused is None:
                    refused = sent[sequence], code
                if sequence == last:
                    if refused is not None:
                        raise self._refusal(*refused)
                    return code

    def _dump(self, family: int) -> Iterator[bytes]:
        mine = next(self._sequence)
        self._send(routemsg.encode_dump(family, mine))
        while True:
            for kind, sequence, body in routemsg.messages(self._receive()):
                if sequence != mine:
                    continue
                if kind == routemsg.NLMSG_DONE:
                    return
                if kind == routemsg.NLMSG_ERROR:
                    raise DataPlaneError(f"cannot list the routes {self._where()}")
                if kind == routemsg.NEWROUTE:
                    yield body

    def _send(self, data: bytes | bytearray) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise DataPlaneError(f"cannot ask the kernel for a route {self._where()}: {error}") from None

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except OSError as error:  # a time-out is one too
            raise DataPlaneError(f"no answer from the kernel to a route request {self._where()}: {error}") from None

    def _where(self) -> str:
        place = self._device.namespace or "this namespace"
        return f"on {self._device.name} in {place}, table {self._table}"

    def _refusal(self, entry: Entry, code: int) -> DataPlaneError:
        hint = _HINTS.get(code)
        advice = f"; {hint}" if hint else ""
        return DataPlaneError(f"the kernel refused {entry} {self._where()}: {os.strerror(code)}{advice}")
