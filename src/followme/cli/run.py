"""The commands that run the real thing, or look at its config."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from followme import __version__
from followme.config import ConfigError, load

from .ending import run

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The YAML file; see examples/controller.yaml.")]


def add(app: typer.Typer) -> None:
    app.command()(controller)
    app.command("check-config")(check_config)
    app.command()(version)


def controller(
    config_file: ConfigPath,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each step of each message.")] = False,
) -> None:
    """Run the controller for real switches and hypervisors, until SIGINT or SIGTERM."""
    from followme.daemon import serve

    config = _load(config_file)
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("qemu.qmp").setLevel(logging.WARNING)
    run(serve(config))


def check_config(config_file: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Check a config file, and say everything that is wrong with it."""
    config = _load(config_file)
    typer.echo(
        f"{config_file}: good: {len(config.networks)} networks, {len(config.file.machines)} machines, "
        f"{len(config.file.users)} users, {len(config.services)} services"
    )


def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _load(path: Path) -> Any:
    from followme.placement.settings import chooser_of, policy_of

    try:
        config = load(path)
        policy_of(config)
        chooser_of(config)
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        raise typer.Exit(2) from None
    except ValueError as error:
        typer.echo(f"{path}: {error}", err=True)
        raise typer.Exit(2) from None
    return config
