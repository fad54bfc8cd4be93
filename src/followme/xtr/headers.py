"""Plain LISP headers (RFC 9300, 5.1) for peers that do not speak LISP-GPE (RFC 9305).

The two differ in the first word of the 8-byte header: LISP-GPE has the P bit and says in the last byte which
protocol is inside. nftables rewrites that word at the core's device: on the way out it leaves the I bit alone,
on the way in it writes what the kernel's driver wants to see, taken from the version of the inner packet.
Which peers get it is a set of RLOCs; all others are left alone.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable

from followme.system.process import ProcessError, run
from followme.xtr.device import TunnelDevice
from followme.xtr.errors import DataPlaneError
from followme.xtr.fastpath import FastPath
from followme.xtr.routemsg import Address

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_PLAIN = 0x08000000  # I
_GPE = {4: 0x0C000001, 6: 0x0C000002}  # I, P, next protocol
MAX_PEERS = 65536


class PlainHeaders:
    """The nftables table ``lisp_<device>``; each change is one transaction, so no packet sees a half of it."""

    def __init__(self, device: TunnelDevice, uplinks: Iterable[str], *, fastpath: FastPath | None = None) -> None:
        """``uplinks``: the devices towards the core, in the namespace of the tunnel device. ``fastpath`` is told
        who gets plain headers, as its packets do not pass the table."""
        self._device = device
        self._fastpath = fastpath
        self._uplinks = tuple(uplinks)
        for name in (device.name, *self._uplinks):
            if not _NAME.fullmatch(name):
                raise DataPlaneError(f"{name!r} cannot be the name of a device in an nftables rule")
        if not self._uplinks:
            raise DataPlaneError(f"{device.name}: name at least one device towards the core")
        self._table = table_name(device.name)

    async def ensure(self, peers: Iterable[Address]) -> None:
        """Make the table, or put a fresh one in its place, for these peers."""
        peers = set(peers)
        await self._nft(self.ruleset(peers))
        self._tell(peers)

    async def set_peers(self, peers: Iterable[Address]) -> None:
        """Let exactly these RLOCs have plain headers; the table must be there."""
        peers = set(peers)
        v4, v6 = _split(peers)
        lines = [f"flush set netdev {self._table} peers4", f"flush set netdev {self._table} peers6"]
        for name, some in (("peers4", v4), ("peers6", v6)):
            if some:
                lines.append(f"add element netdev {self._table} {name} {{ {', '.join(some)} }}")
        await self._nft("\n".join(lines) + "\n")
        self._tell(peers)

    async def peers(self) -> set[Address]:
        """The RLOCs in the kernel's sets: so a daemon that starts again learns them."""
        found: set[Address] = set()
        for name in ("peers4", "peers6"):
            text = await self._run(["nft", "-j", "list", "set", "netdev", self._table, name])
            for item in json.loads(text)["nftables"]:
                found.update(ipaddress.ip_address(one) for one in item.get("set", {}).get("elem", []))
        return found

    async def remove(self) -> None:
        """Delete the table; harmless if there is none."""
        await self._nft(f"table netdev {self._table}\ndelete table netdev {self._table}\n")
        self._tell(set())

    def ruleset(self, peers: Iterable[Address]) -> str:
        """The whole table as nft reads it; it takes the place of one of that name."""
        v4, v6 = _split(peers)
        devices = ", ".join(f'"{name}"' for name in self._uplinks)
        port = self._device.port
        into, out = [], []
        for ip, name in (("ip", "peers4"), ("ip6", "peers6")):
            out.append(f"    {ip} daddr @{name} udp dport {port} @th,64,32 set {_PLAIN:#010x}")
        # From anybody: a peer that nothing was sent to yet is in no set. The P bit says which kind it is.
        into.append(f"    udp dport {port} @th,64,8 & 0x04 == 0 jump gpe")
        # Bytes after UDP's eight: 0..3 flags and nonce, 4..7 instance id and locator status bits, 8.. inner packet.
        # Without the I bit the second word holds locator status bits only: instance 0. The driver drops a packet
        # whose last byte is not 0. The UDP checksum no longer fits then: 0 says that there is none.
        # Our own kind sends no nonce and no checksum: one write is all that its packets need.
        gpe = [
            *(f"    @th,64,32 {_PLAIN:#010x} @th,128,4 {version} @th,120,8 0 udp checksum 0 "
              f"@th,64,32 set {word:#010x} accept" for version, word in _GPE.items()),
            "    @th,64,8 & 0x08 == 0 @th,96,32 set 0",
            "    @th,120,8 set 0",
            *(f"    @th,128,4 {version} @th,64,32 set {word:#010x}" for version, word in _GPE.items()),
            "    udp checksum set 0",
        ]  # fmt: skip
        return "\n".join([
            f"table netdev {self._table}", f"delete table netdev {self._table}", f"table netdev {self._table} {{",
            f"  set peers4 {{ type ipv4_addr; size {MAX_PEERS}; {_elements(v4)} }}",
            f"  set peers6 {{ type ipv6_addr; size {MAX_PEERS}; {_elements(v6)} }}",
            "  chain gpe {", *gpe, "  }",
            f"  chain in {{ type filter hook ingress devices = {{ {devices} }} priority filter;", *into, "  }",
            f"  chain out {{ type filter hook egress devices = {{ {devices} }} priority filter;", *out, "  }",
            "}", "",
        ])  # fmt: skip

    def _tell(self, peers: set[Address]) -> None:
        if self._fastpath is not None:
            self._fastpath.set_plain(peers)

    async def _nft(self, text: str) -> None:
        await self._run(["nft", "-f", "-"], text)

    async def _run(self, argv: list[str], text: str | None = None) -> str:
        try:
            return await run(argv, namespace=self._device.namespace, input_text=text)
        except ProcessError as error:
            place = self._device.namespace or "this namespace"
            text = " ".join(str(error).split())  # one line in the log
            raise DataPlaneError(
                f"nftables refused table {self._table} in {place}: {text}; it needs root, "
                f"Linux 5.16 (egress hook) and the devices {', '.join(self._uplinks)}"
            ) from None


def table_name(tunnel: str) -> str:
    """What the table of a tunnel device is called."""
    return "lisp_" + re.sub(r"[^A-Za-z0-9_]", "_", tunnel)


def _split(peers: Iterable[Address]) -> tuple[list[str], list[str]]:
    every = sorted(set(peers), key=lambda one: (one.version, int(one)))
    if len(every) > MAX_PEERS:
        raise DataPlaneError(f"{len(every)} peers with plain headers; there may be {MAX_PEERS}")
    return [str(one) for one in every if one.version == 4], [str(one) for one in every if one.version == 6]


def _elements(some: list[str]) -> str:
    return f"elements = {{ {', '.join(some)} }}" if some else ""
