"""What operators want to see of a tunnel router."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any

from .config import RouterConfig
from .control import Control
from .mapcache import Entry
from .outputs import Encap, Native

MAX_SHOWN = 1000
MAX_BYTES = 48 << 10
"""Of each list as JSON: all of them fit into a line of the channel (``remote.channel.MAX_LINE``)."""


def describe(config: RouterConfig, control: Control, unsent: int, now: float) -> dict[str, Any]:
    """Map-cache, registrations, locators and counters, in JSON types; at most 1000 entries of each, and 48 KiB."""
    cache = control.itr.cache
    registrar = control.etr.registrar
    return {
        "site": config.site,
        "xtr_id": config.identity.hex(),
        "rlocs": [str(rloc.address) for rloc in config.rlocs],
        "map_cache_entries": len(cache.table),
        "map_cache": _shown(
            {"eid": str(eid), "expires_s": round(entry.expires - now, 1), "subscribed": entry.nonce is not None,
             **_way(entry)}
            for eid, entry in cache.table.items()
        ),
        "registrations": _shown(
            {"eid": str(eid), "confirmed_by": [str(s.server.address) for s in registrar.sessions.values()
                                               if eid in s.confirmed]}
            for eid in registrar.eids
        ),
        "dynamic_eids": _shown(
            {"eid": str(one.eid), "mac": one.mac.hex(":"), "pinned": one.pinned, "expected": one.expected}
            for one in control.residents.here.values()
        ),
        "locators": _shown(
            {"rloc": str(rloc), "up": probed.up,
             "rtt_ms": None if probed.rtt_s is None else round(probed.rtt_s * 1000, 3)}
            for rloc, probed in control.itr.prober.rlocs.items()
        ),
        "map_requests_pending": len(control.itr.requests.pending),
        "packets_waiting_bytes": control.itr.requests.waiting_bytes,
        "refused": dict(control.refusals.counts),
        "evicted": cache.evicted,
        "unsent": unsent,
    }  # fmt: skip


def _shown(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first ones, as many as there is room for."""
    shown, room = [], MAX_BYTES
    for entry in islice(entries, MAX_SHOWN):
        room -= len(json.dumps(entry, separators=(",", ":"))) + 1
        if room < 0:
            break
        shown.append(entry)
    return shown


def _way(entry: Entry) -> dict[str, Any]:
    if isinstance(entry.way, Encap):
        return {"rlocs": [str(rloc) for rloc, _ in entry.way.paths]}
    return {"action": "native" if isinstance(entry.way, Native) else "drop"}
