"""A tunnel router taken out of the kernel for good: all that an agent leaves there when it stops."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from followme.system import netns
from followme.system.process import ProcessError, run
from followme.xtr import device, fastpath
from followme.xtr.errors import DataPlaneError

from . import kernel, routemsg
from .arms import Arms
from .config import RouterConfig
from .headers import table_name
from .netlink import Netlink
from .state import StateFile


async def remove(config: RouterConfig) -> list[str]:
    """Remove devices, rules, routes, filters and neighbours of the router; what was removed, a line for each.

    Harmless where there is nothing (any more). The state file stays: the nonces in it must go on growing. Raises
    ``DataPlaneError`` while the router runs, ``OSError`` or ``ProcessError`` where the kernel refuses.
    """
    file = StateFile(config.state_dir, config.site)
    file.lock()
    try:
        return [line async for line in _removed(config, file)]
    finally:
        file.unlock()


async def _removed(config: RouterConfig, file: StateFile) -> AsyncIterator[str]:
    namespace = config.namespace
    for name in (config.lan, config.up, config.tunnel):
        if fastpath.detach(namespace, name):
            yield f"{name}: the program of the fast path (tc, preference {fastpath.PREFERENCE})"
    netlink = Netlink(namespace)
    try:
        # Rules before tables: in an empty one a packet would not be thrown back to the main table's routes.
        for priority, table, incoming in kernel.rules(config):
            if netlink.delete_rule(priority, table, incoming):
                yield f"rule {priority} to table {table}"
        for table in kernel.TABLES:
            if count := await _flush(namespace, table):
                yield f"table {table}: {count} routes"
        for line in _neighbours(netlink, config, file):
            yield line
    finally:
        netlink.close()
    arms = Arms(namespace, config.lan, config.host_port)
    shown = json.loads(await run(["nft", "-j", "list", "tables", "netdev"], namespace=namespace))["nftables"]
    there = {item["table"]["name"] for item in shown if "table" in item}
    if count := await arms.clear():
        yield f"{config.host_port}: filters of {count} machines on their way"
    if (headers := table_name(config.tunnel)) in there:
        await run(["nft", "delete", "table", "netdev", headers], namespace=namespace)
    for name in sorted(there & {headers, arms.table}):
        yield f"nftables table {name}"
    for name, kind in ((config.tunnel, "vxlan"), (config.punt, "tun")):
        if await device.kind(name, namespace=namespace) == kind:
            await netns.ip(namespace, [f"link delete {name}"])
            yield f"device {name}"


async def _flush(namespace: str | None, table: int) -> int:
    """How many routes of ours the table had."""
    count = 0
    for family in ("-4", "-6"):
        what = ["table", str(table), "protocol", str(routemsg.PROTOCOL)]
        where = [] if namespace is None else ["-n", namespace]
        try:
            count += len(json.loads(await run(["ip", family, *where, "-json", "route", "show", *what]) or "[]"))
            await run(["ip", family, *where, "route", "flush", *what])
        except ProcessError as error:
            if "does not exist" not in str(error):
                raise
    return count


def _neighbours(netlink: Netlink, config: RouterConfig, file: StateFile) -> list[str]:
    """Those of machines, as their entries do not age."""
    try:
        lan = netlink.index(config.lan)
    except DataPlaneError:
        return []
    pinned = [one.eid.network.network_address for one in file.load(config.instance_id).residents if one.pinned]
    return [f"neighbour {address}" for address in pinned if netlink.forget_neighbour(lan, address)]
