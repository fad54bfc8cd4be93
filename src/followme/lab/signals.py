"""SIGTERM as cancellation, so that ``finally`` and ``async with`` clean up (SIGINT does so already)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator

_tasks: set[asyncio.Task[object]] = set()


@contextlib.contextmanager
def cancelled_by_sigterm() -> Iterator[None]:
    """While the block runs, SIGTERM cancels the task that runs it.

    Leaves SIGTERM alone when the program has a handler of its own, and outside the main thread, where
    signals cannot be handled.
    """
    task = asyncio.current_task()
    if task is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    if not _tasks:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            yield
            return
        loop.add_signal_handler(signal.SIGTERM, _cancel_all)
    _tasks.add(task)
    try:
        yield
    finally:
        _tasks.discard(task)
        if not _tasks:
            loop.remove_signal_handler(signal.SIGTERM)


def _cancel_all() -> None:
    for task in list(_tasks):
        task.cancel("SIGTERM")
