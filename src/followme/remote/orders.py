"""What a controller may order of a site's agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from followme.migration.host import MigrationError
from followme.remote.server import Caller, Handler
from followme.remote.specs import machine_name

if TYPE_CHECKING:
    from followme.remote.machines import SiteMachines


def orders(site: SiteMachines) -> dict[str, Handler]:
    """``carry``, ``cancel`` and ``machines``; all raise ``MigrationError``."""

    async def carry(params: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """``{machine, target, mode}``: events as in ``told``, then ``Result`` as an object. It goes on when its
        caller leaves."""
        target, mode = params.get("target"), params.get("mode")
        if not isinstance(target, str) or not (mode is None or isinstance(mode, str)):
            raise MigrationError("carry needs a target, and a mode if any is given, as texts")
        return asdict(await site.carry(machine_name(params.get("machine")), target, mode, caller))

    async def cancel(params: Mapping[str, Any], caller: Caller) -> bool:
        """``{machine, reason}``: false where there is nothing to cancel, or not any more."""
        reason = f"cancelled by {caller.peer}: {str(params.get('reason', 'no reason given'))[:200]}"
        return site.cancel(machine_name(params.get("machine")), reason)

    async def machines(params: Mapping[str, Any], caller: Caller) -> list[dict[str, Any]]:
        """Per machine: ``machine``, ``mac``, ``state`` (``running``, or what is wrong), ``carried_to``."""
        names = sorted({*site.running, *site.problems, *site.carried_to})
        return [{
            "machine": name, "state": site.problems.get(name, "running"), "carried_to": site.carried_to.get(name),
            "mac": site.running[name].spec.mac.hex(":") if name in site.running else None,
        } for name in names]

    return {"carry": carry, "cancel": cancel, "machines": machines}
