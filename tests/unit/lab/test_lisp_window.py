"""Where the window of a downtime begins."""

from __future__ import annotations

import pytest

from followme.controllers.events import Happening
from followme.domain import Migration, MigrationState
from followme.lab.lisp_downtime import stops
from followme.migration.mover import Result


def migration(state: MigrationState) -> Migration:
    return Migration("1", "vm1", "dc1", "dc2", "paper", state, 0.0)


def test_the_machine_stops_before_the_first_word_of_the_redirect_and_not_of_the_routers_names() -> None:
    happenings = [
        Happening(1.0, "continuity", "the map system says: dc1 is served by dc1's router"),
        Happening(1.1, "migration", "planned", migration(MigrationState.PLANNED)),
        Happening(1.5, "migration", "transferring", migration(MigrationState.TRANSFERRING)),
        Happening(9.0, "continuity", "vm1's packets go to dc2"),
        Happening(9.1, "continuity", "vm1 is registered at dc2"),
    ]
    result = Result("paper", pause_s=0.2, total_s=7.5, held_s=0.05, bytes=1, passes=2, bounced=0)
    assert stops(happenings, result) == pytest.approx(9.0 - 0.25)
