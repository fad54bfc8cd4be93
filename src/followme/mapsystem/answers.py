"""The look-up side of the map system: what a Map-Request is answered (RFC 9301, 5.5 and 8.3).

It knows only what an answer takes, so that processes which do nothing but answer can hold a copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, NamedTuple

from followme.lisp import Action, EidPrefix, MappingRecord, map_reply_fast, parse_map_request_fast
from followme.lisp.prefixtable import PrefixTable, truncate

MAX_BODIES: Final = 1 << 16
"""Answers kept ready; a flood of different questions makes no more of them."""
MAX_OCTETS: Final = 1400
"""Of records in a Map-Reply: no fragments, and little for those who would have us flood others."""
MAX_MORE_SPECIFICS: Final = 16
TTL_OUTSIDE: Final = 15
TTL_NOT_REGISTERED: Final = 1
"""Minutes (RFC 9301, 8.3)."""


class Entry(NamedTuple):
    """A registered mapping; ``forward``: its ETR answers for itself."""

    record: MappingRecord
    forward: bool = False


class FastReply(NamedTuple):
    """A Map-Reply, and where it goes: RLOC (packed) and UDP port."""

    data: bytes
    rloc: bytes
    port: int


@dataclass(frozen=True, slots=True)
class Negative:
    """What an ITR shall do with packets: ``outside`` every site's prefixes; in one, but ``not_registered``."""

    outside: Action = Action.NATIVELY_FORWARD
    not_registered: Action = Action.NATIVELY_FORWARD


class Answers:
    """The table of mappings, and the answers from it. ``configured`` are the sites' EID-prefixes."""

    def __init__(self, configured: Iterable[EidPrefix] = (), negative: Negative | None = None) -> None:
        self.entries: PrefixTable[Entry] = PrefixTable()
        self._configured: PrefixTable[None] = PrefixTable()
        for eid in configured:
            self._configured.put(eid, None)
        self._negative = negative or Negative()
        self._bodies: dict[EidPrefix, bytes] = {}

    def put(self, eid: EidPrefix, entry: Entry | None) -> bool:
        """Set or (``None``) remove a mapping; whether that changed anything."""
        if self.entries.get(eid) == entry:
            return False
        if entry is None:
            self.entries.pop(eid)
        else:
            self.entries.put(eid, entry)
        self._bodies.clear()
        return True

    def fast(self, datagram: bytes) -> FastReply | None:
        """The answer to a common Map-Request that has one here; ``None`` for all else."""
        request = parse_map_request_fast(datagram)
        if request is None:
            return None
        eid = request.eid
        body = self._bodies.get(eid)
        if body is None:
            records = self.records(eid)
            if records is None:
                return None
            encoded = [record.encode() for record in records]
            # The count goes before the records, so that one look-up gives both.
            body = bytes((len(encoded),)) + b"".join(encoded)
            if len(self._bodies) >= MAX_BODIES:
                self._bodies.clear()
            self._bodies[eid] = body
        if body[0] == 1:
            data = map_reply_fast(request.nonce, body[1:])
        else:
            data = b"\x20\0\0" + body[:1] + request.nonce + body[1:]
        return FastReply(data, request.itr_rloc, request.reply_port)

    def records(
        self, eid: EidPrefix, octets: int = MAX_OCTETS, proxy: bool = False
    ) -> tuple[MappingRecord, ...] | None:
        """The records that answer for ``eid``, one at least; ``None`` if an ETR has to be asked.

        ``proxy``: no ETR is asked (RFC 9437, 4 wants that of a map server that publishes).

        The longest match and all that is more specific in it, with one TTL (RFC 9301, 5.5). Where that is
        too much, the largest part of the match around ``eid`` in which nothing is more specific: it says
        the same of ``eid``, and nothing wrong of any other. For a prefix: what is registered inside it.
        """
        match = self.entries.longest(eid)
        if match is None:
            inside = _bounded(self.entries.within(eid), 255, octets)
            return (self._no_mapping(eid),) if not inside else self._same_ttl(inside)
        prefix, entry = match
        if entry.forward and not proxy:
            return None
        if not eid.host and eid != prefix:
            more = _bounded(self.entries.within(eid), 254, octets - len(entry.record.encode()))
            return self._same_ttl([entry, *more])
        every = list(islice(self.entries.within(prefix), MAX_MORE_SPECIFICS + 2))
        found = _bounded(every, MAX_MORE_SPECIFICS + 1, octets)
        if len(found) == len(every) and (proxy or not any(one.forward for one in found)):
            return self._same_ttl(found)
        if not eid.host:
            return self._same_ttl(_bounded(self.entries.within(eid), 255, octets))
        return (replace(entry.record, eid=truncate(eid, self.entries.hole(eid))),)

    def _same_ttl(self, entries: list[Entry]) -> tuple[MappingRecord, ...]:
        ttl = min(entry.record.ttl for entry in entries)
        return tuple(entry.record if entry.record.ttl == ttl else replace(entry.record, ttl=ttl)
                     for entry in entries)  # fmt: skip

    def _no_mapping(self, eid: EidPrefix) -> MappingRecord:
        length = max(self.entries.hole(eid), self._configured.hole(eid))
        known = self._configured.longest(eid) is not None or any(True for _ in self._configured.within(eid))
        action = self._negative.not_registered if known else self._negative.outside
        ttl = TTL_NOT_REGISTERED if known else TTL_OUTSIDE
        return MappingRecord(truncate(eid, length), (), ttl, action)


def _bounded(entries: Iterable[tuple[EidPrefix, Entry]], count: int, octets: int) -> list[Entry]:
    """The first ``count`` at the most, as far as they fit into ``octets``."""
    found: list[Entry] = []
    for _, entry in islice(entries, count):
        octets -= len(entry.record.encode())
        if octets < 0:
            break
        found.append(entry)
    return found
