"""The parameters of what peers ask, checked; all raise ``MigrationError``."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from followme.agent.hooks import MAX_TALKS_TO
from followme.migration.host import MigrationError

IPAddress = IPv4Address | IPv6Address
_MAX_ID = 64


def eid_of(params: Mapping[str, Any]) -> IPv4Address:
    """The EID that a request names; IPv4, for others are not carried."""
    eid = _address(params.get("eid"), "eid")
    if not isinstance(eid, IPv4Address):
        raise MigrationError(f"machine's EID {eid}: only IPv4 ones are carried")
    return eid


def rloc_of(params: Mapping[str, Any]) -> IPAddress:
    """The RLOC that a request names."""
    return _address(params.get("rloc"), "rloc")


def migration_of(params: Mapping[str, Any]) -> str:
    """The id of the migration that a request belongs to: 1 to 64 characters."""
    id = params.get("migration")
    if not isinstance(id, str) or not 0 < len(id) <= _MAX_ID:
        raise MigrationError(f"migration {id!r:.80} is no id: 1 to {_MAX_ID} characters")
    return id


def prefixes_of(value: object) -> list[IPv4Network | IPv6Network]:
    """A peer's list of EID-prefixes; what is none, and what is too much, is left out."""
    found = []
    for text in value[:MAX_TALKS_TO] if isinstance(value, list) else ():
        with contextlib.suppress(ValueError):
            found.append(ip_network(str(text)[:64]))
    return found


def _address(value: object, key: str) -> IPAddress:
    try:
        if not isinstance(value, str):
            raise ValueError
        return ip_address(value)
    except ValueError:
        raise MigrationError(f"{key} {value!r:.60} is no address") from None
