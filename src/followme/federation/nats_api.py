"""What JetStream's API says no with (the server's ``errors.json``), and what it says of a stream that is there."""

from __future__ import annotations

from typing import Any

from .kv import Full, KvError

WRONG_SEQUENCE = {10071, 10164}
NO_MESSAGE, NO_STREAM, NAME_IN_USE = 10037, 10059, 10058
GONE = {NO_MESSAGE, 10043, 10057}
NOT_READY = 10008
NOT_YET = {NOT_READY, 10005}  # no suitable peers: the others have not joined the cluster yet
FULL = {10023, 10028, 10047, 10077}
"""Insufficient resources, memory or storage exceeded, store failed (which includes: more than ``max_bytes``)."""


class ApiError(KvError):
    def __init__(self, bucket: str, server: str, error: dict[str, Any]) -> None:
        self.code = int(error.get("err_code", 0))
        self.text = f"bucket {bucket}: NATS {server}: {error.get('description', 'an error')} ({self.code})"
        super().__init__(self.text)

    def as_kv_error(self) -> KvError:
        return Full(self.text) if self.code in FULL else KvError(self.text)


def differences(wanted: dict[str, object], found: dict[str, Any]) -> str:
    """What a stream's configuration has otherwise than ``wanted``, for people."""
    pairs = [(what, found[what], asked) for what, asked in wanted.items() if what in found]
    return ", ".join(f"{what} {held} (not {asked})" for what, held, asked in pairs if held != asked)
