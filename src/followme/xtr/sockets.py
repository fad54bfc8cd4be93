"""The control port: one UDP socket for each of our RLOCs, read in gulps."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from ipaddress import ip_address

from followme.lisp import CONTROL_PORT
from followme.system.netns import socket_in
from followme.system.sendbuffer import widen
from followme.xtr.errors import DataPlaneError

from .outputs import Datagram, IPAddress

_BATCH = 64
_BUFFER = 1 << 22
_LARGEST = 65_535


class ControlSockets:
    """UDP 4342 on each RLOC. ``tell(data, source, port)`` is called for each datagram, ``done()`` after each
    gulp. What is sent goes out by the socket that is being answered, else by the first of its IP version."""

    def __init__(
        self, namespace: str | None, rlocs: tuple[IPAddress, ...], tell: Callable[[bytes, IPAddress, int], None],
        done: Callable[[], None],
    ) -> None:  # fmt: skip
        self._tell, self._done = tell, done
        self._sockets: list[tuple[int, socket.socket]] = []
        self._answering: tuple[IPAddress, socket.socket] | None = None
        self.unsent = 0
        try:
            for rloc in rlocs:
                self._sockets.append((rloc.version, self._open(namespace, rloc)))
        except BaseException:
            self.close()
            raise

    def watch(self) -> None:
        """Begin to read; from a running event loop."""
        loop = asyncio.get_running_loop()
        for _, sock in self._sockets:
            loop.add_reader(sock.fileno(), self._read, sock)

    def send(self, datagram: Datagram) -> None:
        """What cannot be sent is counted: control messages are repeated where it matters."""
        address = datagram.address
        sock: socket.socket | None
        if self._answering is not None and self._answering[0] == address:
            sock = self._answering[1]
        else:
            sock = next((one for version, one in self._sockets if version == address.version), None)
        try:
            if sock is None:
                raise OSError
            sock.sendto(datagram.data, (str(address), datagram.port))
        except OSError:
            self.unsent += 1

    def close(self) -> None:
        for _, sock in self._sockets:
            with contextlib.suppress(RuntimeError):  # no loop runs: then nobody watches
                asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()

    def _read(self, sock: socket.socket) -> None:
        try:
            for _ in range(_BATCH):
                try:
                    data, peer = sock.recvfrom(_LARGEST)
                except BlockingIOError:
                    break
                except OSError:
                    continue  # an ICMP error for something that was sent
                source = ip_address(peer[0].partition("%")[0])
                self._answering = source, sock
                self._tell(data, source, peer[1])
                self._done()
        finally:
            self._answering = None

    @staticmethod
    def _open(namespace: str | None, rloc: IPAddress) -> socket.socket:
        family = socket.AF_INET if rloc.version == 4 else socket.AF_INET6
        sock = socket_in(namespace, family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            widen(sock)
            if rloc.version == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((str(rloc), CONTROL_PORT))
        except OSError as error:
            sock.close()
            place = namespace or "this namespace"
            raise DataPlaneError(
                f"cannot listen on {rloc} port {CONTROL_PORT} in {place}: {error.strerror}; is another xTR there?"
            ) from None
        return sock
