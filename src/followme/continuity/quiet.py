"""When an old way is quiet: its rules count no packets any more, so they and its locator may go."""

from __future__ import annotations

import asyncio
import contextlib
import time

from followme.continuity.pipeline import Priority, Table
from followme.continuity.southbound import Southbound, SwitchError
from followme.domain import Placement

QUIET_CHECK_S = 0.25
QUIET_LIMIT_S = 10.0
"""How long packets on the old way are waited for, at the most, before its rules go."""


async def quiet(southbound: Southbound, datapath: int, owner: str, place: Placement) -> None:
    """Return when no packet takes the old way over ``place`` (of the switch ``datapath``), or after a while."""
    deadline = time.monotonic() + QUIET_LIMIT_S
    before: int | None = None
    with contextlib.suppress(SwitchError, TimeoutError):
        while time.monotonic() < deadline:
            flows = await southbound.flows(datapath, owner)
            late = sum(
                flow.packet_count
                for flow in flows
                if flow.priority == Priority.LATE
                or (flow.table_id == Table.FORWARD and flow.match.ipv4_dst == place.locator)
            )
            if late == before:
                return
            before = late
            await asyncio.sleep(QUIET_CHECK_S)
