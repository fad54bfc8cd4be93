"""An agent's file that is right."""

from __future__ import annotations

from typing import Any

SECRET = "not to be seen"
RIGHT: dict[str, Any] = {
    "router": {
        "site": "dc1", "site_id": 1, "rlocs": [{"address": "192.0.2.2"}], "prefixes": ["10.1.0.0/24"],
        "space": ["10.0.0.0/8"], "map_servers": [{"address": "192.0.2.18", "key": SECRET}],
        "host_port": "hv1", "state_dir": "/var/lib/followme",
    },
    "control": {
        "address": "192.0.2.2", "port": 4360,
        "peers": {
            "ctl": {"role": "controller", "key_file": "/etc/followme/ctl-dc1.key"},
            "dc2": {"role": "agent", "key_file": "/etc/followme/dc1-dc2.key", "address": "192.0.2.6"},
        },
    },
    "host": {
        "bridge": "br0", "uplink": "uplink", "management_address": "192.0.2.26", "run_dir": "/run/followme",
        "images": ["/var/lib/followme/images"],
    },
    "machines": [{
        "name": "vm1", "mac": "02:00:00:00:00:01", "address": "10.1.0.5",
        "kernel": "/var/lib/followme/images/k", "initrd": "/var/lib/followme/images/vm1/i",
    }],
    "migration": {"max_pause_ms": 50, "timeout_s": 60},
    "store": "agent.db",
}  # fmt: skip
