"""Child processes that end with us, and whose complaints reach the error message.

Children run through ``setpriv --pdeathsig`` instead of a ``preexec_fn``: Python code between fork and exec
can deadlock in a process that has threads. Both ``setpriv`` and ``ip netns exec`` replace themselves, so
the pid is that of the program asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shlex
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_PIDFD_GETFD = 438  # on every architecture: system calls that new have one number
TAIL_LINES = 30


class ProcessError(RuntimeError):
    """A program could not be started, failed, or took too long; the text says which and what it printed."""


def within(namespace: str | None, argv: Sequence[str | Path]) -> list[str]:
    """``argv`` as run inside a named network namespace (or where we are, for None)."""
    plain = [os.fspath(part) for part in argv]
    return plain if namespace is None else ["ip", "netns", "exec", namespace, *plain]


def _bound(namespace: str | None, argv: Sequence[str | Path]) -> list[str]:
    return ["setpriv", "--pdeathsig", "KILL", "--", *within(namespace, argv)]


async def run(
    argv: Sequence[str | Path],
    *,
    namespace: str | None = None,
    input_text: str | None = None,
    timeout: float = 30.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a program to its end and return its standard output; ``ProcessError`` unless it exits with 0."""
    shown = shlex.join(os.fspath(part) for part in argv)
    where = f" (in namespace {namespace})" if namespace else ""
    process = await asyncio.create_subprocess_exec(
        *_bound(namespace, argv),
        stdin=asyncio.subprocess.DEVNULL if input_text is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=None if env is None else {**os.environ, **env},
        cwd=cwd,
        start_new_session=True,
    )
    try:
        payload = None if input_text is None else input_text.encode()
        out, err = await asyncio.wait_for(process.communicate(payload), timeout)
    except TimeoutError:
        raise ProcessError(f"{shown}{where}: not done after {timeout:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        said = err.decode(errors="replace").strip() or out.decode(errors="replace").strip()
        raise ProcessError(f"{shown}{where}: exit code {process.returncode}: {said or 'it printed nothing'}")
    return out.decode(errors="replace")


class Child:
    """A running child process. Make it with ``Child.start``, end it with ``stop``; it dies when we die."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._reader = asyncio.create_task(self._read_stderr())

    @classmethod
    async def start(
        cls,
        argv: Sequence[str | Path],
        *,
        name: str | None = None,
        namespace: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
        stdin: int | IO[bytes] | None = None,
        stdout: int | IO[bytes] | None = None,
        limit: int = 1 << 16,
    ) -> Child:
        """Start ``argv``; ``stdin`` and ``stdout`` (default: nothing) are what ``subprocess`` takes; ``limit``
        bounds a line that is read from a pipe, in bytes."""
        process = await asyncio.create_subprocess_exec(
            *_bound(namespace, argv),
            stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
            stdout=asyncio.subprocess.DEVNULL if stdout is None else stdout,
            stderr=asyncio.subprocess.PIPE,
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
            pass_fds=pass_fds,
            limit=limit,
            # An own session: Ctrl-C in our terminal must reach us alone, we stop the children in order.
            start_new_session=True,
        )
        return cls(name or os.path.basename(os.fspath(argv[0])), process)

    async def _read_stderr(self) -> None:
        stream = self._process.stderr
        if stream is None:
            return
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line longer than the stream's buffer: the reader dropped it, go on
                continue
            if not line:
                return
            self._tail.append(line.decode(errors="replace").rstrip())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return self._process.returncode

    @property
    def stdin(self) -> asyncio.StreamWriter | None:
        return self._process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        return self._process.stdout

    @property
    def stderr_tail(self) -> str:
        """The last lines that it wrote to standard error."""
        return "\n".join(self._tail)

    async def wait(self) -> int:
        """Wait for its end; the return code."""
        code = await self._process.wait()
        await self._reader_done()
        return code

    async def _reader_done(self) -> None:
        # A grandchild may still hold the pipe open: do not wait for it for ever.
        await asyncio.wait([self._reader], timeout=0.5)
        if not self._reader.done():
            self._reader.cancel()

    def failure(self) -> ProcessError:
        """The error to raise when it has ended although it should not have."""
        said = self.stderr_tail or "it printed nothing to standard error"
        return ProcessError(f"{self.name} (pid {self.pid}) ended with code {self.returncode}: {said}")

    async def stop(self, grace: float = 2.0) -> int:
        """TERM, wait up to ``grace`` seconds, then KILL; the return code. Harmless when it has ended."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                # Not process.terminate(): it would reap a child that has just ended, behind asyncio's back.
                os.kill(self.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), grace)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
        return await self.wait()


def duplicate_from(pidfd: int, descriptor: int) -> int:
    """Our own copy of another process's open file (``pidfd_getfd(2)``); ``OSError`` if that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    copy: int = libc.syscall(_PIDFD_GETFD, pidfd, descriptor, 0)
    if copy < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.set_inheritable(copy, False)
    return copy
