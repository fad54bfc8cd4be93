"""The commands that run the real thing, or look at its config."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from followme import __version__
from followme.config.document import ConfigError, read

from .ending import run, wrong

T = TypeVar("T")
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log each step of each message.")]


def _file(example: str) -> Any:
    return typer.Option("--config", "-c", help=f"The YAML file; see examples/{example}.")


def add(app: typer.Typer) -> None:
    app.command()(controller)
    app.command()(mapserver)
    app.command()(agent)
    app.command("check-config")(check_config)
    app.command()(version)


def controller(config_file: Annotated[Path, _file("controller.yaml")], verbose: Verbose = False) -> None:
    """Run the controller, for OpenFlow switches or LISP sites (``plane: lisp``), until SIGINT or SIGTERM."""
    from followme.controllers import serve as daemon

    config = checked(lambda: _controller_config(config_file))
    _log(verbose)
    run(daemon.serve(config))


def mapserver(config_file: Annotated[Path, _file("mapserver.yaml")], verbose: Verbose = False) -> None:
    """Run a LISP map server and resolver, until SIGINT or SIGTERM."""
    from followme.mapsystem.config import load
    from followme.mapsystem.serve import serve

    config = checked(lambda: load(config_file))
    _log(verbose)
    run(serve(config))


def agent(
    config_file: Annotated[Path, _file("agent-dc.yaml")],
    verbose: Verbose = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take out what a stopped agent's router left.")] = False,
) -> None:
    """Run a site's agent: its machines and, over LISP, its tunnel router, until SIGINT or SIGTERM. Needs root."""
    from followme.agent.host_config import HostAgentConfig
    from followme.agent.hosting import HostAgent
    from followme.agent.serve import Agent

    config = checked(lambda: _agent_config(config_file, read(config_file, "router", "docs/agent.md")))
    _log(verbose)
    if remove:
        if isinstance(config, HostAgentConfig):
            wrong(f"{config_file}: this agent has no router: nothing of it is in the kernel")
        from followme.xtr.removal import remove as remove_router

        if not run(remove_router(config.router, typer.echo)):
            typer.echo("removed nothing: there is nothing of it in the kernel")
        return
    run((HostAgent(config) if isinstance(config, HostAgentConfig) else Agent(config)).serve())


def check_config(config_file: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Check a config file of any of our daemons, and say everything that is wrong with it."""
    typer.echo(f"{config_file}: good: {checked(lambda: _describe(config_file))}")


def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _describe(path: Path) -> str:
    data = read(path, "networks", "docs/config.md")
    if _is_host(data):
        host = _agent_config(path, data)
        peers, machines = len(host.control.peers), len(host.machines)
        return f"agent of {host.federation.network}: {peers} peers, {machines} machines"
    if "federation" in data and not {"networks", "router"} & data.keys():
        from followme.agent.host_config import load_operator

        return f"operator of {load_operator(path).federation.domain}"
    if "router" in data:
        agent = _agent_config(path, data)
        return f"agent of {agent.router.site}: {len(agent.control.peers)} peers, {len(agent.machines)} machines"
    if "sites" in data:
        from followme.mapsystem.config import check as check_mapserver

        return f"map server of {len(check_mapserver(data, str(path)).file.sites)} sites"
    config = _controller_config(path, data)
    file = config.file
    if "federation" in data:
        others = sum(len(domain.networks) for domain in file.federation.domains)
        return (
            f"domain {file.federation.domain}: {len(file.networks)} networks of {len(file.federation.domains) + 1} "
            f"domains' {len(file.networks) + others}, {len(file.machines)} machines, {len(file.users)} users"
        )
    return (
        f"{len(config.networks)} networks, {len(file.machines)} machines, {len(file.users)} users, "
        f"{len(config.services)} services"
    )


def _is_host(data: dict[str, Any]) -> bool:
    """Whether it is the file of an agent in a federation, which has no router of its own."""
    return "host" in data and "federation" in data and "router" not in data


def _agent_config(path: Path, data: dict[str, Any]) -> Any:
    from followme.agent import config, host_config

    from .keys import check_keys

    checked = host_config.check(data, str(path)) if _is_host(data) else config.check(data, str(path))
    check_keys(checked, str(path))
    return checked


def _controller_config(path: Path, data: dict[str, Any] | None = None) -> Any:
    from followme.config import federation as config_federation
    from followme.config import lisp as config_lisp
    from followme.config import openflow as config
    from followme.placement.settings import chooser_of, policy_of

    from .keys import check_keys

    data = read(path, "networks", "docs/config.md") if data is None else data
    if "federation" in data:
        federated = config_federation.check(data, str(path))
        check_keys(federated, str(path))
        return federated
    if data.get("plane") != "lisp":
        checked: config.Config | config_lisp.LispConfig = config.check(data, str(path))
    else:
        checked = config_lisp.check(data, str(path))
        check_keys(checked, str(path))
    policy_of(checked)
    chooser_of(checked)
    return checked


def checked(load: Callable[[], T]) -> T:
    try:
        return load()
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        raise typer.Exit(2) from None


def _log(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("qemu.qmp").setLevel(logging.WARNING)
