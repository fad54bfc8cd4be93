"""However many want to go where: no place takes more than it has room for, and nobody goes where it would not."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from followme.placement.together import Want, crowded, share_out

PLACES = ("w", "x", "y", "z")


@st.composite
def wishes(draw: st.DrawFn) -> list[Want]:
    wants = []
    for number in range(draw(st.integers(1, 12))):
        places = draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=4, unique=True))
        worths = [draw(st.floats(1e-9, 1e9)) for _ in places]
        demand = draw(st.sampled_from((0.0, 0.1, 0.25, 1.0, 3.0)))
        wants.append(Want(f"s{number}", demand, tuple(zip(places, worths, strict=True))))
    return wants


rooms = st.fixed_dictionaries({place: st.sampled_from((0.0, 0.3, 1.0, 2.5, 7.0)) for place in PLACES})


@given(wishes(), rooms)
def test_never_over_capacity_and_only_where_it_wants(wants: list[Want], free: dict[str, float]) -> None:
    given_ = share_out(wants, free)
    assert set(given_) == {want.service for want in wants}
    taken = dict.fromkeys(PLACES, Fraction(0))
    for want in wants:
        place = given_[want.service]
        if place is not None:
            assert place in dict(want.choices)
            taken[place] += Fraction(want.demand)
    assert all(taken[place] <= Fraction(free[place]) for place in PLACES)


@given(wishes(), rooms)
def test_where_there_is_room_for_all_nothing_is_crowded_and_the_other_way_round(
    wants: list[Want], free: dict[str, float]
) -> None:
    demands = dict.fromkeys(PLACES, Fraction(0))
    for want in wants:
        for place, _ in want.choices:
            demands[place] += Fraction(want.demand)
    assert set(crowded(wants, free)) == {place for place in PLACES if demands[place] > Fraction(free[place])}
