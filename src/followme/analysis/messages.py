"""How many messages a migration sends far away: figure 6 of the scalability paper.

A central controller is near the foreign switch, so what it sends to the home and the correspondent switches goes
far. In the distributed architecture only what controllers say to each other does. The paper draws the curves and
gives no formula; these are the least that its text allows, with a flow-mod for each entry (section 4) and without
any acknowledgement. Whatever acknowledges something doubles that part.

Ours are counted in runs of the real protocol (``lab.roles_counts``), where each order has an answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from followme.analysis.rules import Ints, correspondent_entries, home_entries

NOTIFIED, LOCATED = 1, 1
"""Section 5: home informs the foreign controller of the migration, and gets the locator back."""


def central_messages(home: npt.ArrayLike, correspondents: npt.ArrayLike) -> Ints:
    """(m,) flow-mods from a controller near the foreign switch to the home and the correspondent ones, for H nodes
    (m,) at home and the nodes (m, J) of each correspondent network that talk to the migrated one."""
    there: Ints = correspondent_entries(correspondents).sum(axis=-1)
    return home_entries(home) + there


def foreign_messages(networks: npt.ArrayLike) -> Ints:
    """(m,) messages that the foreign controller sends or receives in the worst case, when it tells all J (m,)
    correspondent controllers."""
    told: Ints = np.asarray(networks, dtype=np.int64)
    if told.size and int(told.min()) < 0:
        raise ValueError("a number of networks is negative")
    return NOTIFIED + LOCATED + told


@dataclass(frozen=True, slots=True)
class MessageCurves:
    """Figure 6, by the number of nodes as in ``rules.figure5``; all (len(nodes),)."""

    nodes: Ints
    central: Ints
    distributed: Ints

    def as_json(self) -> dict[str, Any]:
        paper = {"central": self.central.tolist(), "foreign_controller": self.distributed.tolist()}
        return {"nodes": self.nodes.tolist(), "paper": paper}


def figure6(nodes: Iterable[int]) -> MessageCurves:
    n: Ints = np.array(list(nodes), dtype=np.int64)
    central = [central_messages([one], np.ones((1, one), dtype=np.int64))[0] for one in n.tolist()]
    return MessageCurves(n, np.array(central, dtype=np.int64), foreign_messages(n))
