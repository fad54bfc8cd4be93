"""How a command ends: exit codes, one line for what is wrong, what Ctrl-C does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, NoReturn

import typer


def wrong(text: str) -> NoReturn:
    typer.echo(f"followme: {text}", err=True)
    raise typer.Exit(2)


def failed(text: str) -> NoReturn:
    typer.echo(f"followme: {text}", err=True)
    raise typer.Exit(1)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; what may go wrong on a healthy program becomes one line and exit code 1."""
    from followme.config.keys import KeyFileError
    from followme.continuity.southbound import SwitchError
    from followme.federation.bus import BusError
    from followme.federation.engine import FederationError
    from followme.lab.client import DhcpError
    from followme.lab.guest import GuestError
    from followme.lab.topology import LabError
    from followme.migration.host import MigrationError
    from followme.remote.channel import ChannelError
    from followme.store import StoreError
    from followme.system.process import ProcessError

    interrupted: list[int] = []
    try:
        return asyncio.run(_until_interrupted(work, interrupted))
    except asyncio.CancelledError:
        number = interrupted[0] if interrupted else signal.SIGTERM
        typer.echo(f"followme: ended by {signal.Signals(number).name}; what was made is removed", err=True)
        raise typer.Exit(128 + number) from None
    except (
        SwitchError, DhcpError, GuestError, LabError, MigrationError, StoreError, ProcessError, ChannelError,
        KeyFileError, BusError, FederationError, OSError, RuntimeError,
    ) as error:  # fmt: skip
        failed(" ".join(str(error).split()))


async def _until_interrupted(work: Coroutine[Any, Any, Any], interrupted: list[int]) -> Any:
    """The first Ctrl-C cancels the work; those that follow must not stop it from cleaning up."""
    task = asyncio.ensure_future(work)

    def interrupt() -> None:
        if not interrupted:
            interrupted.append(signal.SIGINT)
            task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
    return await task
