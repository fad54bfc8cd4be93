"""A lab at work, however sessions are kept in it: entered, left, and waited for until its guests serve."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from followme.controllers.deciding import Deciding
from followme.controllers.events import Happening, Watchers
from followme.lab.base import Host, NetworkLab
from followme.lab.guest import READY

GUEST_BOOTS_S = 60.0


class Controller(Protocol):
    """What the controllers of both planes have."""

    watchers: Watchers
    deciding: Deciding


class Settings(Protocol):
    """What the settings of both labs have."""

    @property
    def policy(self) -> str: ...

    @property
    def parameters(self) -> Mapping[str, float]: ...


class EnteredLab(ABC):
    """``async with`` it: everything runs. What is pushed on ``_exit`` is undone at the end, however that comes."""

    def __init__(self) -> None:
        self.happenings: list[Happening] = []
        self._exit = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    @abstractmethod
    async def _start(self) -> None:
        """Start everything."""


class RunningLab(EnteredLab):
    """What of a ``stage.Stage`` is the same in both planes."""

    lab: NetworkLab
    controller: Controller
    settings: Settings

    @property
    def client(self) -> Host:
        return self.lab.client

    @property
    def delay_kind(self) -> str:
        return self.lab.delay.kind

    @property
    def policy(self) -> tuple[str, Mapping[str, float]]:
        return self.settings.policy, dict(self.settings.parameters)

    def watch(self, watcher: Callable[[Happening], None]) -> None:
        self.controller.watchers.add(watcher)

    def use_policy(self, name: str, parameters: Mapping[str, float]) -> None:
        self.controller.deciding.use_policy(name, parameters)

    async def idle(self) -> None:
        await self.controller.deciding.idle()


async def guest_ready(machine: str, serial: Path, said: str = "") -> None:
    """Wait for the line that the guest prints on its serial console when its service runs; ``RuntimeError`` has
    the console's last words, and what else was ``said`` of it."""
    try:
        async with asyncio.timeout(GUEST_BOOTS_S):
            while not (serial.exists() and READY.encode() in serial.read_bytes()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        tail = serial.read_text(errors="replace")[-500:] if serial.exists() else "(nothing)"
        raise RuntimeError(
            f"machine {machine} did not boot within {GUEST_BOOTS_S:g} s; its console says: {tail}{said}"
        ) from None
