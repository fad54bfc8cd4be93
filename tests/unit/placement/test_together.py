"""Who goes where when a place cannot take all that want to come."""

from __future__ import annotations

from math import inf

from followme.placement.together import Want, crowded, share_out


def want(service: str, *choices: tuple[str, float], demand: float = 1.0) -> Want:
    return Want(service, demand, choices)


def test_a_place_is_crowded_when_all_that_may_go_there_do_not_fit() -> None:
    wants = [want("a", ("x", 1.0)), want("b", ("x", 2.0)), want("c", ("y", 1.0))]
    assert crowded(wants, {"x": 2.0, "y": 1.0}) == ()
    assert crowded(wants, {"x": 1.5, "y": 1.0}) == ("x",)
    assert crowded(wants, {"x": inf, "y": 0.5}) == ("y",)
    assert crowded(wants, {}) == (), "what is not limited is never crowded"
    assert crowded([want("a", ("x", 1.0)), want("b", ("y", 2.0), ("x", 1.0))], {"x": 1.0, "y": 1.0}) == ("x",)


def test_the_most_worth_in_sum_decides() -> None:
    wants = [want("a", ("x", 3.0), ("y", 2.9)), want("b", ("x", 2.0)), want("c", ("x", 1.0))]
    assert share_out(wants, {"x": 1.0, "y": 1.0}) == {"a": "y", "b": "x", "c": None}
    assert share_out(wants, {"x": 2.0, "y": 0.0}) == {"a": "x", "b": "x", "c": None}


def test_demands_differ_and_who_needs_no_room_goes_where_it_wants() -> None:
    wants = [want("a", ("x", 5.0), demand=2.0), want("b", ("x", 3.0)), want("c", ("x", 3.0)),
             want("free", ("x", 1.0), demand=0.0)]  # fmt: skip
    assert share_out(wants, {"x": 2.0}) == {"a": None, "b": "x", "c": "x", "free": "x"}
    assert share_out([want("free", ("x", 1.0), demand=0.0)], {"x": 0.0}) == {"free": "x"}
    assert share_out([], {}) == {}
