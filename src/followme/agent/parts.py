"""What all agents are put together from: keys, connections to peers, who may ask for what, the hypervisor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from followme.agent.sections import AgentMachineSection, ControlSection, HypervisorSection, PeerSection
from followme.migration.host import Host, MachineSpec
from followme.remote.channel import ChannelError
from followme.remote.client import Client
from followme.remote.hypervisor import Hypervisor
from followme.remote.keys import Key, KeyFileError, load_key
from followme.remote.server import Caller, Handler
from followme.remote.specs import Rules
from followme.system import needs, netns


class AgentError(RuntimeError):
    """The agent cannot run as its config says; the text names the key."""


def load_keys(control: ControlSection) -> dict[str, Key]:
    """Each peer's key; ``AgentError`` names all that cannot be used."""
    keys, problems = {}, []
    for name, peer in control.peers.items():
        try:
            keys[name] = load_key(peer.key_file)
        except KeyFileError as error:
            problems.append(f"control.peers.{name}.key_file: {error}")
    if problems:
        raise AgentError("; ".join(problems))
    return keys


async def connect(control: ControlSection, keys: Mapping[str, Key], us: str, peer: str) -> Client:
    """A new connection to another agent; ``ChannelError`` if it does not answer."""
    section = control.peers.get(peer)
    if section is None or section.address is None:
        raise ChannelError(f"control.peers.{peer}: no address is known of an agent of that name")
    return await Client.connect(str(section.address), section.port, name=us, server=peer, key=keys[peer])


def only(role: str, peers: Mapping[str, PeerSection], handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    """The handlers, for peers of that role; others are refused with ``AgentError``."""

    def guarded(handler: Handler) -> Handler:
        async def checked(params: Mapping[str, Any], caller: Caller) -> Any:
            if peers[caller.peer].role != role:
                raise AgentError(f"{caller.peer} is no {role}, and may not ask for this")
            return await handler(params, caller)

        return checked

    return {method: guarded(handler) for method, handler in handlers.items()}


async def hypervisor_of(
    site: str, section: HypervisorSection, machines: Sequence[AgentMachineSection]
) -> Hypervisor:
    """The site's host of machines; ``AgentError`` where its namespace is missing."""
    if section.namespace is not None and not netns.exists(section.namespace):
        raise AgentError(f"host.namespace: there is no network namespace {section.namespace}")
    accel = await needs.acceleration(machines[0].kernel) if machines else "tcg"
    host = Host(site, section.namespace, section.bridge, section.uplink, str(section.management_address),
                section.run_dir, accel=accel)  # fmt: skip
    return Hypervisor(host, Rules(section.images, max_memory_bytes=section.max_memory_mib << 20))


def spec_of(machine: AgentMachineSection) -> MachineSpec:
    return MachineSpec(
        name=machine.name, mac=machine.mac, memory_bytes=machine.memory_mib << 20, kernel=machine.kernel,
        initrd=machine.initrd, cmdline=machine.cmdline,
    )  # fmt: skip
