"""The other process of ``bench.mapserver``: the map server, or (``echo PORT``) the least that Python can do."""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
from pathlib import Path

from followme.mapsystem.config import load
from followme.mapsystem.serve import serve
from followme.mapsystem.udp import DRAIN, RECEIVE_BUFFER


def echo(port: int) -> None:
    """Send every datagram back: what the sockets cost, without any work."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    one.bind(("127.0.0.1", port))
    one.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(one, selectors.EVENT_READ)
    while True:
        selector.select()
        for _ in range(DRAIN):
            try:
                data, source = one.recvfrom(65535)
            except BlockingIOError:
                break
            one.sendto(data, source)


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        echo(int(sys.argv[2]))
    else:
        asyncio.run(serve(load(Path(sys.argv[1]))))
