"""A machine's copy on another agent's host, as the migration that fills it sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from followme.migration.host import MachineSpec, MigrationError
from followme.migration.monitor import Events
from followme.migration.recovery import CopyStatus
from followme.migration.target import Unreachable
from followme.remote.channel import ChannelError
from followme.remote.client import Client, Refused, Stream
from followme.remote.specs import spec_document

_START_S, _STOP_S, _ANSWER_S = 20.0, 10.0, 5.0
_MAX_EVENTS = 10_000


async def ask(client: Client, method: str, params: Mapping[str, Any], timeout: float) -> Any:
    """A call whose failures are this room's: ``MigrationError`` where the peer says no, ``Unreachable`` where it
    says nothing."""
    try:
        return await client.call(method, params, timeout)
    except Refused as error:
        raise MigrationError(f"{client.peer}: {error}") from None
    except ChannelError as error:
        raise Unreachable(str(error)) from None


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """Another agent's host."""

    name: str
    management_address: str


class RemoteQemu:
    """``Target`` over a channel. Its agent sends QEMU's events by itself as they come, so from the machine's stop
    to its resumption only two messages pass: ``cont`` there, and the event back."""

    def __init__(self, client: Client, spec: MachineSpec, host: RemotePlace, migration: str) -> None:
        self.spec, self.host, self.migration = spec, host, migration
        self.ended = asyncio.Event()
        self.complaint = ""
        self.removed = False
        self.monitor = Events(self.who)
        self._client = client
        self._reader: asyncio.Task[None] | None = None
        self._opened = contextlib.AsyncExitStack()

    @classmethod
    async def start(cls, client: Client, spec: MachineSpec, migration: str) -> RemoteQemu:
        """Have the peer start an empty QEMU for the machine, in the migration of that id; ``MigrationError`` where
        it will not or cannot."""
        async with contextlib.AsyncExitStack() as opened:
            try:
                params = {"spec": spec_document(spec), "migration": migration}
                stream = await opened.enter_async_context(client.stream("incoming", params))
                async with asyncio.timeout(_START_S):
                    started = (await anext(stream))["started"]
                place = RemotePlace(str(started["host"]), str(started["management_address"]))
            except Refused as error:
                raise MigrationError(f"{client.peer} does not take {spec.name}: {error}") from None
            except (ChannelError, StopAsyncIteration) as error:
                raise Unreachable(f"{client.peer} cannot take {spec.name}: {error}") from None
            except TimeoutError:
                raise Unreachable(f"{client.peer} did not start a QEMU for {spec.name} within {_START_S:g} s"
                                  ) from None
            except (KeyError, TypeError):
                raise MigrationError(f"{client.peer} does not say where it has started {spec.name}") from None
            self = cls(client, spec, place, migration)
            self._reader = asyncio.create_task(self._read(stream))
            self._opened = opened.pop_all()
        return self

    @property
    def who(self) -> str:
        return f"{self.spec.name} on {self.host.name}"

    async def _read(self, stream: Stream) -> None:
        try:
            async for said in stream:
                if not isinstance(said, dict):
                    continue
                if isinstance(event := said.get("qmp"), dict) and len(self.monitor.events) < _MAX_EVENTS:
                    self.monitor.add(event)
                elif "ended" in said:
                    self.complaint = str(said["ended"])
        except ChannelError as error:
            self.complaint = f"; its agent does not answer: {error}"
        self.monitor.end(f"QEMU went away{self.complaint}")
        self.ended.set()

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None,
                      timeout: float = 10.0) -> Any:
        """See ``Target``."""
        params = {"machine": self.spec.name, "command": command, "arguments": dict(arguments or {}),
                  "timeout": timeout}
        return await ask(self._client, "qmp", params, timeout + _ANSWER_S)

    async def _do(self, method: str, **more: str) -> Any:
        return await ask(self._client, method, {"machine": self.spec.name, **more}, _STOP_S)

    async def run_when_loaded(self, timeout: float) -> None:
        """See ``Target``."""
        params = {"machine": self.spec.name, "timeout": timeout}
        await ask(self._client, "run_when_loaded", params, timeout + _ANSWER_S)

    async def send_back(self) -> int:
        """See ``Target``."""
        await self._do("bounce", way="flip")
        await self._do("stop_process")
        return int(await self._do("send_on"))

    async def stop_process(self) -> None:
        """See ``Target``."""
        await self._do("stop_process")

    async def forget(self) -> None:
        """See ``Target``."""
        await self.kill()

    async def kill(self) -> None:
        """See ``Target``; the host forgets the machine's traffic too."""
        await self._do("kill", migration=self.migration)
        self.removed = True
        await self.close()

    async def keep(self) -> None:
        """The machine is the other agent's from now on."""
        await self._do("keep", migration=self.migration)
        await self.close()

    async def close(self) -> None:
        """Hear no more of it. A guest that is nobody's is dealt with by its agent (see ``hypervisor``)."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._opened.aclose()


class RemoteCopy:
    """What recovery asks of, and does to, a copy on another agent's host."""

    def __init__(self, client: Client, spec: MachineSpec, migration: str) -> None:
        self.name = client.peer
        self.status = CopyStatus.GONE
        self._client, self._spec, self._migration = client, spec, migration

    @classmethod
    async def open(cls, client: Client, spec: MachineSpec, migration: str) -> RemoteCopy:
        """``Unreachable`` where the agent cannot be asked, ``MigrationError`` where it does not know."""
        self = cls(client, spec, migration)
        said = await self._do("status", migration=migration)
        try:
            self.status = CopyStatus(said["status"])
        except (KeyError, TypeError, ValueError):
            raise MigrationError(f"{client.peer} does not say what its copy of {spec.name} does") from None
        return self

    async def _do(self, method: str, **more: object) -> Any:
        return await ask(self._client, method, {"machine": self._spec.name, **more}, _STOP_S)

    async def end(self) -> None:
        """See ``Copy``; frames that wait are sent back to the switch."""
        if self.status is not CopyStatus.GONE:
            await self._do("stop_process")

    async def bounce(self) -> None:
        """See ``Copy``."""
        if self.status is not CopyStatus.GONE:
            await self._do("bounce", way="flip")
            await self._do("send_on")

    async def run(self) -> None:
        """See ``Copy``."""
        if self.status is not CopyStatus.RUNNING:
            await self._do("bounce", way="to_tap")
            await self._do("qmp", command="migrate_cancel", arguments={})
            await self._do("qmp", command="cont", arguments={})
        await self._do("keep", migration=self._migration)

    async def close(self) -> None:
        """Nothing of it is ours."""
