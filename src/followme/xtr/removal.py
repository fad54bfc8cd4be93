"""A tunnel router taken out of the kernel for good: all that an agent leaves there when it stops."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable

from followme.system import netns
from followme.system.process import ProcessError, run
from followme.xtr import device, fastpath

from . import kernel, routemsg
from .arms import Arms
from .config import RouterConfig
from .headers import table_name
from .netlink import Netlink
from .outputs import IPAddress
from .state import StateFile


async def remove(config: RouterConfig, tell: Callable[[str], None]) -> bool:
    """Remove devices, rules, routes, filters and neighbours of the router; whether there were any.

    ``tell`` gets a line for each at once, and for each device that is left, as somebody else has it. Harmless where
    there is nothing (any more). The state file stays: the nonces in it must go on growing. Raises
    ``DataPlaneError`` while the router runs, ``OSError`` or ``ProcessError`` where the kernel refuses.
    """
    some = False
    file = StateFile(config.state_dir, config.site)
    file.lock()
    try:
        async for line in _removed(config, file):
            tell(f"removed {line}")
            some = True
        for name, ours in ((config.tunnel, "lisp"), (config.punt, "tun")):
            kind = await device.kind(name, namespace=config.namespace)
            if kind == ours and (kind == "lisp" or _free(config.namespace, name)):
                await netns.ip(config.namespace, [f"link delete {name}"])
                tell(f"removed device {name}")
                some = True
            elif kind is not None:
                tell(f"left device {name}, which is of somebody else ({kind})")
    finally:
        file.unlock()
    return some


def _free(namespace: str | None, name: str) -> bool:
    """Whether a tun device has nobody at its other end, as after the agent's end."""
    try:
        os.close(netns.open_tun(namespace, name))
    except OSError:
        return False
    return True


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
        for address in await _pinned(config, file):
            if netlink.forget_neighbour(netlink.index(config.lan), address):
                yield f"neighbour {address}"
    finally:
        netlink.close()
    arms = Arms(namespace, config.lan, config.host_port)
    shown = json.loads(await run(["nft", "-j", "list", "tables", "netdev"], namespace=namespace))["nftables"]
    there = {item["table"]["name"] for item in shown if "table" in item}
    if count := await arms.keep(()):
        yield f"{config.host_port}: filters of {count} machines on their way"
    if (headers := table_name(config.tunnel)) in there:
        await run(["nft", "delete", "table", "netdev", headers], namespace=namespace)
    for name in sorted(there & {headers, arms.table}):
        yield f"nftables table {name}"


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


async def _pinned(config: RouterConfig, file: StateFile) -> list[IPAddress]:
    """Machines whose neighbour entries do not age; those that the kernel learned by itself are its own."""
    where = [] if config.namespace is None else ["-n", config.namespace]
    try:
        text = await run(["ip", *where, "-json", "neigh", "show", "dev", config.lan, "nud", "permanent"])
    except ProcessError:
        return []  # no such device
    there = {item["dst"] for item in json.loads(text or "[]")}
    pinned = (one.eid.network.network_address for one in file.load(config.instance_id).residents if one.pinned)
    return [address for address in pinned if str(address) in there]
