"""A small city and its people, made from a seed, for when there is no trace at hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import hexagon
from .trace import Floats, Trace

_LAT, _LON = 48.0, 11.0
_CELL_KM = 1.0
_KM_PER_DEGREE = 111.195


@dataclass(frozen=True, slots=True, eq=False)
class City:
    """Cells (names, degrees) and the trace of those who live among them."""

    names: tuple[str, ...]
    lat: Floats
    lon: Floats
    trace: Trace


def make_city(seed: int = 0, users: int = 40, hours: float = 24.0, rings: int = 5, every_s: float = 60.0) -> City:
    """Hexagonal cells in rings around the middle, 1 km apart; users who go between three places of their own.

    At a place a user stays 20 minutes in the mean, then goes straight to another at 10 to 50 km/h; a position is
    sent every ``every_s`` seconds. ``ValueError`` if there is no user or no time, or rings are below 2.
    """
    if users < 1 or not hours > 0.0 or not 0.0 < every_s <= 600.0:
        raise ValueError(f"users {users}, hours {hours} and every_s {every_s} must be positive, every_s up to 600")
    random = np.random.default_rng(seed)
    axial = hexagon.rings(rings)
    cells = np.stack([axial[:, 0] + axial[:, 1] / 2.0, axial[:, 1] * np.sqrt(0.75)], axis=1) * _CELL_KM
    clock = np.arange(0.0, hours * 3600.0, every_s)
    ways = np.concatenate([_way(random, clock, cells) for _ in range(users)])
    lat, lon = _degrees(ways)
    cell_lat, cell_lon = _degrees(cells)
    return City(
        tuple(f"cell{index}" for index in range(len(cells))),
        cell_lat,
        cell_lon,
        Trace(
            users=tuple(f"user{index}" for index in range(users)),
            user=np.repeat(np.arange(users, dtype=np.int64), len(clock)),
            t_s=np.tile(clock, users),
            lat=lat,
            lon=lon,
            rows=len(ways),
        ),
    )


def _way(random: np.random.Generator, clock: Floats, cells: Floats) -> Floats:
    """(t, 2): one user's positions in kilometres at the times of the clock."""
    own = cells[random.choice(len(cells), size=3, replace=False)]
    times, points, at, now = [0.0], [own[0]], 0, 0.0
    while now <= clock[-1]:
        now += float(random.exponential(1200.0))
        times.append(now)
        points.append(own[at])
        at = (at + int(random.integers(1, 3))) % 3
        km = float(np.linalg.norm(own[at] - points[-1]))
        now += 3600.0 * km / float(random.uniform(10.0, 50.0))
        times.append(now)
        points.append(own[at])
    track = np.array(points)
    return np.stack([np.interp(clock, times, track[:, axis]) for axis in (0, 1)], axis=1)


def _degrees(km: Floats) -> tuple[Floats, Floats]:
    return _LAT + km[:, 1] / _KM_PER_DEGREE, _LON + km[:, 0] / (_KM_PER_DEGREE * np.cos(np.radians(_LAT)))
