"""Our controller as its own process, for bench/packet_in.py: prints its port, ends when its input ends."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import load
from followme.config import openflow as config
from followme.controllers.openflow.controller import Controller
from followme.domain import mac_text


def document(store: Path) -> dict[str, Any]:
    """What a config file would say: 16 networks, and every user known at its port."""
    return {
        "networks": [_network(number) for number in range(load.SWITCHES)],
        "users": [
            {
                "name": f"u{number}-{user.port}", "home": f"n{number}", "mac": mac_text(user.mac),
                "address": str(user.address), "port": user.port,
            }
            for number in range(load.SWITCHES) for user in load.users(number)
        ],
        "listen": {"port": 0},
        "store": str(store),
    }  # fmt: skip


def _network(number: int) -> dict[str, Any]:
    return {
        "name": f"n{number}", "kind": "access" if number % 2 else "datacentre",
        "datapath": load.datapath(number),
        "uplink": {"port": load.UPLINK_PORT, "router_mac": mac_text(load.router_mac(number))},
        "prefix": f"10.{number}.0.0/23", "gateway": f"10.{number}.0.1", "locators": f"10.{number}.1.0/24",
    }  # fmt: skip


async def serve() -> None:
    with tempfile.TemporaryDirectory() as directory:
        controller = Controller(config.check(document(Path(directory) / "followme.db"), "bench"), {})
        print(await controller.start(), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await controller.close()


if __name__ == "__main__":
    asyncio.run(serve())
