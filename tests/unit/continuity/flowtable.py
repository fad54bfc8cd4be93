"""A switch's flow table as flow-mods change it, deletions by cookie included (OpenFlow 1.3.5, section 6.4)."""

from __future__ import annotations

from collections.abc import Iterable

from followme.continuity.pipeline import Rule
from followme.openflow import FlowMod, Instruction, Match
from followme.openflow.constants import OFPFC_ADD, OFPFC_DELETE, OFPFC_DELETE_STRICT, OFPTT_ALL

Key = tuple[int, int, Match]


class FlowTable:
    """``history`` holds the keys of all entries after each flow-mod."""

    def __init__(self) -> None:
        self.entries: dict[Key, FlowMod] = {}
        self.history: list[set[Key]] = []

    def take(self, mods: Iterable[FlowMod]) -> None:
        for mod in mods:
            key = (mod.table_id, mod.priority, mod.match)
            if mod.command == OFPFC_ADD:
                self.entries[key] = mod
            elif mod.command == OFPFC_DELETE_STRICT:
                self.entries.pop(key, None)
            else:
                assert mod.command == OFPFC_DELETE
                assert mod.match == Match(), "only deletions by cookie are understood here"
                self.entries = {
                    key: entry for key, entry in self.entries.items()
                    if (mod.table_id not in (OFPTT_ALL, entry.table_id))
                    or (entry.cookie ^ mod.cookie) & mod.cookie_mask
                }  # fmt: skip
            self.history.append(set(self.entries))

    def content(self) -> dict[Key, tuple[Instruction, ...]]:
        return {key: entry.instructions for key, entry in self.entries.items()}


def content(rules: Iterable[Rule]) -> dict[Key, tuple[Instruction, ...]]:
    """What a table holds that has exactly ``rules``."""
    return {rule.key: rule.instructions for rule in rules}
