"""A store file belongs to one process at a time, and to nobody once that is dead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from followme.store import Store, StoreError

HOLDER = """
import sys
from followme.store import Store

store = Store(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_store_is_refused_while_the_first_is_open(tmp_path: Path) -> None:
    path = tmp_path / "followme.db"
    first = Store(path)
    with pytest.raises(StoreError, match=rf"store {path}: process {os.getpid()} has it open"):
        Store(path)
    assert first.nodes() == (), "the first one goes on"
    first.close()
    Store(path).close()


def test_another_process_is_named_and_its_death_frees_the_file(tmp_path: Path) -> None:
    path, link = tmp_path / "followme.db", tmp_path / "link.db"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"open\n"
        link.symlink_to(path)
        for name in (path, link):
            with pytest.raises(StoreError, match=rf"store {name}: process {holder.pid} has it open"):
                Store(name)
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    Store(path).close()


def test_a_file_that_cannot_be_opened_is_not_kept_locked(tmp_path: Path) -> None:
    path = tmp_path / "followme.db"
    path.write_bytes(b"no database at all" * 100)
    for _ in range(2):
        with pytest.raises(StoreError, match="not a database"):
            Store(path)


def test_stores_in_memory_do_not_meet() -> None:
    with Store(":memory:"), Store(":memory:") as second:
        assert second.nodes() == ()
