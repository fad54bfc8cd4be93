"""The key files that a config names: looked at before a daemon starts, so that all is said at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from followme.agent.config import AgentConfig
from followme.agent.host_config import MIN_PASSWORD, HostAgentConfig
from followme.config.document import ConfigError
from followme.config.federation import FederatedConfig
from followme.config.keys import KeyFileError, read_key
from followme.config.lisp import LispConfig
from followme.federation.keyfile import load_private_key
from followme.federation.signing import public_key_of
from followme.remote.keys import MIN_KEY
from followme.xtr.config import MIN_KEY_BYTES

_Config = AgentConfig | HostAgentConfig | LispConfig | FederatedConfig


def check_keys(config: _Config, name: str) -> None:
    """``ConfigError`` with a line for each key file that is missing, too open, or holds no key; ``name`` is the
    config file's in them. In a federation no other domain may have our own key."""
    problems = []
    for key, file, least in _of(config):
        try:
            read_key(file, least)
        except KeyFileError as error:
            problems.append(f"{name}: {key}: {error}")
    if isinstance(config, FederatedConfig):
        problems += [f"{name}: {problem}" for problem in _own_key(config)]
    if problems:
        raise ConfigError(problems)


def _own_key(config: FederatedConfig) -> Iterator[str]:
    section = config.file.federation
    try:
        own = public_key_of(load_private_key(section.key_file))
    except KeyFileError as error:
        yield f"federation.key_file: {error}"
        return
    for index, domain in enumerate(section.domains):
        if domain.public_key == own:
            yield (f"federation.domains[{index}].public_key: it is our own, of federation.key_file; "
                   f"{domain.name}'s is needed")  # fmt: skip


def _of(config: _Config) -> Iterator[tuple[str, Path, int]]:
    if isinstance(config, FederatedConfig):
        if config.file.federation.password_file is not None:
            yield "federation.password_file", config.file.federation.password_file, MIN_PASSWORD
        return
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
