"""A right config of a controller of LISP sites, as YAML would give it."""

from __future__ import annotations

from typing import Any

LISP: dict[str, Any] = {
    "plane": "lisp",
    "networks": [
        {
            "name": "dc1", "kind": "datacentre", "area": 1, "prefix": "10.1.0.0/24", "gateway": "10.1.0.1",
            "rlocs": ["192.0.2.2", "2001:db8::2"],
            "agent": {"address": "192.0.2.2", "port": 4360, "key_file": "/etc/followme/ctl-dc1.key"},
            "offer": {"capacity": 8, "provider": "us"},
        },
        {
            "name": "dc2", "kind": "datacentre", "area": 8, "prefix": "10.2.0.0/24", "gateway": "10.2.0.1",
            "rlocs": ["192.0.2.6"], "agent": {"address": "192.0.2.6", "key_file": "/etc/followme/ctl-dc2.key"},
        },
        {
            "name": "wlan1", "kind": "access", "prefix": "10.3.0.0/24", "gateway": "10.3.0.1",
            "rlocs": ["192.0.2.10"], "agent": {"address": "192.0.2.10", "key_file": "/etc/followme/ctl-wlan1.key"},
        },
    ],
    "map_server": {
        "address": "192.0.2.18", "port": 4342, "key_file": "/etc/followme/ms-ctl.key", "site_id": 100, "key_id": 1,
        "algorithm": 2,
    },
    "listen": {"address": "192.0.2.22", "port": 4342},
    "instance_id": 7,
    "machines": [
        {"name": "vm1", "home": "dc1", "mac": "02:00:00:00:00:01", "address": "10.1.0.5", "memory_mib": 128},
    ],
    "users": [
        {"name": "alice", "home": "wlan1", "address": "10.3.0.10", "mac": "02:00:00:00:00:02"},
        {"name": "bob", "home": "wlan1", "address": "10.3.0.11"},
    ],
    "services": [{"name": "desktop", "user": "alice", "machine": "vm1"}],
    "policy": {"name": "threshold", "parameters": {"distance": 2}},
    "probe": {"interval_s": 0.5},
    "migration": {"mode": "live"},
}  # fmt: skip
