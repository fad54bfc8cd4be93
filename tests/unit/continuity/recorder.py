"""A southbound that records what it is told, and whose switches confirm when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import cast

from followme.continuity.ledger import Ledger
from followme.continuity.southbound import DatapathGone, Southbound
from followme.domain import Network
from followme.openflow import FlowMod, Message, PacketOut

from .flowtable import FlowTable


class Recorder:
    """``sent`` holds (datapath, message) in order; ``tables`` what the switches hold in consequence.

    ``held`` are switches that do not confirm, until ``confirm``; ``gone`` ones that fail to do so in time.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self.sent: list[tuple[int, Message]] = []
        self.tables = {network.datapath: FlowTable() for network in networks}
        self.barriers: list[set[int]] = []
        self.held: dict[int, asyncio.Event] = {}
        self.gone: set[int] = set()

    @property
    def southbound(self) -> Southbound:
        return cast(Southbound, self)

    def send(self, datapath: int, messages: Iterable[Message]) -> None:
        for message in messages:
            self.sent.append((datapath, message))
            if isinstance(message, FlowMod) and not message.idle_timeout:
                self.tables[datapath].take([message])

    def apply(self, changes: Mapping[int, Iterable[FlowMod]]) -> None:
        for datapath, mods in changes.items():
            self.send(datapath, mods)

    async def barrier(self, datapaths: Iterable[int], timeout: float, owner: str | None = None) -> None:
        asked = set(datapaths)
        self.barriers.append(asked)
        for datapath in asked:
            if datapath in self.held:
                await self.held[datapath].wait()
        if asked & self.gone:
            raise DatapathGone(f"switch {min(asked & self.gone)} did not confirm")

    def hold(self, datapath: int) -> None:
        self.held[datapath] = asyncio.Event()

    def confirm(self, datapath: int) -> None:
        self.held.pop(datapath).set()

    def packets(self, datapath: int | None = None) -> list[PacketOut]:
        return [message for to, message in self.sent
                if isinstance(message, PacketOut) and datapath in (None, to)]  # fmt: skip

    def flow_mods(self, datapath: int | None = None) -> list[FlowMod]:
        return [message for to, message in self.sent if isinstance(message, FlowMod) and datapath in (None, to)]

    def agrees_with(self, ledger: Ledger) -> bool:
        """Whether each switch holds exactly the ledger's rules."""
        return all(
            table.content() == {rule.key: rule.instructions for rule in ledger.rules(datapath)}
            for datapath, table in self.tables.items()
        )
