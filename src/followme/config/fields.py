"""The values that may stand in the YAML file, each with a message that helps where it is wrong."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from followme.domain import Mac, mac_bytes


def _mac(value: object) -> Mac:
    if isinstance(value, bytes) and len(value) == 6:
        return value
    if not isinstance(value, str):
        raise ValueError("write a MAC address in quotes, as in '52:54:00:12:34:56' (without them YAML may take "
                         "it for a number of base 60)")  # fmt: skip
    mac = mac_bytes(value)
    if mac[0] & 1:
        raise ValueError(f"{value} is a multicast address; a host or router has a unicast one")
    return mac


def _datapath(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("write a datapath id as a number, as in 0xd1")
    try:
        number = value if isinstance(value, int) else int(value, 16)
    except ValueError:
        raise ValueError("write a datapath id as a number, as in 0xd1") from None
    if not 0 < number < 1 << 64:
        raise ValueError("a datapath id is a number from 1 to 2^64 - 1")
    return number


def _strict_address(value: object) -> IPv4Address:
    if isinstance(value, IPv4Address):
        return value
    if not isinstance(value, str):
        raise ValueError("write an IPv4 address, as in 10.1.0.1")
    return IPv4Address(value)


def _any_address(value: object) -> object:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    if not isinstance(value, str):
        raise ValueError("write an IP address in quotes, as in '192.0.2.1'")
    return ip_address(value)


def _strict_network(value: object) -> IPv4Network:
    if isinstance(value, IPv4Network):
        return value
    if not isinstance(value, str) or "/" not in value:
        raise ValueError("write an IPv4 prefix with its length, as in 10.1.0.0/24")
    return IPv4Network(value)


def _moment(value: object) -> datetime:
    """YAML makes a datetime of most of them by itself."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        at = None
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise ValueError("write a time with its offset from UTC, as in 2030-01-31T20:15:00+01:00")
    return at


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("write a number")
    return value


def _path(value: object) -> object:
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError("is not a path")
    return value


MacField = Annotated[Mac, BeforeValidator(_mac)]
Datapath = Annotated[int, BeforeValidator(_datapath)]
Address = Annotated[IPv4Address, BeforeValidator(_strict_address)]
IpField = Annotated[IPv4Address | IPv6Address, BeforeValidator(_any_address)]
Prefix = Annotated[IPv4Network, BeforeValidator(_strict_network)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Port = Annotated[int, Field(strict=True, ge=1, le=0xFFFFFF00)]
"""Of a switch."""
PortNumber = Annotated[int, Field(strict=True, ge=1, le=65535)]
"""Of TCP and UDP."""
ListenPort = Annotated[int, Field(strict=True, ge=0, le=65535)]
"""0: any that is free."""
Moment = Annotated[datetime, BeforeValidator(_moment)]
Number = Annotated[float, BeforeValidator(_no_bool)]
NumberOrText = Annotated[float | str, BeforeValidator(_no_bool)]
FilePath = Annotated[Path, BeforeValidator(_path)]
