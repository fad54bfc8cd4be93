"""Map-Notifies that we send by ourselves: repeated until they are acknowledged (RFC 9301, 5.7; RFC 9437, 6)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from followme.lisp import Eid

from .sites import Site

REPEAT_S: Final = 1.0
TRIES: Final = 3
"""How often a Map-Notify is sent in all."""
MAX_NOTICES: Final = 1 << 17


class Key(NamedTuple):
    """What an acknowledgement has in common with its Map-Notify: where it was sent, nonce, first EID if any."""

    host: str
    port: int
    nonce: int
    eid: Eid | None


class Subject(NamedTuple):
    """What a Map-Notify is about; a newer one of the same subject takes its place."""

    kind: str
    xtr: bytes
    eids: tuple[Eid, ...]


@dataclass(slots=True)
class Notice:
    """One Map-Notify under way. ``about`` is the caller's: what its acknowledgement means."""

    key: Key
    subject: Subject
    site: Site
    data: bytes
    about: object
    tries: int = TRIES
    due: float = 0.0
    local: str = ""


class Notices:
    """All that wait for their Map-Notify-Ack; bounded. Time in seconds, by the caller's clock."""

    def __init__(self, limit: int = MAX_NOTICES) -> None:
        self._limit = limit
        self._waiting: dict[Key, Notice] = {}
        self._subjects: dict[Subject, Notice] = {}
        self._queue: deque[tuple[float, Notice]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, notice: Notice, now: float) -> bool:
        """It has been sent now; False if it will not be repeated: there are too many, or one of its key."""
        earlier = self._subjects.get(notice.subject)
        if earlier is not None:
            self._remove(earlier)
        if notice.key in self._waiting or len(self._waiting) >= self._limit:
            return False
        notice.tries -= 1
        notice.due = now + REPEAT_S
        self._waiting[notice.key] = notice
        self._subjects[notice.subject] = notice
        self._queue.append((notice.due, notice))
        if len(self._queue) > 2 * len(self._waiting) + 1024:
            self._queue = deque(entry for entry in self._queue if self._live(*entry))
        return True

    def get(self, key: Key) -> Notice | None:
        return self._waiting.get(key)

    def forget(self, subject: Subject) -> None:
        """Wait no longer for its acknowledgement, if it waits still."""
        notice = self._subjects.get(subject)
        if notice is not None:
            self._remove(notice)

    def acknowledged(self, notice: Notice) -> None:
        if self._waiting.get(notice.key) is notice:
            self._remove(notice)

    def due(self) -> float | None:
        """When ``repeat`` has something to do."""
        while self._queue and not self._live(*self._queue[0]):
            self._queue.popleft()
        return self._queue[0][0] if self._queue else None

    def repeat(self, now: float) -> tuple[list[Notice], list[Notice]]:
        """Those to be sent again now, and those given up."""
        again: list[Notice] = []
        given_up: list[Notice] = []
        while (due := self.due()) is not None and due <= now:
            _, notice = self._queue.popleft()
            if notice.tries <= 0:
                self._remove(notice)
                given_up.append(notice)
                continue
            notice.tries -= 1
            notice.due = now + REPEAT_S
            self._queue.append((notice.due, notice))
            again.append(notice)
        return again, given_up

    def _live(self, due: float, notice: Notice) -> bool:
        return self._waiting.get(notice.key) is notice and notice.due == due

    def _remove(self, notice: Notice) -> None:
        self._waiting.pop(notice.key, None)
        if self._subjects.get(notice.subject) is notice:
            del self._subjects[notice.subject]
