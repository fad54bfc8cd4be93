"""A right config, as YAML would give it, and the change of one key of it."""

from __future__ import annotations

import copy
from typing import Any

RIGHT: dict[str, Any] = {
    "networks": [
        {
            "name": "wlan1", "kind": "access", "datapath": 0xA1, "area": 1,
            "uplink": {"port": 1, "router_mac": "02:aa:00:00:00:03", "router_address": "10.3.0.1"},
            "prefix": "10.3.0.0/24", "inside": "10.3.0.0/24", "gateway": "10.3.0.2", "locators": "10.3.0.128/25",
            "dhcp": {"first": "10.3.0.20", "last": "10.3.0.99", "lease_s": 600, "dns": ["10.3.0.2"],
                     "keep_address": True},
        },
        {
            "name": "dc1", "kind": "datacentre", "datapath": "0xd1", "area": 1,
            "uplink": {"port": 1, "router_mac": "02:aa:00:00:00:01"},
            "prefix": "10.1.0.0/24", "inside": "192.168.0.0/24", "gateway": "192.168.0.1",
            "locators": "10.1.0.128/25",
            "host": {"port": 2, "bridge": "br0", "uplink": "eth0", "management_address": "10.9.0.1",
                     "run_dir": "/run/dc1", "namespace": "dc1"},
        },
    ],
    "machines": [{
        "name": "vm1", "home": "dc1", "mac": "02:00:00:00:00:01", "address": "192.168.0.5", "kernel": "/k",
        "initrd": "/i", "cmdline": "quiet", "memory_mib": 64,
    }],
    "users": [{"name": "alice", "home": "wlan1", "mac": "02:00:00:00:00:02", "address": "10.3.0.10", "port": 4}],
    "services": [{"name": "desktop", "user": "alice", "machine": "vm1"}],
    "listen": {"address": "127.0.0.1", "port": 6653,
               "tls": {"certificate": "/c.pem", "key": "/k.pem", "ca": "/ca.pem"}},
    "store": "followme.db",
    "policy": {"name": "threshold", "parameters": {"distance": 2}},
    "probe": {"interval_s": 0.5},
    "migration": {"mode": "live", "max_pause_ms": 100, "timeout_s": 300.0},
}  # fmt: skip

Key = tuple[str | int, ...]
GONE = object()


def changed(*changes: tuple[Key, Any], of: dict[str, Any] = RIGHT) -> dict[str, Any]:
    """The right document with other values at some keys; ``GONE`` removes one."""
    document = copy.deepcopy(of)
    for key, value in changes:
        where: Any = document
        for part in key[:-1]:
            where = where[part]
        if value is GONE:
            del where[key[-1]]
        else:
            where[key[-1]] = value
    return document


def text(key: Key) -> str:
    """As messages write it: ``networks[0].uplink.port``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")


def keys(value: Any = RIGHT, at: Key = ()) -> list[Key]:
    """All keys of the document, to the leaves."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found: list[Key] = []
    for part, inner in items:
        found += [(*at, part), *keys(inner, (*at, part))]
    return found


def sections(of: dict[str, Any] = RIGHT) -> list[Key]:
    """The keys of all mappings with a fixed set of keys."""
    found: list[Key] = [()]
    for key in keys(of):
        value: Any = of
        for part in key:
            value = value[part]
        if isinstance(value, dict) and key[-1] != "parameters":
            found.append(key)
    return found
