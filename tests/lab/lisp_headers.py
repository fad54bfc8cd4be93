"""What LISP headers a site's packets have in the core."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from followme.lab.lisp_topology import LispLab
from followme.system import netns

_DATA_PORT = (4341).to_bytes(2)
_ALL_PROTOCOLS = 3
PLAIN = b"\x08\0\0\0"
"""As in RFC 9300: the I bit, not the P bit, and no nonce."""


class Captured:
    """At the core's end of the site's uplink: what is handed to it does not show as sent at the site's own."""

    def __init__(self, capture: socket.socket) -> None:
        self._capture = capture

    def both_ways(self, each: int = 6) -> tuple[set[bytes], set[bytes]]:
        """The first four octets of the next headers: of packets from the site, and to it. ``TimeoutError`` unless
        two seconds bring at least ``each`` of both."""
        headers: dict[bool, list[bytes]] = {False: [], True: []}
        while min(map(len, headers.values())) < each:
            frame, address = self._capture.recvfrom(200)
            if frame[36:38] == _DATA_PORT:
                headers[address[2] == socket.PACKET_OUTGOING].append(frame[42:46])
        return set(headers[False]), set(headers[True])


@contextlib.contextmanager
def captured(lab: LispLab, site: str) -> Iterator[Captured]:
    """From now on."""
    capture = netns.socket_in(lab.core_namespace, socket.AF_PACKET, socket.SOCK_RAW, 0)
    with contextlib.closing(capture):
        capture.settimeout(2.0)
        capture.bind((site, _ALL_PROTOCOLS))
        yield Captured(capture)
