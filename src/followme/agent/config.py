"""The YAML file of ``followme agent``: the site's tunnel router, its machines, and whom the agent talks to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from followme.agent.sections import HypervisorSection, SiteConfig, machines_contradictions
from followme.config.document import ConfigError, read, validate
from followme.xtr.config import RouterConfig
from followme.xtr.config import check as check_router

PAGE = "docs/agent.md"


class AgentConfig(SiteConfig):
    """A checked file."""

    router: RouterConfig
    host: HypervisorSection | None = None


def load(path: Path) -> AgentConfig:
    """Read and check the file; ``ConfigError`` lists every mistake."""
    return check(read(path, "router", PAGE), str(path))


def check(data: dict[str, Any], name: str) -> AgentConfig:
    """Check parsed data; ``name`` is the file's name in messages."""
    problems: list[str] = []
    config = None
    try:
        config = validate(AgentConfig, data, name, PAGE, secrets=True)
    except ConfigError as error:
        problems += error.problems
    section = data.get("router")
    if isinstance(section, dict):
        # The router's own check sees more than its types.
        try:
            check_router(section, name)
        except ConfigError as error:
            said = [f"{name}: router.{line.removeprefix(f'{name}: ')}" for line in error.problems]
            problems += [line for line in said if line not in problems]
    if config is not None:
        problems += [f"{name}: {problem}" for problem in _contradictions(config)]
    if problems or config is None:
        raise ConfigError(problems)
    return config


def _contradictions(config: AgentConfig) -> Iterator[str]:
    if config.machines and config.host is None:
        yield "host: missing, and there are machines; say where they run"
    if config.router.site in config.control.peers:
        yield f"control.peers.{config.router.site}: that is this site itself"
    yield from _out_of_reach(config.router)
    yield from machines_contradictions(config.machines, config.host)
    for index, machine in enumerate(config.machines):
        if not any(machine.address in prefix for prefix in config.router.prefixes):
            yield f"machines[{index}].address: {machine.address} is in none of router.prefixes"


def _out_of_reach(router: RouterConfig) -> Iterator[str]:
    for eid in router.dynamic.macs:
        if not any(eid in prefix for prefix in (*router.dynamic.prefixes, *router.prefixes)):
            yield f"router.dynamic.macs.{eid}: is in none of router.dynamic.prefixes, and not of our own subnet"
