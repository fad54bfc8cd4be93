"""The key files that a config names: looked at before a daemon starts, so that all is said at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from followme.agent.config import AgentConfig
from followme.agent.host_config import MIN_PASSWORD, HostAgentConfig
from followme.config.document import ConfigError
from followme.config.keys import KeyFileError, read_key
from followme.config.lisp import LispConfig
from followme.remote.keys import MIN_KEY
from followme.xtr.config import MIN_KEY_BYTES


def check_keys(config: AgentConfig | HostAgentConfig | LispConfig, name: str) -> None:
    """``ConfigError`` with a line for each key file that is missing, too open, or holds no key; ``name`` is the
    config file's in them."""
    problems = []
    for key, file, least in _of(config):
        try:
            read_key(file, least)
        except KeyFileError as error:
            problems.append(f"{name}: {key}: {error}")
    if problems:
        raise ConfigError(problems)


def _of(config: AgentConfig | HostAgentConfig | LispConfig) -> Iterator[tuple[str, Path, int]]:
    if isinstance(config, LispConfig):
        yield from _of_controller(config)
        return
    if isinstance(config, AgentConfig):
        yield from _of_agent(config)
    else:
        yield "federation.password_file", config.federation.password_file, MIN_PASSWORD
    for name, peer in config.control.peers.items():
        yield f"control.peers.{name}.key_file", peer.key_file, MIN_KEY


def _of_agent(config: AgentConfig) -> Iterator[tuple[str, Path, int]]:
    for index, server in enumerate(config.router.map_servers):
        if server.key_file is not None:
            yield f"router.map_servers[{index}].key_file", server.key_file, MIN_KEY_BYTES


def _of_controller(config: LispConfig) -> Iterator[tuple[str, Path, int]]:
    yield "map_server.key_file", config.file.map_server.key_file, MIN_KEY_BYTES
    for index, site in enumerate(config.networks):
        yield f"networks[{index}].agent.key_file", site.agent.key_file, MIN_KEY
