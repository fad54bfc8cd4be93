"""The ledger: what it says that a switch should hold, and what its messages make of one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from followme.continuity.ledger import CONNECTION_BITS, EPOCH_SHIFT, OWNER_MASK, Ledger
from followme.continuity.pipeline import Priority, Rule, Table
from followme.openflow import ApplyActions, FlowMod, GotoTable, Match, Output
from followme.openflow.constants import OFPFC_ADD, OFPFC_DELETE_STRICT

from .flowtable import FlowTable, content

OWNERS = ("alice", "bob", "vm")
DATAPATHS = (1, 2)


def some_rule(owner: str, number: int, out: int = 1) -> Rule:
    """Rules of different owners differ in their match: an address or a port belongs to one node."""
    match = Match(in_port=100 * OWNERS.index(owner) + number)
    return Rule(Table.FORWARD, Priority.DELIVER, match, (ApplyActions((Output(out),)),))


def test_a_change_is_the_fewest_flow_mods_with_additions_first() -> None:
    ledger = Ledger(epoch=7)
    old, kept, new = (some_rule("vm", number) for number in (1, 2, 3))
    ledger.set("vm", {1: [old, kept]})
    (mods,) = ledger.set("vm", {1: [kept, new]}).values()
    assert [(mod.command, mod.match) for mod in mods] == [(OFPFC_ADD, new.match), (OFPFC_DELETE_STRICT, old.match)]
    assert ledger.set("vm", {1: [kept, new]}) == {}


def test_a_rule_with_other_instructions_replaces_and_is_not_deleted() -> None:
    ledger = Ledger(epoch=7)
    ledger.set("vm", {1: [some_rule("vm", 1, out=1)]})
    changes = ledger.set("vm", {1: [some_rule("vm", 1, out=2)]})
    assert [mod.command for mod in changes[1]] == [OFPFC_ADD]
    assert ledger.rules(1) == [some_rule("vm", 1, out=2)]


def test_the_cookie_tells_epoch_and_owner() -> None:
    ledger = Ledger(epoch=7)
    (mod,) = ledger.set("vm", {1: [some_rule("vm", 1)]})[1]
    assert mod.cookie >> EPOCH_SHIFT == 7
    assert mod.cookie & OWNER_MASK == ledger.owner_number("vm")
    assert ledger.owner_number("alice") != ledger.owner_number("vm")
    (again,) = ledger.begin(1)
    assert again.cookie >> EPOCH_SHIFT == 8
    assert ledger.put("vm", 1, some_rule("vm", 2)).cookie >> EPOCH_SHIFT == 8
    assert ledger.put("vm", 2, some_rule("vm", 2)).cookie >> EPOCH_SHIFT == 7, "the other switch did not reconnect"


def test_an_owner_that_went_leaves_nothing_and_its_number_is_not_given_to_another() -> None:
    ledger = Ledger(epoch=7)
    ledger.set("vm", {1: [some_rule("vm", 1)]})
    number = ledger.owner_number("vm")
    ledger.set("vm", {})
    assert ledger.rules(1) == []
    assert ledger.count("vm", 1) == 0
    assert ledger.owner_number("alice") != number
    for turn in range(1000):
        ledger.set(f"user-{turn}", {1: [some_rule("vm", 1)]})
        ledger.set(f"user-{turn}", {})
    assert len(ledger._numbers) == 1, "users that come and go must not fill the memory"


@given(
    epoch=st.integers(0, 0xFFFF), stale=st.lists(st.integers(0, 0xFFFF), max_size=5), reconnects=st.integers(1, 4)
)
@settings(max_examples=60)
def test_a_switch_with_rules_of_any_other_epoch_is_brought_to_the_ledgers_state_without_a_gap(
    epoch: int, stale: list[int], reconnects: int
) -> None:
    ledger, table = Ledger(epoch), FlowTable()
    ledger.set("vm", {1: [some_rule("vm", number) for number in range(3)]})
    for _ in range(reconnects - 1):
        ledger.begin(1)
    now = epoch & 0xFF00 | (epoch + reconnects) & 0xFF
    left_over = [old for old in stale if old != now]
    for number, old in enumerate(left_over):
        # one of the stale entries has the key of a rule that is wanted, with other instructions
        match = some_rule("vm", 0).match if number == 0 else Match(in_port=1000 + number)
        entry = FlowMod(match, (GotoTable(3),), table_id=Table.FORWARD, priority=Priority.DELIVER,
                        cookie=old << EPOCH_SHIFT | number)  # fmt: skip
        table.take([entry])
    wanted = content(ledger.rules(1))
    there_before = set(wanted) & set(table.entries)
    table.history.clear()
    table.take(ledger.begin(1))
    assert set(wanted) <= set(table.entries)
    table.take(ledger.sweep(1))
    assert table.content() == wanted
    assert all(there_before <= moment for moment in table.history)


def test_no_connection_of_a_switch_takes_an_epoch_of_another_controller() -> None:
    mine, next_one = Ledger(7 << CONNECTION_BITS), Ledger(8 << CONNECTION_BITS)
    epochs = [{ledger.cookie(1, "vm") >> EPOCH_SHIFT for _ in range(600) if ledger.begin(1) == []}
              for ledger in (mine, next_one)]  # fmt: skip
    assert epochs[0].isdisjoint(epochs[1])
    assert len(epochs[0]) == 1 << CONNECTION_BITS


class Histories(RuleBasedStateMachine):
    """Any changes by any owners, and reconnects of a switch that kept its table or lost it."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(epoch=0xFFFE)
        self.tables = {datapath: FlowTable() for datapath in DATAPATHS}

    @rule(
        owner=st.sampled_from(OWNERS),
        wanted=st.dictionaries(
            st.sampled_from(DATAPATHS), st.dictionaries(st.integers(0, 5), st.integers(1, 3), max_size=6)
        ),
    )
    def set(self, owner: str, wanted: dict[int, dict[int, int]]) -> None:
        rules = {
            datapath: [some_rule(owner, number, out) for number, out in some.items()]
            for datapath, some in wanted.items()
        }
        for datapath, mods in self.ledger.set(owner, rules).items():
            self.tables[datapath].take(mods)
        for datapath in DATAPATHS:
            assert self.ledger.count(owner, datapath) == len(rules.get(datapath, []))

    @rule(owner=st.sampled_from(OWNERS), datapath=st.sampled_from(DATAPATHS), number=st.integers(0, 5),
          out=st.integers(1, 3))  # fmt: skip
    def put(self, owner: str, datapath: int, number: int, out: int) -> None:
        self.tables[datapath].take([self.ledger.put(owner, datapath, some_rule(owner, number, out))])

    @rule(datapath=st.sampled_from(DATAPATHS), empty=st.booleans())
    def reconnect(self, datapath: int, empty: bool) -> None:
        if empty:
            self.tables[datapath] = FlowTable()
        self.tables[datapath].take(self.ledger.begin(datapath))
        self.tables[datapath].take(self.ledger.sweep(datapath))

    @invariant()
    def each_switch_holds_what_the_ledger_says(self) -> None:
        for datapath, table in self.tables.items():
            assert table.content() == content(self.ledger.rules(datapath))


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
