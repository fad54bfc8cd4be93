"""``MapClient`` and the real map server's core, with a wire between them that loses what it is told to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address

from followme.lisp import decode
from followme.mapsystem import Datagram, MapServer, Outcome
from followme.mapsystem.client import Answered, Changed, MapClient

from .fakes import IDS, KEYS, RLOCS

SERVER = ("192.0.2.18", 4342)
OURS = (RLOCS["ctl"], 4342)
USER, AWAY = "10.3.0.10/32", RLOCS["wlan2"]


def client(key: bytes = KEYS["ctl"], **changes: object) -> MapClient:
    values: dict[str, object] = {"site_id": IDS["ctl"], "xtr_id": b"ctl".ljust(16, b"."), "wall_s": 1.75e9}
    return MapClient(IPv4Address(OURS[0]), OURS[1], SERVER, key, **{**values, **changes})  # type: ignore[arg-type]


class Wire:
    """Client and server on one clock. ``lose`` says of each datagram (to whom, bytes) whether it is lost."""

    def __init__(self, server: MapServer, client: MapClient) -> None:
        self.server, self.client = server, client
        self.now = 0.0
        self.lose: Callable[[str, bytes], bool] = lambda host, data: False
        self.sent: Counter[str] = Counter()
        self.heard: list[bytes] = []
        self.events: list[Changed | Answered] = []

    def run(self, seconds: float = 0.0) -> list[Changed | Answered]:
        """Let time pass; what the client was told meanwhile."""
        end = self.now + seconds
        self.client.timer(self.now)
        self._carry([])
        while (due := self._due()) is not None and due <= end:
            self.now = max(due, self.now + 0.001)
            self.client.timer(self.now)
            self._carry(self.server.timer(self.now).datagrams)
        self.now = end
        told, self.events = self.events, []
        return told

    def tell(self, outcome: Outcome) -> list[Changed | Answered]:
        """What a router's message has caused reaches the client."""
        self._carry(outcome.datagrams)
        return self.run()

    def _due(self) -> float | None:
        return min((one for one in (self.client.next_timer(), self.server.next_timer()) if one is not None),
                   default=None)  # fmt: skip

    def _carry(self, to_client: list[Datagram]) -> None:
        waiting = list(to_client)
        while waiting or self.client.datagrams:
            for data, host, port, _ in waiting:
                if (host, port) == OURS and not self.lose(host, data):
                    self.heard.append(data)
                    self.client.receive(data, SERVER, self.now)
            waiting = []
            while self.client.datagrams:
                data, target = self.client.datagrams.popleft()
                assert target == SERVER
                message = decode(data)
                self.sent[type(message).__name__] += 1
                if not self.lose(target[0], data):
                    waiting += self.server.receive(data, OURS, self.now).datagrams
        self.events += self.client.events
        self.client.events.clear()


def changes(told: list[Changed | Answered]) -> list[tuple[str, list[str]]]:
    return [(str(one.record.eid), [str(locator.address) for locator in one.record.locators])
            for one in told if isinstance(one, Changed)]  # fmt: skip
