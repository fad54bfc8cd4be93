"""One run of the lab: a random id, a directory, namespaces; and the removal of all that it made.

The directory ``/run/followme/<id>`` exists before anything else of a run and goes after everything else; its
file ``owner`` holds our pid and is locked as long as we live. The kernel drops the lock however we die, so
``sweep`` can tell what was left behind from what is in use, without guessing from pids that come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import signal
from pathlib import Path
from typing import IO

from followme.system import netns

ROOT = Path("/run/followme")
_PREFIX = "fm"


class Run:
    """The id, directory and namespaces of one run. ``open`` it, ``add_namespace``, ``close`` it."""

    def __init__(self, id: str, directory: Path, owner: IO[str]) -> None:
        self.id = id
        self.directory = directory
        self._owner = owner

    @classmethod
    def open(cls, root: Path = ROOT) -> Run:
        """A new run, locked by this process."""
        root.mkdir(parents=True, exist_ok=True)
        # Under the lock no sweep can see a directory that is made but not yet locked.
        with (root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            while True:
                id = secrets.token_hex(3)
                with contextlib.suppress(FileExistsError):
                    (root / id).mkdir(mode=0o700)
                    break
            owner = (root / id / "owner").open("w")
            fcntl.flock(owner, fcntl.LOCK_EX)
            owner.write(f"{os.getpid()}\n")
            owner.flush()
        return cls(id, root / id, owner)

    def namespace(self, role: str) -> str:
        """The name of this run's namespace for a role, e.g. ``fm-3fa9c1-router``."""
        return f"{_PREFIX}-{self.id}-{role}"

    async def add_namespace(self, role: str) -> str:
        """Make the namespace for a role, without IPv6 (whose chatter would reach the controller)."""
        name = self.namespace(role)
        await netns.add(name)
        if Path("/proc/sys/net/ipv6").exists():
            netns.sysctl(name, {"ipv6/conf/all/disable_ipv6": 1, "ipv6/conf/default/disable_ipv6": 1})
        return name

    async def close(self) -> None:
        """Remove the namespaces, whatever still runs in them, and the directory."""
        try:
            await _remove(self.id, self.directory)
        finally:
            self._owner.close()


async def sweep(root: Path = ROOT) -> list[str]:
    """Remove what runs left behind that died without cleaning up; returns their ids."""
    if not root.is_dir():
        return []
    swept = []
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        dead = [(path, owner) for path in root.iterdir() if path.is_dir() and (owner := _take(path))]
    for path, owner in dead:
        with owner:
            await _remove(path.name, path)
        swept.append(path.name)
    return swept


def _take(directory: Path) -> IO[str] | None:
    """The owner file, locked by us now because its owner is dead; None if the owner lives."""
    # "a" keeps the pid readable and makes the file if its owner died before it could.
    try:
        owner = (directory / "owner").open("a")
    except FileNotFoundError:  # the run removed its directory this moment
        return None
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner.close()
        return None
    return owner


async def _remove(id: str, directory: Path) -> None:
    errors: list[Exception] = []
    for name in netns.names():
        if name.startswith(f"{_PREFIX}-{id}-"):
            try:
                await _empty(name)
                await netns.delete(name)
            except Exception as error:  # go on: the other namespaces must go all the same
                errors.append(error)
    if errors:
        raise ExceptionGroup(f"run {id} could not be removed whole; see {directory}", errors)
    shutil.rmtree(directory, ignore_errors=True)


async def _empty(namespace: str) -> None:
    """Kill what still runs in a namespace of ours: it would keep the namespace's devices alive."""
    for _ in range(50):
        pids = [pid for pid in await netns.pids(namespace) if pid != os.getpid()]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.02)
