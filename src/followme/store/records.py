"""What the store keeps beside the nouns of ``domain``, and the error that it raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from followme.domain import Mac, MigrationState


class StoreError(Exception):
    """What must survive cannot be written or read; the text names the file, or the pool that is used up."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A DHCP lease: ``mac`` may use ``identifier`` until ``expires_at`` (seconds of the caller's clock)."""

    mac: Mac
    identifier: IPv4Address
    network: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class MigrationStep:
    """One step of a saga: the state that it reached, and what was known at ``at`` (seconds)."""

    state: MigrationState
    at: float
    detail: Mapping[str, object]
