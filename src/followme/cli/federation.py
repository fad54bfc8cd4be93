"""``followme federation``: what an operator of a federation does."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from .ending import failed, run, wrong
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


@group.command()
def bus(
    directory: Annotated[Path, typer.Argument(help="Where the files are written.")],
    domains: Annotated[list[str], typer.Argument(
        metavar="DOMAIN[:HOST,..]...", help="Each domain and its hosts: alpha:dc1,operator beta:dc2 gamma"
    )],
    listen: Annotated[str, typer.Option(help="Where a single server listens, ADDRESS:PORT.")] = "127.0.0.1:4222",
    server: Annotated[list[str] | None, typer.Option(
        metavar="NAME,LISTEN,CLUSTER", help="One of a cluster of three or five: its name, where clients and where "
        "the other servers reach it, ADDRESS:PORT each.",
    )] = None,
    store: Annotated[Path | None, typer.Option(help="Where the server keeps what must survive.")] = None,
    monitor: Annotated[str, typer.Option(help="Where each server shows what it does, ADDRESS:PORT: nowhere.")] = "",
    mib: Annotated[int, typer.Option(min=16, help="What each domain may store: federation.bucket_mib.")] = 256,
) -> None:  # fmt: skip
    """Write the configuration of the bus, a NATS server or a cluster, and a file with the password of each who may
    be on it. Again, with all domains and hosts that shall be: who has a password keeps it."""
    from followme.federation.bus_files import write_bus

    members = _members(listen, server or [], "" if store is None else str(store.absolute()), monitor)
    who = [_hosts(text) for text in domains]
    if len({name for name, _ in who}) < len(who):
        wrong("a domain is named twice")
    for name, hosts in who:
        if len(set(hosts)) < len(hosts):
            wrong(f"a host of {name} is named twice")
    try:
        for file, whose in write_bus(directory, dict(who), members, mib << 20):
            typer.echo(f"{file}: {whose}")
    except (ValueError, OSError) as error:
        failed(str(error))


def _members(listen: str, servers: list[str], store: str, monitor: str) -> list[Any]:
    from followme.federation.nats_accounts import Member

    parts = [text.split(",") for text in servers] or [["nats-server", listen, ""]]
    addresses = [address for part in parts for address in part[1:] if address or servers]
    if len(parts) not in (1, 3, 5) or len(servers) == 1 or any(len(part) != 3 for part in parts):
        wrong("--server: name three servers, or five, as NAME,LISTEN,CLUSTER each")
    for address in [*addresses, *([monitor] if monitor else [])]:
        if not re.fullmatch(r"[A-Za-z0-9.-]+:\d{1,5}", address):
            wrong(f"{address}: write ADDRESS:PORT")
    if len({part[0] for part in parts}) < len(parts) or len(set(addresses)) < len(addresses):
        wrong("--server: a name or an address stands twice")
    return [Member(name, client, store, cluster, monitor) for name, client, cluster in parts]


def _hosts(text: str) -> tuple[str, list[str]]:
    domain, _, hosts = text.partition(":")
    return domain, hosts.split(",") if hosts else []


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
