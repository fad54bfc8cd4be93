"""A NATS server, or a cluster of them, as processes of ours: for the lab, the tests and the benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from followme.system.process import Child, ProcessError

from .nats_accounts import MIB, DomainLogins, Member, write_configuration

_READY_S = 15.0
_PROGRAMS = ("nats-server", "/usr/sbin/nats-server")  # Debian's is not in everybody's path


def program() -> str | None:
    """The server's program; None if it is not installed (Debian: ``nats-server``)."""
    return next((found for one in _PROGRAMS if (found := shutil.which(one))), None)


class NatsServer:
    """One server, in a directory of its own (configuration, store, log), which outlives ``stop``."""

    def __init__(self, member: Member, directory: Path, namespace: str | None = None) -> None:
        self.member = member
        self.directory = directory
        self._namespace = namespace
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"nats://{self.member.listen}"

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    @property
    def log(self) -> Path:
        return self.directory / "nats.log"

    def configure(self, text: str) -> None:
        """Write the configuration, for its owner's eyes only."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "nats.conf"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)

    async def launch(self) -> None:
        """Start the process; ``ready`` waits for it. ``ProcessError`` if there is no such program."""
        found = program()
        if found is None:
            raise ProcessError("nats-server is not installed (Debian's package has that name)")
        argv = [found, "-c", str(self.directory / "nats.conf"), "-l", str(self.log)]
        self._child = await Child.start(argv, name=f"nats-server {self.member.name}", namespace=self._namespace)

    async def ready(self) -> None:
        """Until it says that it is; ``ProcessError`` with the end of its log if it ends or takes 15 s."""
        begin = asyncio.get_running_loop().time()
        while "Server is ready" not in self._said():
            if self._child is None or self._child.returncode is not None:
                raise ProcessError(f"nats-server {self.member.name} has ended: {self._said()[-800:] or 'no log'}")
            if asyncio.get_running_loop().time() > begin + _READY_S:
                raise ProcessError(f"nats-server {self.member.name} is not ready: {self._said()[-800:]}")
            await asyncio.sleep(0.02)

    def _said(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_text(errors="replace")
        return ""

    async def start(self) -> None:
        """Launch it, with what its store holds, and wait until it is ready."""
        self.log.unlink(missing_ok=True)
        await self.launch()
        await self.ready()

    async def stop(self) -> None:
        """End it in order; its store stays."""
        if self._child is not None:
            await self._child.stop(5.0)

    async def kill(self) -> None:
        """As a power cut does it, for this process."""
        self.send_signal(signal.SIGKILL)
        if self._child is not None:
            await self._child.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT, SIGKILL; nothing if it does not run."""
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, number)


async def start_servers(
    members: Sequence[Member],
    directory: Path,
    logins: Mapping[str, DomainLogins],
    *,
    namespaces: Mapping[str, str] | None = None,
    domain_bytes: int = 256 * MIB,
) -> list[NatsServer]:
    """One server, or a cluster of three or five, below ``directory``; all run, or ``ProcessError``.

    A member without a ``store`` gets one there. ``namespaces``: member's name to network namespace.
    """
    whole = [replace(one, store=one.store or str(directory / one.name / "store")) for one in members]
    password = secrets.token_urlsafe(24)
    servers = []
    for member in whole:
        server = NatsServer(member, directory / member.name, (namespaces or {}).get(member.name))
        cluster = whole if len(whole) > 1 else ()
        server.configure(
            write_configuration(member, logins, members=cluster, cluster_password=password,
                                domain_bytes=domain_bytes)
        )  # fmt: skip
        server.log.unlink(missing_ok=True)
        servers.append(server)
    try:
        for server in servers:
            await server.launch()
        for server in servers:
            await server.ready()
    except BaseException:
        for server in servers:
            await server.stop()
        raise
    return servers
