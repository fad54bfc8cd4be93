"""The process dies at any write: the file that is left is whole, and holds just what was committed."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from followme.domain import MigrationState
from followme.store import Store

# Each round is one commit of four writes of the same number. The process dies, without any clean-up, right
# after the write that its second argument counts.
VICTIM = """
import os, sys
from ipaddress import IPv4Address
from followme.domain import Attachment, Migration, MigrationState, Placement
from followme.store import Store

path, last, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
store = Store(path)
written = 0

def write(method, *arguments):
    global written
    method(*arguments)
    written += 1
    if written == last:
        os._exit(9)

for round in range(1, 100):
    with store.transaction() if mode == "transaction" else store.batch():
        locator = IPv4Address(167772160 + round)
        write(store.allocate_locator, "east", f"node{round}", [locator])
        write(store.put_placement, Placement("phone", "east", 1, locator, round))
        write(store.put_attachment, Attachment("phone", "east", 1, locator, float(round)))
        state = MigrationState.PLANNED
        write(store.put_migration, Migration(f"m{round}", "vm", "a", "b", "live", state, round), round)
"""


@pytest.mark.parametrize("mode", ["transaction", "batch"])
@pytest.mark.parametrize("last", [1, 2, 3, 4, 5, 18, 31, 40])
def test_only_whole_commits_survive(tmp_path: Path, last: int, mode: str) -> None:
    path = tmp_path / "followme.db"
    died = subprocess.run([sys.executable, "-c", VICTIM, str(path), str(last), mode], check=False, timeout=60)
    assert died.returncode == 9
    rounds = (last - 1) // 4
    with Store(path) as store:
        assert [place.version for place in store.placements()] == ([rounds] if rounds else [])
        assert len(store.locators()) == rounds
        assert [seen.at for seen in store.attachments()] == [float(n) for n in range(rounds, 0, -1)]
        unfinished = store.unfinished_migrations()
        assert [saga.id for saga in unfinished] == [f"m{n}" for n in range(1, rounds + 1)]
        assert all(saga.state is MigrationState.PLANNED for saga in unfinished)
        # It goes on from there: what the lost commit took is free.
        free = IPv4Address(167772160 + rounds + 1)
        assert store.allocate_locator("east", "next", [free]) == free


SINGLE = """
import os, sys
from ipaddress import IPv4Address
from followme.domain import Placement
from followme.store import Store

store = Store(sys.argv[1])
store.put_placement(Placement("phone", "east", 1, IPv4Address(1), 7))
os._exit(9)
"""


def test_a_single_write_survives(tmp_path: Path) -> None:
    path = tmp_path / "followme.db"
    assert subprocess.run([sys.executable, "-c", SINGLE, str(path)], check=False, timeout=60).returncode == 9
    with Store(path) as store:
        assert [place.version for place in store.placements()] == [7]
