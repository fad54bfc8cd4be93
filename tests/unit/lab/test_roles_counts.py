"""The figures counted: real engines over the bus in memory, rules in the ledgers."""

from __future__ import annotations

import pytest

from followme.analysis import rules
from followme.analysis.planning import SERVICE_MOVE, USER_MOVE
from followme.domain import NodeKind
from followme.lab.roles_counts import Counts, count

NODES = (1, 3, 6)


@pytest.mark.parametrize(("kind", "per_move"), [(NodeKind.MACHINE, SERVICE_MOVE), (NodeKind.USER, USER_MOVE)])
async def test_entries_are_the_models_and_orders_grow_with_networks_only(
    kind: NodeKind, per_move: tuple[int, int]
) -> None:
    said: list[str] = []
    counts = await count(NODES, said.append, switches=False, nats=False, kind=kind)
    assert len(said) == len(NODES) + 1
    for run in counts.runs:
        assert run.entries == rules.ours(run.nodes, run.nodes, run.networks)
        # At the first move nobody is a correspondent; then one order for each network, one for the peers abroad.
        assert run.move == counts.runs[0].move
        assert run.telling.foreign == run.networks + 1
        assert run.onward.foreign == counts.runs[0].onward.foreign
        base, each = per_move
        assert run.onward.total == base + each * run.networks, "the planner reckons with this"
    assert counts.few.networks == 1
    assert counts.few.nodes == max(NODES)
    first = counts.runs[0]
    assert (counts.few.foreign_orders, counts.few.onward) == (first.foreign_orders, first.onward)
    assert counts.few.entries == first.entries
    _check_json(counts)


def _check_json(counts: Counts) -> None:
    figures = counts.as_json()
    assert figures["bus"] == "memory"
    assert figures["switches"] == "the controllers' ledgers"
    last = figures["runs"][-1]
    assert last["entries"]["most_loaded"] == max(last["entries"]["home"], last["entries"]["foreign"])
    assert last["orders"]["move"]["kinds"]["Reserve"] == 1
