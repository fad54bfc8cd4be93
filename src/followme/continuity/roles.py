"""Several controllers of one switch (OpenFlow 1.3.5, sections 6.3.4 and 7.3.9).

One of them is its master and writes; the others are slaves, whom it tells of its ports only. Who asks to be master
brings a generation id, and the switch refuses one that is older than the newest that it has seen: so a master that
was replaced while it slept cannot come back.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from followme.continuity.channel import Channel
from followme.continuity.refusals import Absurd, Stale, SwitchError
from followme.openflow import OpenFlowError, RoleReply, RoleRequest
from followme.openflow.constants import OFPCR_ROLE_MASTER, OFPCR_ROLE_NOCHANGE, OFPCR_ROLE_SLAVE

GENERATIONS = 1 << 64
NO_GENERATION = GENERATIONS - 1
"""What a switch says that has had no master yet (7.3.9)."""
MAX_STEP, MAX_GENERATION = 1 << 40, 1 << 52
"""What is learnt from a switch: no more above what is known than all epochs of a domain come to (one a second for
thirty thousand years), so that no switch has the numbers run out; the bus takes epochs below 2**53."""
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


class Newest:
    """The newest ``generation`` of which a switch is known to have had a master: the next one's is above it, even
    where what the controllers knew is lost."""

    def __init__(self) -> None:
        self.generation = 0

    def learn(self, generation: int) -> bool:
        """Whether a controller of ours can have had it."""
        if generation == NO_GENERATION:
            return True
        if generation > min(self.generation + MAX_STEP, MAX_GENERATION):
            return False
        self.generation = max(self.generation, generation)
        return True


async def become_slave(channel: Channel, wanted: Callable[[], bool]) -> int:
    """Ask for it as long as it is ``wanted``; the newest generation that the switch has seen. ``SwitchError`` if it
    does not know of roles, or is gone.

    The request must bring a generation id that is not older than the newest: the switch itself is asked for that.
    If it has none yet it says ``NO_GENERATION``, than which every id from 0 on is newer.
    """
    for _ in range(_ATTEMPTS):
        generation = (await _ask(channel, OFPCR_ROLE_NOCHANGE, 0)).generation_id
        if not wanted():
            return generation
        try:
            await _ask(channel, OFPCR_ROLE_SLAVE, generation)
        except Stale:
            continue
        return generation
    raise SwitchError(f"its generation has changed {_ATTEMPTS} times while it was asked for the role of a slave")


async def become_master(channel: Channel, generation: int, newest: Newest) -> None:
    """``Stale`` if the switch has seen a newer generation, which ``newest`` has learnt then; ``Absurd`` if that
    cannot be one of ours; ``SwitchError`` as above."""
    try:
        await _ask(channel, OFPCR_ROLE_MASTER, generation)
    except Stale:
        seen = (await _ask(channel, OFPCR_ROLE_NOCHANGE, 0)).generation_id
        if not newest.learn(seen):
            raise Absurd(f"it has had a master of generation {seen}, which no controller of this domain comes to; "
                         "it must forget that (for Open vSwitch: restart ovs-vswitchd)") from None  # fmt: skip
        raise


async def _ask(channel: Channel, role: int, generation: int) -> RoleReply:
    reply = await channel.request(RoleRequest(role, generation))
    if not isinstance(reply, RoleReply) or role not in (OFPCR_ROLE_NOCHANGE, reply.role):
        raise OpenFlowError(f"{reply} is no answer to a request of role {role}")
    return reply
