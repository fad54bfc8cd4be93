"""Several controllers of one switch (OpenFlow 1.3.5, sections 6.3.4 and 7.3.9).

One of them is its master and writes; the others are slaves, whom it tells of its ports only. Who asks to be master
brings a generation id, and the switch refuses one that is older than the newest that it has seen: so a master that
was replaced while it slept cannot come back.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from followme.continuity.channel import Channel
from followme.continuity.refusals import Stale, SwitchError
from followme.openflow import OpenFlowError, RoleReply, RoleRequest
from followme.openflow.constants import OFPCR_ROLE_MASTER, OFPCR_ROLE_NOCHANGE, OFPCR_ROLE_SLAVE

GENERATIONS = 1 << 64
_ATTEMPTS = 5
"""How often the generation may change between a question and the request that uses the answer."""


class Role(Enum):
    ALONE = auto()
    """There is no other controller, and no role is asked for."""
    STANDBY = auto()
    MASTER = auto()

    @property
    def echo_s(self) -> tuple[float, float]:
        """How often a switch is asked for an echo, and how long it may be silent then: less where another
        controller could take over from one that is cut off."""
        return (5.0, 10.0) if self is Role.ALONE else (2.0, 4.0)


def older(one: int, other: int) -> bool:
    """Whether generation id ``one`` was before ``other``: their distance as a signed 64-bit number is below 0, so
    that they may wrap around (6.3.4)."""
    return (one - other) % GENERATIONS >= GENERATIONS // 2


async def become_slave(channel: Channel, wanted: Callable[[], bool]) -> None:
    """Ask for it as long as it is ``wanted``. ``SwitchError`` if the switch does not know of roles, or is gone.

    The request must bring a generation id that is not older than the newest: the switch itself is asked for that.
    If it has none yet it says 2**64 - 1 (7.3.9), than which every id from 0 on is newer.
    """
    for _ in range(_ATTEMPTS):
        generation = (await _ask(channel, OFPCR_ROLE_NOCHANGE, 0)).generation_id
        if not wanted():
            return
        try:
            await _ask(channel, OFPCR_ROLE_SLAVE, generation)
        except Stale:
            continue
        return
    raise SwitchError(f"its generation has changed {_ATTEMPTS} times while it was asked for the role of a slave")


async def become_master(channel: Channel, generation: int) -> None:
    """``Stale`` if the switch has seen a newer generation; ``SwitchError`` as above."""
    await _ask(channel, OFPCR_ROLE_MASTER, generation)


async def _ask(channel: Channel, role: int, generation: int) -> RoleReply:
    reply = await channel.request(RoleRequest(role, generation))
    if not isinstance(reply, RoleReply) or role not in (OFPCR_ROLE_NOCHANGE, reply.role):
        raise OpenFlowError(f"{reply} is no answer to a request of role {role}")
    return reply
