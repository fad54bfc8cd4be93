"""How many Map-Notifies a host is sent that it may not have asked for: a Map-Request has no authentication."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_UNPROVEN: Final = 64
"""Map-Notifies in one second to one host for Map-Requests that it has not proved to be its own: who has no key
floods nobody through us."""
MAX_HOSTS: Final = 4096


class Unproven:
    """Counts by host, and apart those for which somebody else has asked: these take no room of its own. Addresses
    are text, times seconds; it is bounded."""

    def __init__(self) -> None:
        self._hosts: OrderedDict[tuple[str, bool], tuple[float, int]] = OrderedDict()

    def room(self, host: str, asker: str, now: float) -> bool:
        """Whether ``host`` may be sent one more for a Map-Request of ``asker``; it is counted."""
        key = host, host == asker
        since, count = self._hosts.pop(key, (now, 0))
        if now - since >= 1.0:
            since, count = now, 0
        self._hosts[key] = since, min(count + 1, MAX_UNPROVEN)
        while len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
        return count < MAX_UNPROVEN

    def proven(self, host: str, asker: str) -> None:
        """One of them was acknowledged under the key: there is room for another."""
        key = host, host == asker
        since, count = self._hosts.get(key, (0.0, 0))
        if count:
            self._hosts[key] = since, count - 1
