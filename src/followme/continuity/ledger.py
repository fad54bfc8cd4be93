"""The rules that should be in each switch, and the messages that bring a switch there.

The ledger sends nothing: it returns flow-mods, and the southbound side sends them. A switch that comes back,
empty or with old rules, is brought to the ledger's state without a gap: first all rules are added again
under a new epoch (a part of the cookie), then what has another epoch is deleted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace

from followme.continuity.pipeline import Rule
from followme.openflow import FlowMod, Match
from followme.openflow.constants import OFPFC_ADD, OFPFC_DELETE, OFPFC_DELETE_STRICT, OFPTT_ALL

Key = tuple[int, int, Match]

EPOCH_BITS = 16
CONNECTION_BITS = 8
"""Of an epoch: they count how often a switch has connected. The others tell one controller's rules from another's.
"""
EPOCH_SHIFT = 48
OWNER_MASK = (1 << EPOCH_SHIFT) - 1


class Ledger:
    """Desired flow entries by datapath and owner (``base`` or a node's name).

    ``epoch`` begins with what no other controller has whose rules a switch may still hold, as its mastership's
    number (256 of them differ), or what a random number makes unlikely.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch % (1 << EPOCH_BITS)
        self._epochs: dict[int, int] = {}
        self._owners: dict[str, dict[int, dict[Key, Rule]]] = {}
        self._numbers: dict[str, int] = {}
        self._next_number = itertools.count(1)

    def owner_number(self, owner: str) -> int:
        """The owner's part of the cookie: flow statistics are asked for by it."""
        number = self._numbers.get(owner)
        if number is None:
            number = self._numbers[owner] = next(self._next_number)
        return number

    def known_number(self, owner: str) -> int:
        """As ``owner_number``, but -1, which no cookie has, for an owner without rules."""
        return self._numbers.get(owner, -1)

    def cookie(self, datapath: int, owner: str) -> int:
        return self._epochs.get(datapath, self._epoch) << EPOCH_SHIFT | self.owner_number(owner)

    def set(self, owner: str, rules: Mapping[int, Iterable[Rule]]) -> dict[int, list[FlowMod]]:
        """Make ``rules`` all that ``owner`` has, everywhere; returns the changes by datapath, adds first."""
        before = self._owners.get(owner, {})
        after = {datapath: {rule.key: rule for rule in some} for datapath, some in rules.items()}
        changes: dict[int, list[FlowMod]] = {}
        for datapath in before.keys() | after.keys():
            old, new = before.get(datapath, {}), after.get(datapath, {})
            cookie = self.cookie(datapath, owner)
            mods = [rule.flow_mod(OFPFC_ADD, cookie) for key, rule in new.items() if old.get(key) != rule]
            # With a mask of 0 the cookie selects nothing here, but an error about the deletion shows it.
            mods += [replace(rule, instructions=()).flow_mod(OFPFC_DELETE_STRICT, cookie)
                     for key, rule in old.items() if key not in new]  # fmt: skip
            if mods:
                changes[datapath] = mods
        if after:
            self._owners[owner] = after
        else:
            self._owners.pop(owner, None)
            self._numbers.pop(owner, None)
        return changes

    def put(self, owner: str, datapath: int, rule: Rule) -> FlowMod:
        """Add or replace one rule of ``owner``: the quick way for a single change."""
        self._owners.setdefault(owner, {}).setdefault(datapath, {})[rule.key] = rule
        return rule.flow_mod(OFPFC_ADD, self.cookie(datapath, owner))

    def rules(self, datapath: int) -> list[Rule]:
        """All that should be in the switch now."""
        return [rule for by_datapath in self._owners.values() for rule in by_datapath.get(datapath, {}).values()]

    def count(self, owner: str, datapath: int) -> int:
        return len(self._owners.get(owner, {}).get(datapath, {}))

    def begin(self, datapath: int) -> list[FlowMod]:
        """The switch has (re)connected: add everything under a new epoch. Then a barrier, then ``sweep``."""
        epoch = self._epochs.get(datapath, self._epoch)
        ours = epoch >> CONNECTION_BITS << CONNECTION_BITS
        self._epochs[datapath] = ours | (epoch + 1) % (1 << CONNECTION_BITS)
        return [rule.flow_mod(OFPFC_ADD, self.cookie(datapath, owner))
                for owner, by_datapath in self._owners.items()
                for rule in by_datapath.get(datapath, {}).values()]  # fmt: skip

    def sweep(self, datapath: int) -> list[FlowMod]:
        """Delete all entries of other epochs: an epoch that differs does so in at least one bit."""
        epoch = self._epochs.get(datapath, self._epoch)
        return [
            FlowMod(
                command=OFPFC_DELETE,
                table_id=OFPTT_ALL,
                match=Match(),
                cookie=(~epoch & bit) << EPOCH_SHIFT,
                cookie_mask=bit << EPOCH_SHIFT,
            )
            for bit in (1 << number for number in range(EPOCH_BITS))
        ]
