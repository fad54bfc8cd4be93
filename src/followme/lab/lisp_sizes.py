"""What a migration costs for machines of several sizes, against what the link can carry (lisp-based-implementation,
IV: "the bandwidth required to migrate a VM" and "the migration duration"; 100 Mbit/s links)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from followme.domain import Migration, MigrationState
from followme.lab.document import MACHINE
from followme.lab.lisp_document import LispScenarioConfig
from followme.lab.lisp_plan import LispLabConfig
from followme.lab.lisp_scenario import LispScenario
from followme.lab.reporting import Say, Step, ms

LINK_BIT_S = 100_000_000
BETWEEN_S = 0.010
SIZES_MIB = (96, 128, 256)
"""The lab's guest does not boot in less than 96 MiB."""
DIRTYING_BYTES_S = 2_000_000
"""What the busy guest writes to its memory; over a set of 32 MiB."""
PAYLOAD = 1448 / 1514
"""Of a full Ethernet frame's bytes these are the stream's own (IPv4, TCP with time stamps): the most that a link of
a given rate can carry of it."""


@dataclass(frozen=True, slots=True)
class Carried:
    """One migration. ``transfer_s``: from the first byte of memory until the machine runs at the target;
    ``migration_s``: with all that comes before."""

    memory_mib: int
    dirtying_bytes_s: int
    bytes: int
    transfer_s: float
    migration_s: float
    pause_s: float
    passes: int

    @property
    def link_share(self) -> float:
        """Of the link's rate that the transfer used."""
        return self.bytes * 8 / LINK_BIT_S / self.transfer_s

    @property
    def whole_share(self) -> float:
        """The same over the whole migration."""
        return self.bytes * 8 / LINK_BIT_S / self.migration_s


@dataclass(frozen=True, slots=True)
class Sizes:
    carried: Sequence[Carried]
    accel: str
    delay_kind: str

    def groups(self) -> Iterator[list[Carried]]:
        """The migrations of the same machine, smallest first."""
        for key in sorted({(one.dirtying_bytes_s, one.memory_mib) for one in self.carried}):
            yield [one for one in self.carried if (one.dirtying_bytes_s, one.memory_mib) == key]

    def rows(self) -> Iterator[tuple[str, ...]]:
        """For a table: memory, writing, MB, seconds, share of the link, share over the whole, pause, passes."""
        for mine in self.groups():
            one = mine[0]
            yield (
                str(one.memory_mib), f"{one.dirtying_bytes_s / 1e6:g}",
                f"{median(each.bytes for each in mine) / 1e6:.1f}",
                f"{median(each.transfer_s for each in mine):.2f}",
                f"{median(each.migration_s for each in mine):.2f}",
                f"{median(each.link_share for each in mine):.2f}",
                f"{median(each.whole_share for each in mine):.2f}",
                f"{median(each.pause_s for each in mine) * 1e3:.1f}",
                f"{median(each.passes for each in mine):g}",
            )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        return {
            "link_bit_s": LINK_BIT_S, "link_share_possible": round(PAYLOAD, 4),
            "rtt_between_data_centres_ms": BETWEEN_S * 1e3,
            "delay_line": self.delay_kind, "acceleration": self.accel,
            "migrations": [
                {"memory_mib": one.memory_mib, "dirtying_bytes_s": one.dirtying_bytes_s,
                 "migrated_bytes": one.bytes, "transfer_s": round(one.transfer_s, 3),
                 "migration_s": round(one.migration_s, 3),
                 "link_share": round(one.link_share, 4), "link_share_whole": round(one.whole_share, 4),
                 "machine_pause_ms": ms(one.pause_s), "passes": one.passes}
                for one in self.carried
            ],
        }  # fmt: skip


def plan(quick: bool) -> list[tuple[int, int]]:
    """(MiB, bytes a second written to) of the machines."""
    sizes = (SIZES_MIB[0], SIZES_MIB[-1]) if quick else SIZES_MIB
    return [(size, dirtying) for dirtying in (0, DIRTYING_BYTES_S) for size in sizes]


def rounds_of(quick: bool) -> int:
    """Migrations of each machine."""
    return 1 if quick else 4


def total(quick: bool) -> int:
    """How many migrations there are."""
    return len(plan(quick)) * rounds_of(quick)


async def measure(quick: bool, say: Say, step: Step) -> Sizes:
    """To and fro with each machine; ``step`` is called after each migration."""
    found: list[Carried] = []
    accel = delays = ""
    for memory_mib, dirtying in plan(quick):
        lab = LispLabConfig(between_sites_rtt_s=BETWEEN_S, uplink_rate_bit_s=LINK_BIT_S)
        settings = LispScenarioConfig(lab=lab, policy="never", memory_mib=memory_mib, dirty_bytes_s=dirtying)
        async with LispScenario(settings) as scenario:
            accel, delays = scenario.accel, scenario.delay_kind
            for number in range(rounds_of(quick)):
                one = await _carry(scenario, ("dc2", "dc1")[number % 2])
                found.append(one)
                say(f"{memory_mib} MiB, {dirtying / 1e6:g} MB/s written: {one.bytes / 1e6:.1f} MB in "
                    f"{one.transfer_s:.2f} s, {one.link_share:.2f} of the link")  # fmt: skip
                step()
    return Sizes(found, accel, delays)


async def _carry(scenario: LispScenario, target: str) -> Carried:
    begin = len(scenario.happenings)
    result = await scenario.controller.carry(MACHINE, target)
    states = [one for one in scenario.happenings[begin:] if isinstance(one.fact, Migration)]
    at = {one.fact.state: one.at for one in states if isinstance(one.fact, Migration)}
    # As the controller heard of it: what lies before the first byte is the same for both ends of the interval.
    before_s = at[MigrationState.TRANSFERRING] - at[MigrationState.PLANNED]
    await asyncio.sleep(0.5)
    settings = scenario.settings
    return Carried(
        settings.memory_mib, settings.dirty_bytes_s, result.bytes, result.total_s - before_s, result.total_s,
        result.pause_s, result.passes,
    )  # fmt: skip
