"""What decisions may know of LISP sites: places from the map system, delays from the access routers' probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan

import numpy as np

from followme.config.lisp import LispConfig
from followme.controllers.lisp.places import Places
from followme.controllers.lisp.sites import Site
from followme.controllers.situations import Floats
from followme.domain import NetworkKind
from followme.migration.mover import Result


class LispWorld:
    """``situations.World``. Loss and free bandwidth are not measured here: nobody knows them."""

    def __init__(
        self, config: LispConfig, places: Places, sites: Mapping[str, Site], results: Mapping[str, Result]
    ) -> None:
        centres = [one for one in config.networks if one.kind is NetworkKind.DATACENTRE]
        self.centres: Sequence[str] = [one.name for one in centres]
        self._rlocs = [str(one.rlocs[0]) for one in centres]
        self._access = {one.name for one in config.networks if one.kind is NetworkKind.ACCESS}
        self._memory = {one.name: one.memory_mib << 20 for one in config.file.machines}
        self._places, self._sites, self._results = places, sites, results
        self._going: dict[str, str] = {}
        self._changes = 0
        self._bandwidth: dict[frozenset[str], float] = {}
        self._unknown = np.full(len(centres), nan)

    def going(self, machine: str, target: str | None) -> None:
        """The machine is being carried to ``target``; ``None``: no more."""
        self._changes += 1
        if target is None:
            self._going.pop(machine, None)
        else:
            self._going[machine] = target

    def carried(self, source: str, target: str, result: Result) -> None:
        """A migration between two data centres says what lies between them."""
        self._bandwidth[frozenset((source, target))] = 8 * result.bytes / max(result.total_s, 1e-9)

    @property
    def moves(self) -> int:
        return self._places.moves + self._changes

    def access_of(self, user: str) -> str | None:
        site = self._places.all.get(user)
        return site if site in self._access else None

    def place_of(self, machine: str) -> tuple[str, str] | None:
        here = self._places.all.get(machine)
        return None if here is None else (here, self._going.get(machine, here))

    def measured(self, access: str) -> tuple[Floats, Floats, Floats]:
        delays = self._sites[access].delays
        return np.array([delays.get(rloc, nan) for rloc in self._rlocs]), self._unknown, self._unknown

    def expected_bytes(self, machine: str) -> int:
        """What it cost last time, its whole memory before that is known."""
        result = self._results.get(machine)
        return self._memory[machine] if result is None else result.bytes

    def bandwidth_bit_s(self, source: str, target: str) -> float | None:
        return self._bandwidth.get(frozenset((source, target)))

    def stalled_s(self, machine: str) -> float | None:
        last = self._results.get(machine)
        return None if last is None else max(last.pause_s, last.held_s)
