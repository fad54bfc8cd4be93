"""One store file, one controller: two of them would give the same address and locator to different nodes."""

from __future__ import annotations

import fcntl
import os

from .records import StoreError


class FileLock:
    """Held from its making until ``release``, or until the process ends in whatever way. The store's directory is
    made if it is not there.

    It lies on ``<file>.lock`` beside the store, which holds its owner's pid and stays there: to open and close
    the store's own file would give up SQLite's locks on it (POSIX locks go with any close), and to remove the
    lock's would let two processes hold locks on different files of one name.
    """

    def __init__(self, store: str) -> None:
        self._file: int | None = None
        if store in ("", ":memory:"):
            return
        name = os.path.realpath(store) + ".lock"
        directory = os.path.dirname(name)
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise StoreError(f"store {store}: directory {directory}: {error.strerror}") from error
        try:
            self._file = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"store {store}: {name}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "that is just starting"
            self.release()
            raise StoreError(f"store {store}: process {holder} has it open; it holds the lock on {name}") from None
        except OSError as error:
            self.release()
            raise StoreError(f"store {store}: {name}: {error}") from error

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
