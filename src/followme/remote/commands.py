"""The QMP commands that a migration needs of its target: all that a peer may have a QEMU here do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from followme.migration.host import MigrationError

_CAPABILITIES = ("events", "return-path")


def check_command(command: object, arguments: object, management_address: str) -> None:
    """``MigrationError`` unless it is one of them, with harmless arguments.

    Arguments can be as bad as a command: ``migrate-incoming`` with the uri ``exec:…`` is a shell.
    """
    address = f"[{management_address}]" if ":" in management_address else management_address
    allowed: dict[str, Callable[[Any], bool]] = {
        "query-status": lambda given: not given,
        "query-migrate": lambda given: not given,
        "migrate_cancel": lambda given: not given,
        "cont": lambda given: not given,
        "migrate-set-capabilities": lambda given: set(given) == {"capabilities"} and all(
            set(one) == {"capability", "state"} and one["capability"] in _CAPABILITIES
            for one in given["capabilities"]),
        "migrate-set-parameters": lambda given: set(given) == {"announce-rounds"},
        "migrate-incoming": lambda given: given == {"uri": f"tcp:{address}:0"},
    }
    try:
        good = isinstance(command, str) and isinstance(arguments, dict) and allowed[command](arguments)
    except (KeyError, TypeError):
        good = False
    if not good:
        raise MigrationError(f"the QMP command {command!r:.60} with these arguments is not one that a migration "
                             "needs")
