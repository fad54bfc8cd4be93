"""Moves learned from traces, for all users or one."""

from __future__ import annotations

import numpy as np
import pytest

from followme.placement.mdp_learned import count_moves, from_counts, learned_moves
from followme.placement.mdp_problem import line
from followme.placement.mdp_solve import solve


def test_moves_are_counted_up_to_beyond() -> None:
    counts = count_moves([[0, 1, 2, 1, 0], [1, 2, 3, 9, 2], []], 4).toarray()
    assert counts.tolist() == [[0, 1, 0, 0], [1, 0, 2, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match="state -1"):
        count_moves([[0, -1]], 4)


def test_the_prior_weighs_as_many_handoffs_as_it_says() -> None:
    believed = line(2, 0.5, 1.0, 0.9, lambda s: -s).stay
    counts = np.zeros((4, 4))
    counts[1] = [2, 0, 6, 0]
    learned = learned_moves(counts, believed, 2.0).toarray()
    assert learned[1] == pytest.approx([0.3, 0, 0.7, 0])
    assert learned[2] == pytest.approx([0, 0.5, 0, 0.5])
    bare = learned_moves(counts, believed, 0.0).toarray()
    assert bare[1] == pytest.approx([0.25, 0, 0.75, 0])
    assert bare[2] == pytest.approx([0, 0.5, 0, 0.5])


def test_a_long_trace_gives_the_policy_of_the_chain_that_made_it() -> None:
    """And one user's own trace moves him away from the population's policy."""
    rng = np.random.default_rng(1)

    def walks(p: float) -> list[list[int]]:
        made = []
        for _ in range(3000):
            walk = [0]
            while walk[-1] <= 10 and len(walk) < 60:
                walk.append(1 if walk[-1] == 0 else walk[-1] + (1 if rng.random() < p else -1))
            made.append(walk)
        return made

    def of(p: float) -> int:
        return solve(line(10, p, 12.0, 0.9, lambda s: -s)).threshold

    believed = line(10, 0.5, 12.0, 0.9, lambda s: -s).stay
    assert of(0.2) > of(0.8)
    for p in (0.2, 0.8):
        problem = from_counts(count_moves(walks(p), 12), believed, 12.0, 0.9, lambda s: -s, np.arange(12))
        solution = solve(problem)
        # Far out the 0.2 walk never comes: its counts are few there, but that is past the threshold.
        assert solution.threshold == of(p)


def test_bad_counts_are_refused() -> None:
    believed = line(2, 0.5, 1.0, 0.9, lambda s: -s).stay
    with pytest.raises(ValueError, match="strength -1"):
        learned_moves(np.zeros((4, 4)), believed, -1)
    with pytest.raises(ValueError, match="counts must be"):
        learned_moves(-np.eye(4), believed)
    with pytest.raises(ValueError, match=r"counts have the shape \(3, 3\)"):
        learned_moves(np.eye(3), believed)
    with pytest.raises(ValueError, match="no states"):
        from_counts(np.zeros((0, 0)), np.zeros((0, 0)), 1.0, 0.9, lambda s: -s, np.zeros(0, dtype=np.int64))
