"""Dynamic EIDs on our LAN: who may claim to be here (RFC 9301 has no protection at this edge; these rules do).

An EID that the controller placed is pinned: nothing on a LAN can claim it, here or back. A user whose MAC is
configured must have it. Else the last claim wins, but an EID changes hands only so often in a minute, and
neither a MAC nor a LAN can hold more than so many EIDs.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from followme.lisp import EidPrefix

MAX_CHANGES, CHANGES_S = 8, 60.0
MAX_HISTORY = 4096
_OF_MAC = "EIDs of one MAC"
SILENT_S, SWEEP_S, CHECKS = 300.0, 5.0, 3
"""A node that was not heard for 300 s is asked; after three questions, 5 s apart, it has left."""
ROUTE_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """Which EIDs may roam into our LAN. ``own`` are the router's addresses and MACs there."""

    ranges: tuple[EidPrefix, ...]
    macs: Mapping[EidPrefix, bytes]
    own_addresses: frozenset[EidPrefix]
    own_macs: frozenset[bytes]
    max_eids: int = 1024
    max_per_mac: int = 16


@dataclass(frozen=True, slots=True)
class Resident:
    """A dynamic EID that is here. ``pinned``: the controller placed it; ``expected``: it is about to come."""

    eid: EidPrefix
    mac: bytes
    pinned: bool = False
    expected: bool = False


class Residents:
    """The dynamic EIDs that are here, and those that no LAN may claim. ``home`` says whether an EID is of our
    own subnet, ``away`` whether such a one is elsewhere now."""

    def __init__(
        self, policy: Policy, home: Callable[[EidPrefix], bool], away: Callable[[EidPrefix], bool]
    ) -> None:
        self.policy, self._home, self._away = policy, home, away
        self.here: dict[EidPrefix, Resident] = {}
        self.guarded: OrderedDict[EidPrefix, None] = OrderedDict()
        """EIDs that the controller has moved away from here."""
        self._heard: dict[EidPrefix, float] = {}  # the longest silent first
        self._asked: Counter[EidPrefix] = Counter()
        self._routed: dict[EidPrefix, float] = {}
        self._sweep_at = 0.0
        self._per_mac: Counter[bytes] = Counter()
        self._changes: OrderedDict[EidPrefix, list[float]] = OrderedDict()

    def judge(self, eid: EidPrefix, mac: bytes, now: float) -> str | None:
        """A node on the LAN shows the EID: "" if it is to be taken in, ``None`` if there is nothing to do,
        else the reason of the refusal."""
        policy = self.policy
        if mac in policy.own_macs or eid in policy.own_addresses:
            return None
        if mac[0] & 1 or not any(mac):
            return "claim from a group address"
        present = self.here.get(eid)
        if present is not None and (present.mac == mac or present.expected):
            return None
        if eid in self.guarded or (present is not None and present.pinned):
            return "claim of a pinned EID"
        if self._home(eid):
            if present is None and not self._away(eid):
                return None
        elif not any(prefix.covers(eid) for prefix in policy.ranges):
            return "claim outside the dynamic ranges"
        if policy.macs.get(eid, mac) != mac:
            return "claim with a wrong MAC"
        full = self._full(eid, mac)
        if full and self.displaced(eid, mac, now) is None:
            return full
        if not self._may_change(eid, now):
            return "EID claimed to and fro"
        return ""

    def displaced(self, eid: EidPrefix, mac: bytes, now: float) -> EidPrefix | None:
        """The IPv6 EID that goes where there is no room for ``eid`` at ``mac``: the one that was not heard for
        longest, of that MAC if it is that which has too many, and for 300 s at least."""
        full = self._full(eid, mac)
        for old, heard in self._heard.items():
            if not full or now - heard < SILENT_S:
                break
            resident = self.here[old]
            of_mac = resident.mac == mac or full != _OF_MAC
            if len(old.address) == 16 and of_mac and not resident.pinned:
                return old
        return None

    def _full(self, eid: EidPrefix, mac: bytes) -> str:
        if self._per_mac[mac] >= self.policy.max_per_mac:
            return _OF_MAC
        return "EIDs on this LAN" if eid not in self.here and len(self.here) >= self.policy.max_eids else ""

    def put(self, resident: Resident) -> None:
        self.drop(resident.eid)
        self.here[resident.eid] = resident
        if not resident.pinned:
            self._per_mac[resident.mac] += 1

    def heard(self, eid: EidPrefix, mac: bytes, now: float) -> None:
        """Something came of ``mac`` that shows that ``eid`` is there."""
        resident = self.here.get(eid)
        if resident is not None and resident.mac == mac:
            self._heard.pop(eid, None)
            self._heard[eid] = now
            self._asked.pop(eid, None)

    def sweep(self, now: float) -> tuple[list[EidPrefix], list[EidPrefix]]:
        """EIDs to be asked whether they are still there, and EIDs that have left without a word.

        Those that the controller placed are its own affair. IPv6 is not asked: its EIDs stay until they show
        up elsewhere, or others need their place (``displaced``).
        """
        ask: list[EidPrefix] = []
        left: list[EidPrefix] = []
        if now < self._sweep_at:
            return ask, left
        self._sweep_at = now + SWEEP_S
        for eid, resident in self.here.items():
            if resident.pinned:
                continue
            if now - self._heard.setdefault(eid, now) < SILENT_S or len(eid.address) != 4:
                continue
            self._asked[eid] += 1
            (ask if self._asked[eid] <= CHECKS else left).append(eid)
        return ask, left

    def next_sweep(self) -> float | None:
        return self._sweep_at if self.here else None

    def unrouted(self, eid: EidPrefix, now: float) -> bool:
        """A packet for one that is here has missed: whether to set its route again, once a second."""
        if eid not in self.here or now - self._routed.get(eid, float("-inf")) < ROUTE_AGAIN_S:
            return False
        self._routed[eid] = now
        return True

    def guard(self, eid: EidPrefix) -> None:
        """The controller moves the EID away: what is left of it on the LAN cannot claim it back."""
        self.guarded[eid] = None
        self.guarded.move_to_end(eid)
        while len(self.guarded) > MAX_HISTORY:
            self.guarded.popitem(last=False)

    def drop(self, eid: EidPrefix) -> Resident | None:
        resident = self.here.pop(eid, None)
        self._routed.pop(eid, None)
        self._heard.pop(eid, None)
        self._asked.pop(eid, None)
        if resident is not None and not resident.pinned:
            self._per_mac[resident.mac] -= 1
            if self._per_mac[resident.mac] <= 0:
                del self._per_mac[resident.mac]
        return resident

    def _may_change(self, eid: EidPrefix, now: float) -> bool:
        times = [at for at in self._changes.get(eid, ()) if now - at < CHANGES_S]
        if len(times) >= MAX_CHANGES:
            return False
        self._changes[eid] = [*times, now]
        self._changes.move_to_end(eid)
        while len(self._changes) > MAX_HISTORY:
            self._changes.popitem(last=False)
        return True
