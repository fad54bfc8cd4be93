"""``followme controller``: the controller as a service, until SIGINT or SIGTERM.

Machines outlive it: their QEMUs go on when it stops or crashes, and the next start finds them again.
"""

from __future__ import annotations

import asyncio
import logging
import signal

from followme.config import Config
from followme.controller import Controller
from followme.events import Happening
from followme.migration.host import Host
from followme.system import needs

log = logging.getLogger(__name__)


async def hosts_of(config: Config) -> dict[str, Host]:
    """The hypervisors of the config, each with the acceleration that works on this machine."""
    kernels = [machine.kernel for machine in config.file.machines if machine.kernel is not None]
    for kernel in kernels:
        if not kernel.is_file():
            raise FileNotFoundError(f"machines[].kernel: {kernel} is not a file")
    accel = await needs.acceleration(kernels[0]) if kernels else "tcg"
    return {
        section.name: Host(
            section.name, section.host.namespace, section.host.bridge, section.host.uplink,
            str(section.host.management_address), section.host.run_dir, accel=accel,
        )
        for section in config.file.networks
        if section.host is not None
    }  # fmt: skip


async def serve(config: Config) -> None:
    """Run until a signal says to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    controller = Controller(config, await hosts_of(config))
    controller.watchers.add(_log)
    try:
        port = await controller.start()
        listen = config.file.listen
        log.info("listening for %d switches on %s:%d%s", len(config.networks), listen.address, port,
                 " with TLS" if listen.tls else "")  # fmt: skip
        await controller.machines.start(survive=True)
        await stop.wait()
        log.info("stopping; machines go on")
    finally:
        await controller.close()


def _log(happening: Happening) -> None:
    log.info("%s: %s", happening.step, happening.text)
