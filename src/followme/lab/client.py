"""The client's DHCP: busybox's udhcpc, as on a real terminal, with a script that keeps what need not change."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from importlib import resources
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from followme.system.process import ProcessError, run

_TRIES = 5
_SECONDS_BETWEEN = 1


class DhcpError(RuntimeError):
    """No lease came."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What the DHCP server gave. ``changed`` tells whether the interface's address is another one now."""

    address: IPv4Interface
    gateway: IPv4Address | None
    server: IPv4Address | None
    seconds: int
    changed: bool


async def dhcp(namespace: str, interface: str, *, request: IPv4Address | None = None) -> Lease:
    """Ask for an address, as after a (re)association; ``request`` is the one that the client had before.

    The interface gets the address and the default route of the lease. When the same lease comes back,
    nothing is touched.
    """
    with tempfile.TemporaryDirectory(prefix="fm-dhcp-") as work:
        # A copy, because package data need not be executable.
        script, report = Path(work, "script"), Path(work, "lease")
        script.write_bytes((resources.files("followme.lab") / "files" / "udhcpc.sh").read_bytes())
        script.chmod(0o755)
        command = ["busybox", "udhcpc", "-f", "-n", "-q", "-i", interface, "-s", str(script)]
        command += ["-t", str(_TRIES), "-T", str(_SECONDS_BETWEEN), "-A", "1"]
        if request is not None:
            command += ["-r", str(request)]
        try:
            await run(command, namespace=namespace, env={"FM_LEASE": str(report)})
        except ProcessError as error:
            raise DhcpError(
                f"no DHCP lease for {interface} in {namespace} after {_TRIES} tries: is the controller (or "
                f"another DHCP server) reachable there? {error}"
            ) from None
        if not report.exists():
            raise DhcpError(f"udhcpc ended well but its script reported no lease for {interface}")
        return _parse(report.read_text())


def _parse(text: str) -> Lease:
    values = dict(line.split("=", 1) for line in text.splitlines())
    return Lease(
        address=IPv4Interface(values["address"]),
        gateway=_address(values["gateway"]),
        server=_address(values["server"]),
        seconds=int(values["seconds"]),
        changed=values["changed"] == "yes",
    )


def _address(text: str) -> IPv4Address | None:
    return IPv4Address(text) if text else None
