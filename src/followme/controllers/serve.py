"""``followme controller``: the controller as a service, until SIGINT or SIGTERM.

Machines outlive it: their QEMUs go on when it stops or crashes, and the next start finds them again.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from followme.config.federation import FederatedConfig
from followme.config.keys import KeyFileError
from followme.config.lisp import LispConfig
from followme.config.openflow import Config
from followme.controllers.events import Happening
from followme.controllers.lisp.controller import LispController
from followme.controllers.openflow.controller import Controller
from followme.controllers.openflow.instance import Instance
from followme.federation.bus import BusError
from followme.federation.registry import RegistryError
from followme.federation.signing import SigningError
from followme.migration.host import Host
from followme.store import StoreError
from followme.system import needs, netns
from followme.system.process import ProcessError, run
from followme.system.signals import until_told

log = logging.getLogger(__name__)


async def missing(config: Config) -> list[str]:
    """What the config names and this machine does not have: one line each, with the key."""
    files: list[tuple[str, Path | None]] = []
    for index, machine in enumerate(config.file.machines):
        files += [(f"machines[{index}].kernel", machine.kernel), (f"machines[{index}].initrd", machine.initrd)]
    if tls := config.file.listen.tls:
        files += [(f"listen.tls.{key}", getattr(tls, key)) for key in ("certificate", "key", "ca")]
    lines = [f"{key}: {file} is not a file" for key, file in files if file is not None and not file.is_file()]
    for index, section in enumerate(config.file.networks):
        host = section.host
        if host is None:
            continue
        if host.namespace is not None and not netns.exists(host.namespace):
            lines.append(f"networks[{index}].host.namespace: there is no network namespace {host.namespace}")
            continue
        for key, device in (("bridge", host.bridge), ("uplink", host.uplink)):
            try:
                await run(["ip", "link", "show", "dev", device], namespace=host.namespace)
            except ProcessError:
                where = f"in namespace {host.namespace}" if host.namespace else "on this machine"
                lines.append(f"networks[{index}].host.{key}: there is no device {device} {where}")
    return lines


async def hosts_of(config: Config) -> dict[str, Host]:
    """The hypervisors of the config, each with the acceleration that works on this machine."""
    kernels = [machine.kernel for machine in config.file.machines if machine.kernel is not None]
    accel = await needs.acceleration(kernels[0]) if kernels else "tcg"
    return {
        section.name: Host(
            section.name, section.host.namespace, section.host.bridge, section.host.uplink,
            str(section.host.management_address), section.host.run_dir, accel=accel,
        )
        for section in config.file.networks
        if section.host is not None
    }  # fmt: skip


async def serve(config: Config | FederatedConfig | LispConfig) -> None:
    """Run until a signal says to stop."""
    stop = until_told()
    if isinstance(config, LispConfig):
        await _serve_lisp(config, stop)
    elif isinstance(config, FederatedConfig):
        await _serve_federated(config, stop)
    else:
        await _serve_openflow(config, stop)


async def _serve_lisp(config: LispConfig, stop: asyncio.Event) -> None:
    controller = LispController(config)
    controller.watchers.add(_log)
    try:
        await controller.start()
        server = config.file.map_server
        log.info("subscribing at map server %s port %d", server.address, server.port)
        await stop.wait()
        log.info("stopping; sites and machines go on")
    finally:
        await controller.close()


async def _serve_federated(config: FederatedConfig, stop: asyncio.Event) -> None:
    try:
        instance = Instance(config, watch=_log)
    except (KeyFileError, RegistryError, SigningError) as error:
        raise RuntimeError(f"federation: {error}") from None
    running = asyncio.ensure_future(instance.run())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            try:
                running.result()
            except (BusError, OSError, StoreError, KeyFileError) as error:
                raise RuntimeError(f"federation: {error}") from None
        log.info("stopping; switches and machines go on")
    finally:
        for task in (running, stopping):
            task.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)


async def _serve_openflow(config: Config, stop: asyncio.Event) -> None:
    if lines := await missing(config):
        raise RuntimeError("; ".join(lines))
    controller = Controller(config, await hosts_of(config))
    controller.watchers.add(_log)
    try:
        listen = config.file.listen
        try:
            port = await controller.start()
        except OSError as error:
            raise RuntimeError(
                f"listen: {listen.address} port {listen.port}: {error.strerror or error}; is another controller "
                "running, or the address not this machine's?"
            ) from None
        log.info("listening for %d switches on %s:%d%s", len(config.networks), listen.address, port,
                 " with TLS" if listen.tls else "")  # fmt: skip
        await controller.machines.start(survive=True)
        await stop.wait()
        log.info("stopping; machines go on")
    finally:
        await controller.close()


def _log(happening: Happening) -> None:
    log.info("%s: %s", happening.step, happening.text)
