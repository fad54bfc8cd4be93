"""The lease in a real JetStream, with holders in processes of their own that are killed and frozen."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.interop.nats_lab import Nats, nats, needs_nats

from followme.system.process import Child

pytestmark = needs_nats
TAKEOVER_S = 3.0


@asynccontextmanager
async def _instance(lab: Nats, name: str) -> AsyncIterator[Child]:
    program = str(Path(__file__).with_name("lease_holder.py"))
    words = [lab.servers[0].url, lab.logins["alpha"].controller.password, name]
    child = await Child.start([sys.executable, program, *words], name=name, stdout=asyncio.subprocess.PIPE)
    try:
        await _said(child, "waits")
        yield child
    finally:
        if child.returncode is None:
            os.kill(child.pid, signal.SIGCONT)
        await child.stop(0.5)


async def _said(child: Child, word: str, seconds: float = 15.0) -> str:
    """The first line from now on that begins with the word."""
    assert child.stdout is not None
    async with asyncio.timeout(seconds):
        while line := await child.stdout.readline():
            if line.decode().startswith(word):
                return line.decode().strip()
    raise AssertionError(f"{child.name} has not said {word}: {child.stderr_tail}")


async def test_a_holder_that_is_killed_is_followed(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab, _instance(lab, "a1") as one:
        await _said(one, "held 1")
        async with _instance(lab, "a2") as two:
            await _said(one, "put 20")
            begin = time.monotonic()
            os.kill(one.pid, signal.SIGKILL)
            assert await _said(two, "held") == "held 2"
            await _said(two, "put 0")
            took = time.monotonic() - begin
            assert took < TAKEOVER_S


async def test_a_frozen_holder_is_followed_and_writes_nothing_when_it_is_back(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab, _instance(lab, "a1") as one:
        await _said(one, "held 1")
        async with _instance(lab, "a2") as two:
            await _said(one, "put 20")
            begin = time.monotonic()
            os.kill(one.pid, signal.SIGSTOP)
            assert await _said(two, "held") == "held 2"
            await _said(two, "put 0")
            assert time.monotonic() - begin < TAKEOVER_S
            await _said(two, "put 50")
            kv = await lab.bucket("alpha")
            before = {key for key in await kv.load() if key.startswith("a1.")}
            os.kill(one.pid, signal.SIGCONT)
            await _said(one, "lost")
            await _said(two, "put 100")
            after = {key for key in await kv.load() if key.startswith("a1.")}
            assert after == before


