"""The table of EID-prefixes says what a dict and a walk over it say."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from followme.lisp import EidPrefix
from followme.lisp.prefixtable import PrefixTable, truncate


def _eid(iid: int, octets: int, number: int, length: int) -> EidPrefix:
    return truncate(EidPrefix(iid, number.to_bytes(octets, "big"), octets * 8), length)


NEAR = st.builds(_eid, st.just(0), st.just(4), st.integers(0x0A010000, 0x0A01003F), st.integers(24, 32))
"""Few, so that many are the same, or lie in each other."""
FAR = st.builds(_eid, st.just(0), st.just(4), st.integers(0, 2**32 - 1), st.integers(0, 32))
OTHER = st.one_of(
    st.builds(_eid, st.just(7), st.just(4), st.integers(0x0A010000, 0x0A01003F), st.integers(0, 32)),
    st.builds(_eid, st.just(0), st.just(16), st.integers(0, 63), st.integers(0, 128)),
)
"""Of another instance, of the other family."""
PREFIXES = st.one_of(NEAR, NEAR, FAR, OTHER)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(PREFIXES, st.booleans()), max_size=40), st.lists(PREFIXES, min_size=1, max_size=5))
def test_the_table_is_what_a_dict_says(changes: list[tuple[EidPrefix, bool]], asked: list[EidPrefix]) -> None:
    table: PrefixTable[int] = PrefixTable()
    model: dict[EidPrefix, int] = {}
    for number, (eid, put) in enumerate(changes):
        if put:
            table.put(eid, number)
            model[eid] = number
        else:
            assert table.pop(eid) == model.pop(eid, None)
    assert len(table) == len(model)
    assert list(table) == list(model)
    assert list(table.items()) == list(model.items())
    for eid in asked:
        assert (table.get(eid), eid in table) == (model.get(eid), eid in model)
        covering = sorted((p for p in model if p.covers(eid)), key=lambda p: -p.length)
        assert list(table.covering(eid)) == [(p, model[p]) for p in covering]
        assert table.longest(eid) == ((covering[0], model[covering[0]]) if covering else None)
        assert list(table.within(eid)) == sorted((p, model[p]) for p in model if eid.covers(p))
        free = next(n for n in range(eid.length + 1) if _free(truncate(eid, n), eid, model))
        assert table.hole(eid) == max(free, covering[0].length if covering else 0)
    for eid in model:
        table.pop(eid)
    assert not table._groups, "nothing stays of instances that come and go"


def _free(wider: EidPrefix, eid: EidPrefix, model: dict[EidPrefix, int]) -> bool:
    overlapping = (p for p in model if wider.covers(p) or p.covers(wider))
    return all(p.covers(eid) or eid.covers(p) for p in overlapping)
