"""Frames that a hypervisor's bridge bounces for a machine that is being carried away (migration/bounce.py).

They come back at the bridge port behind which the hypervisor is, addressed to the machine's MAC. A tc filter
at the port lifts them into the LAN device, as its bridge would only flood them; an nftables rule there says
that they are for us, so that they are routed; a table of its own sends them to where the machine goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable

from followme.system.netns import tc
from followme.system.process import ProcessError, run
from followme.xtr.errors import DataPlaneError

_PREFERENCES = 0xFFFF
_MATCH = re.compile(r"match ([0-9a-f]{8})/[0-9a-f]{8} at (-1[26])")


class Arms:
    """The filters in ``namespace`` for frames that come back at ``port`` (``None``: straight at ``lan``)."""

    def __init__(self, namespace: str | None, lan: str, port: str | None) -> None:
        self._namespace, self._lan = namespace, lan
        self._port = None if port == lan else port
        self._place = f"dev {self._port} ingress"
        self._changing = asyncio.Lock()
        self.table = "lisp_arms_" + re.sub(r"[^A-Za-z0-9_]", "_", lan)

    async def watch(self) -> None:
        """Give the port its ``clsact``, long before the first arm: while one is added the kernel drops what is sent
        out of the port (``qdisc_graft`` deactivates the device), which is what the machines there are sent. Where
        there is one already nothing happens; so it is never taken away."""
        if self._port is None:
            return
        try:
            await tc(self._namespace, [f"qdisc add dev {self._port} clsact"])
        except ProcessError as error:
            if "Exclusivity" not in str(error) and "exists" not in str(error):
                raise DataPlaneError(f"cannot watch port {self._port}: {error}") from None

    async def add(self, mac: bytes) -> None:
        """Frames for ``mac`` that come back are routed from now on; there are none before the bridge flips."""
        table = self.table
        await self._nft(
            f"add table netdev {table}\n"
            f"add set netdev {table} armed {{ type ether_addr; }}\n"
            f'add chain netdev {table} in {{ type filter hook ingress device "{self._lan}" priority 0; }}\n'
            f"flush chain netdev {table} in\n"
            f"add rule netdev {table} in ether daddr @armed meta pkttype set host\n"
            f"add element netdev {table} armed {{ {mac.hex(':')} }}\n"
        )
        if self._port is None:
            return
        await self.watch()  # the port may be a new one
        async with self._changing:
            high, low = _words(mac)
            held = await self._preferences()
            commands = [f"filter del {self._place} pref {pref}" for pref, key in held.items() if key == (high, low)]
            pref = next((number for number in range(1, _PREFERENCES) if number not in held), _PREFERENCES)
            commands.append(
                f"filter add {self._place} protocol all pref {pref} u32 "
                f"match u16 0x{high:04x} 0xffff at -14 match u32 0x{low:08x} 0xffffffff at -12 "
                f"action mirred ingress redirect dev {self._lan}"
            )
            try:
                await tc(self._namespace, commands)
            except ProcessError as error:
                raise DataPlaneError(
                    f"cannot lift frames for {mac.hex(':')} from port {self._port} into {self._lan}: {error}; "
                    "it needs cls_u32 and act_mirred"
                ) from None

    async def remove(self, mac: bytes) -> None:
        """Harmless where there is nothing."""
        if self._port is not None:
            async with self._changing:
                held = await self._preferences()
                with contextlib.suppress(ProcessError):  # the device has gone meanwhile
                    await tc(self._namespace, [
                        f"filter del {self._place} pref {pref}" for pref, key in held.items() if key == _words(mac)
                    ])  # fmt: skip
        table = self.table
        await self._nft(
            f"add table netdev {table}\nadd set netdev {table} armed {{ type ether_addr; }}\n"
            f"add element netdev {table} armed {{ {mac.hex(':')} }}\n"
            f"delete element netdev {table} armed {{ {mac.hex(':')} }}\n"
        )

    async def keep(self, macs: Iterable[bytes]) -> int:
        """Remove all but what is for these; of how many machines there were filters at the port."""
        table, macs = self.table, set(macs)
        ours: list[int] = []
        if self._port is not None:
            kept = {_words(mac) for mac in macs}
            async with self._changing:
                held = (await self._preferences()).items()
                ours = [pref for pref, key in held if key is not None and key not in kept]
                with contextlib.suppress(ProcessError):  # the device has gone meanwhile
                    await tc(self._namespace, [f"filter del {self._place} pref {pref}" for pref in ours])
        elements = ", ".join(sorted(mac.hex(":") for mac in macs))
        await self._nft(
            f"flush set netdev {table} armed\nadd element netdev {table} armed {{ {elements} }}\n" if macs
            else f"add table netdev {table}\ndelete table netdev {table}\n"
        )  # fmt: skip
        return len(ours)

    async def _preferences(self) -> dict[int, tuple[int, int] | None]:
        """The preferences in use at the port, by us and others; each with the MAC (as ``_words``) of our filter.

        A preference is removed whole, so each machine has one of its own. The kernel knows which: an arm may be of
        an earlier run.
        """
        try:
            text = await run(["tc", "filter", "show", "dev", str(self._port), "ingress"], namespace=self._namespace)
        except ProcessError:
            return {}  # no port, or none of its filters
        found: dict[int, tuple[int, int] | None] = {}
        for block in re.split(r"^filter ", text, flags=re.MULTILINE)[1:]:
            pref = re.search(r"\bpref (\d+)", block)
            if pref is None:
                continue
            found.setdefault(int(pref[1]), None)
            keys = {at: int(value, 16) for value, at in _MATCH.findall(block)}
            if len(keys) == 2 and f"to device {self._lan})" in block:
                found[int(pref[1])] = keys["-16"], keys["-12"]
        return found

    async def _nft(self, text: str) -> None:
        try:
            await run(["nft", "-f", "-"], namespace=self._namespace, input_text=text)
        except ProcessError as error:
            text = " ".join(str(error).split())  # one line in the log
            raise DataPlaneError(f"nftables refused table {self.table}: {text}") from None


def _words(mac: bytes) -> tuple[int, int]:
    return int.from_bytes(mac[:2]), int.from_bytes(mac[2:])
