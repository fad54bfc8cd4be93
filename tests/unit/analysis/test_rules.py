"""Figures 5 and 6 of the scalability paper, and our entries beside them."""

from __future__ import annotations

import pytest

from followme.analysis import messages, rules
from followme.analysis.rules import Entries


def test_the_papers_constants() -> None:
    assert (rules.ALPHA, rules.BETA, rules.GAMMA) == (3, 6, 3)
    assert rules.home_entries(2) == 5
    assert rules.foreign_entries(2) == 8
    assert rules.correspondent_entries([0, 1, 4]).tolist() == [0, 4, 7]
    assert rules.migration_entries([2], [2], [[0, 1, 4]]).tolist() == [24]
    assert rules.central_entries([2, 0], [2, 0], [[0, 1, 4], [0, 0, 0]], switches=2) == 4 + 24 + 9


def test_figure_5_at_a_hundred_nodes() -> None:
    curves = rules.figure5([0, 1, 100])
    # 2 N, alpha + H, beta + F, and J times gamma + 1.
    assert curves.central.tolist() == [2 + 3 + 6, 2 + 4 + 7 + 4, 2 + 103 + 106 + 400]
    assert curves.distributed.tolist() == [6, 8, 206]
    # Two entries at home, two at each correspondent; abroad 4, one for each network told, two for peers there.
    assert curves.our_central.tolist() == [6, 11, 308]
    assert curves.our_distributed.tolist() == [4, 7, 106]
    assert (curves.our_moving < curves.central).all()


def test_the_foreign_controller_is_the_most_loaded_of_the_distributed_ones_whatever_is_ours() -> None:
    for nodes in range(1, 30):
        foreign = rules.reactive_foreign_entries(nodes, nodes)
        assert foreign >= rules.home_entries(nodes)
        assert foreign >= rules.correspondent_entries(1)
        found = rules.ours(nodes, nodes, nodes)
        assert found.most == found.foreign


def test_our_entries_are_below_even_a_delta_of_nothing() -> None:
    curves = rules.figure5(range(7, 101), delta=0)
    assert (curves.our_distributed < curves.distributed).all()


def test_a_move_has_no_more_than_some_entries_more() -> None:
    settled, moving = rules.ours(1, 1, 5), rules.ours_while_moving(1, 1, 5)
    assert moving.foreign == settled.foreign + 1
    assert moving.correspondent == settled.correspondent
    assert moving.home <= rules.ours_at_home() + settled.home
    assert rules.ours_changes(3) - rules.ours_changes(2) == rules.ours_changes(1) - rules.ours_changes(0)


def test_entries_are_summed_over_roles() -> None:
    assert Entries(2, 7, 3).total(4) == 21
    assert Entries(2, 7, 9).most == 9


def test_figure_6_is_linear_in_nodes() -> None:
    curves = messages.figure6([1, 10, 100])
    assert curves.central.tolist() == [8, 53, 503]
    assert curves.distributed.tolist() == [3, 12, 102]


@pytest.mark.parametrize("wrong", [[-1], [3, -2]])
def test_fewer_nodes_than_none_are_refused(wrong: list[int]) -> None:
    with pytest.raises(ValueError, match="negative"):
        rules.home_entries(wrong)
    with pytest.raises(ValueError, match="negative"):
        messages.foreign_messages(wrong)
