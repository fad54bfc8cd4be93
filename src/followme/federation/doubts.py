"""What a correspondent was told by another than home: home is asked to know it as a holder.

What home has signed once stays true for ever, to whoever looks at the signature alone: a domain where the node
was could hand it on years later. So home has the last word. Until it has answered, the mapping serves, as it
must when a node speaks first; without an answer for ``DOUBT_S`` it serves no more, and home is still asked, for
another may have told it that we hold it.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Final

from .desk import Desk
from .held import Holdings
from .messages import Accepted, Answer, Holds, Refused
from .outputs import Changed
from .records import HeldRecord

DOUBT_S: Final = 10.0


class Doubts:
    def __init__(self, desk: Desk, held: Holdings) -> None:
        self._desk, self._held = desk, held
        self._due: dict[tuple[int, str], float] = {}

    def begin(self, key: int, record: HeldRecord, networks: Iterable[str]) -> None:
        """Another than home has told these. The caller keeps the record."""
        networks = sorted(networks)
        record.unsure.update(networks)
        self._ask(key, record)
        due = self._desk.now + DOUBT_S
        self._due.update(dict.fromkeys([(key, network) for network in networks], due))
        self._desk.alarm_in(DOUBT_S, lambda: self._late(key, networks, due))

    def contradicted(self, key: int, record: HeldRecord) -> None:
        """Home, or another, tells another mapping of the version that is held: home has lost its records, and sees
        by this what it has made before."""
        self._ask(key, record)

    def end(self, key: int, record: HeldRecord, networks: Iterable[str]) -> None:
        """Home knows that these hold it, or that none need. The caller keeps the record."""
        for network in networks:
            record.unsure.discard(network)
            self._due.pop((key, network), None)
        if not record.unsure:
            self._desk.cancel(("holds", key))

    def resume(self, key: int) -> None:
        """After a restart."""
        record = self._held.records.get(key)
        if record is not None and record.unsure:
            self.begin(key, record, record.unsure & record.networks)

    def answered(self, order: Holds, answer: Answer | None) -> None:
        key = int(order.identifier)
        refused = isinstance(answer, Refused) and not answer.again
        if not isinstance(answer, Accepted) and not refused:
            self._desk.again(("holds", key), order)
            return
        record = self._held.records.get(key)
        if record is None or self._desk.waits(("holds", key)) != _tag(order):
            return  # what has been said since is not answered
        if refused:
            record.networks -= record.unsure
        self.end(key, record, order.held)
        self._held.keep(key, record, record.mapping)
        self._desk.effect(Changed(order.identifier))

    def _late(self, key: int, networks: list[str], due: float) -> None:
        record = self._held.records.get(key)
        gone = {network for network in networks if self._due.get((key, network)) == due}
        if record is None or not gone:
            return
        for network in gone:
            del self._due[key, network]
        record.networks -= gone
        self._desk.refusals["home has not confirmed it"] += 1
        self._held.keep(key, record, record.mapping)
        self._ask(key, record)
        self._desk.effect(Changed(IPv4Address(key)))

    def _ask(self, key: int, record: HeldRecord) -> None:
        home = self._desk.registry.home_of(IPv4Address(key))
        if home is None or record.mapping is None:
            return
        version = record.mapping.version
        held = {network: version if network in record.networks else 0 for network in sorted(record.unsure)}
        order = Holds(record.mapping, held)
        if self._desk.waits(("holds", key)) != _tag(order):
            self._desk.send(("holds", key), home, order, _tag(order))


def _tag(order: Holds) -> tuple[int, tuple[tuple[str, int], ...]]:
    return order.mapping.version, tuple(order.held.items())
