"""``followme federation``: what an operator of a federation does."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from .ending import failed, run
from .output import JsonFile, check_outputs, console_for, hand_over
from .run import checked

group = typer.Typer(no_args_is_help=True, help="Operate a federation of controllers.")


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="federation")


@group.command()
def carry(
    machine: Annotated[str, typer.Argument(help="Its name at home, or its identifier.")],
    network: Annotated[str, typer.Argument(help="The data centre to carry it to, of any domain.")],
    config_file: Annotated[Path, typer.Option("--config", "-c", help="See examples/operator.yaml.")],
    json_file: JsonFile = None,
) -> None:
    """Have a machine carried to another data centre, by the controller of its home; waits until it is there."""
    from followme.agent.host_config import load_operator

    config = checked(lambda: load_operator(config_file))
    check_outputs(json_file, None)
    console = console_for(json_file)
    answer = run(_carry(config, machine, network, console.print))
    if answer.state == "failed":
        failed(answer.text)
    console.print(answer.text)
    hand_over(dict(answer.figures), None, json_file, None, console)


@group.command()
def key(file: Annotated[Path, typer.Argument(help="The private key's file; made if there is none.")]) -> None:
    """Print a domain's public key, for the files of the other domains; make its private key first if need be."""
    from followme.config.keys import KeyFileError
    from followme.federation.keyfile import make_key_file, public_key_text

    try:
        typer.echo(public_key_text(file) if file.exists() else make_key_file(file))
    except (KeyFileError, OSError) as error:
        failed(str(error))


async def _carry(config: Any, machine: str, network: str, say: Any) -> Any:
    from followme.agent.membership import LateHostBus, access_of
    from followme.federation.orders import Carry, CarryAnswer, carry

    said: list[str] = []

    def tell(answer: CarryAnswer) -> None:
        if said[-1:] != [answer.text]:
            said.append(answer.text)
            say(f"{answer.state}: {answer.text}")

    bus = LateHostBus(config.federation, access_of(config.federation))
    try:
        await bus.opened()
        return await carry(bus, Carry(secrets.token_hex(8), machine, network), tell)
    finally:
        await bus.close()
