"""Records that rest are in the store alone: what is read again is what was written last."""

from __future__ import annotations

import pytest

from followme.federation import table
from followme.federation.table import Table


class Kept:
    """Numbers as records, and a store that counts how often it is asked."""

    def __init__(self) -> None:
        self.facts: dict[str, bytes | None] = {}
        self.asked: list[str] = []
        self.table: Table[int] = Table("n", lambda record: b"%d" % record, int, self.load)

    def load(self, key: str) -> bytes | None:
        self.asked.append(key)
        return self.facts.get(key)

    def flush(self) -> set[str]:
        writes: dict[str, bytes | None] = {}
        self.table.flush(writes)
        self.facts |= writes
        return set(writes)


def test_a_record_that_rests_is_read_from_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_LIVE", 10)
    kept = Kept()
    for number in range(50):
        kept.table.put(number, number * number)
        kept.flush()
    assert len(kept.table) == 50
    assert [kept.table.peek(number) for number in range(50)] == [number * number for number in range(50)]
    assert len(kept.asked) >= 39
    kept.table.put(3, 7)
    assert kept.table.get(3) == 7  # not yet what the store has
    assert kept.flush() == {"n/3"}
    assert kept.facts["n/3"] == b"7"
    assert kept.table.get(50) is None


def test_looking_at_all_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    for number in range(20):
        kept.facts[f"n/{number}"] = b"1"
        kept.table.restore(number, b"1")
    for _ in range(2):
        assert sum(kept.table.peek(number) or 0 for number in range(20)) == 20
    assert len(kept.asked) == 40
    kept.table.get(4)
    kept.table.get(4)
    assert len(kept.asked) == 41


def test_what_the_store_has_lost_is_no_record() -> None:
    kept = Kept()
    kept.table.restore(1, b"1")
    with pytest.raises(LookupError, match="n/1"):
        kept.table.get(1)


def test_what_was_deleted_is_not_read_again() -> None:
    kept = Kept()
    kept.table.put(1, 5)
    kept.flush()
    kept.table.delete(1)
    assert kept.table.get(1) is None
    assert kept.flush() == {"n/1"}
    assert kept.facts == {"n/1": None}
    assert kept.asked == []


def test_what_need_not_be_written_stays_here() -> None:
    kept = Kept()
    kept.table.put(1, 5, write=False)
    assert kept.flush() == set()
    assert kept.table.get(1) == 5
    assert kept.asked == []


def test_what_is_only_noted_outlives_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_LIVE", 4)
    kept = Kept()
    kept.table.put(1, 5)
    kept.flush()
    kept.table.note(1, 6)
    for number in range(2, 20):
        kept.table.put(number, 0)
        kept.flush()
    assert kept.facts["n/1"] == b"5"
    assert kept.table.get(1) == 6
