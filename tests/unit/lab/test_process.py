"""Child processes: their errors reach us, and they do not outlive us."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from followme.system.process import Child, ProcessError, run


def alive(pid: int) -> bool:
    """Running, and not just waiting for its parent to read its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_run_gives_output_and_takes_input() -> None:
    assert await run(["cat"], input_text="hello") == "hello"
    assert await run(["sh", "-c", "echo $FM_TEST"], env={"FM_TEST": "42"}) == "42\n"


async def test_a_failure_says_what_failed_and_why() -> None:
    with pytest.raises(ProcessError, match=r"sh -c .*exit code 3: no such luck"):
        await run(["sh", "-c", "echo no such luck >&2; exit 3"])


async def test_a_program_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(ProcessError, match=r"not done after 0\.3 s"):
        await run(["sh", "-c", f"echo $$ > {note}; exec sleep 60"], timeout=0.3)
    assert not alive(int(note.read_text()))


async def test_a_missing_program_is_named() -> None:
    with pytest.raises(ProcessError, match="no-such-program"):
        await run(["no-such-program"])


async def test_a_child_that_died_shows_its_last_words() -> None:
    child = await Child.start(["sh", "-c", "echo last words >&2; exit 7"], name="talker")
    assert await child.wait() == 7
    assert "last words" in str(child.failure())
    assert "talker" in str(child.failure())


async def test_stop_asks_first_and_kills_then() -> None:
    polite = await Child.start(["sleep", "60"])
    assert await polite.stop() == -signal.SIGTERM
    stubborn = await Child.start(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], stdout=subprocess.PIPE
    )
    assert stubborn.stdout is not None
    await stubborn.stdout.readline()
    assert await stubborn.stop(grace=0.2) == -signal.SIGKILL
    assert await stubborn.stop() == -signal.SIGKILL, "stopping twice is harmless"


def test_children_die_with_us_even_if_we_are_killed() -> None:
    program = (
        "import asyncio, time\n"
        "from followme.system.process import Child\n"
        "async def main():\n"
        "    child = await Child.start(['sleep', '60'])\n"
        # The child may still be setpriv, which has not yet asked to die with us.
        "    while b'sleep' not in open(f'/proc/{child.pid}/comm', 'rb').read(): await asyncio.sleep(0.01)\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child)
