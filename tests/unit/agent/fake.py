"""A site's network over a router that notes what it is asked to do."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, cast

from followme.agent.network import SiteNetwork
from followme.migration.host import MachineSpec
from followme.remote.client import Client
from followme.remote.server import Caller
from followme.store import Store
from followme.xtr.router import RouterError, TunnelRouter

EID, OURS, THEIRS = IPv4Address("10.1.0.5"), IPv4Address("192.0.2.6"), IPv4Address("192.0.2.2")
MAC = bytes.fromhex("02fc0000e001")
ASK = {"migration": "m1", "machine": "vm1", "eid": str(EID), "mac": MAC.hex(":"), "rloc": str(THEIRS)}
SPEC = MachineSpec(name="vm1", mac=MAC, memory_bytes=1 << 27, kernel=Path("/k"), initrd=Path("/i"), cmdline="")


class Router:
    """Notes what it is asked to do."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.here: set[IPv4Address] = set()
        self.full = False
        """The disk: then nothing can be written."""

    def _write(self) -> None:
        if self.full:
            raise RouterError("xtr-dc2.json: cannot be written: No space left on device")

    def local(self, eid: IPv4Address) -> bool:
        return eid in self.here

    def claim(self, eid: IPv4Address, mac: bytes | None = None) -> None:
        self.here.add(eid)
        self.calls.append(("claim", eid, mac))

    def switch(self, eid: IPv4Address, rloc: IPv4Address) -> None:
        self.here.discard(eid)
        self.calls.append(("switch", eid, rloc))

    def prefetch(self, prefixes: Iterable[IPv4Network]) -> None:
        self.calls.append(("prefetch", *prefixes))

    async def expect(self, eid: IPv4Address, mac: bytes) -> None:
        self._write()
        self.calls.append(("expect", eid, mac))

    async def unexpect(self, eid: IPv4Address) -> None:
        self.calls.append(("unexpect", eid))

    async def arm(self, eid: IPv4Address, mac: bytes, rloc: IPv4Address) -> None:
        self._write()
        self.calls.append(("arm", eid, rloc))

    async def disarm(self, eid: IPv4Address) -> None:
        self.calls.append(("disarm", eid))

    async def release(self, eid: IPv4Address) -> None:
        self.calls.append(("release", eid))

    def smr(self, eid: IPv4Address) -> int:
        self.calls.append(("smr", eid))
        return 0

    def talks_to(self) -> tuple[IPv4Network, ...]:
        return ()


class Peer:
    def __init__(self, name: str) -> None:
        self.peer = name


class Target:
    """An agent that answers ``settled``."""

    def __init__(self, runs: bool) -> None:
        self.runs = runs
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def call(self, method: str, params: dict[str, Any], timeout: float) -> Any:
        self.calls.append((method, params))
        return {"rloc": str(THEIRS), "runs": self.runs}

    async def close(self) -> None:
        """Nothing is open."""


class Site:
    """The site dc2; ``target`` is what answers where it connects to."""

    def __init__(self, path: Path, router: Router | None = None) -> None:
        async def connect(site: str) -> Client:
            return cast(Client, self.target)

        self.target: Target | None = None
        self.store = Store(path)
        self.router = router or Router()
        self.network = SiteNetwork("dc2", cast(TunnelRouter, self.router), OURS, self.store, connect)

    async def ask(self, method: str, params: dict[str, Any], peer: str = "dc1") -> Any:
        handlers = {**self.network.handlers(), **self.network.controller_handlers()}
        return await handlers[method](params, cast(Caller, Peer(peer)))

    def done(self) -> list[object]:
        calls, self.router.calls = self.router.calls, []
        return [call[0] for call in calls]
