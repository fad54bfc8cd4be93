"""The tunnel device: LISP-GPE (RFC 9305) by the kernel's ``vxlan`` driver, its endpoints given by the routes.

The driver takes each packet's locator and instance id from its route (``external``). It copies the ECN bits
both ways (RFC 9300, 5.3) but neither the TTL nor the DSCP: the outer header has the host's default TTL and DSCP 0.
"""

from __future__ import annotations

import array
import fcntl
import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

from followme.system import netns
from followme.system.process import ProcessError, run
from followme.xtr.errors import DataPlaneError

DATA_PORT = 4341
CORE_MTU = 1500
OVERHEAD = {4: 20 + 8 + 8, 6: 40 + 8 + 8}
"""Bytes of the outer IP, UDP and LISP headers, by the version of the locators."""
_MIN_MTU = 1280
_SIOCETHTOOL, _ETHTOOL_SGRO = 0x8946, 0x0000002C


@dataclass(frozen=True, slots=True)
class TunnelDevice:
    """A tunnel device that is up. ``mtu`` in bytes of the inner packet; ``namespace`` None is where we are."""

    name: str
    index: int
    mtu: int
    port: int
    namespace: str | None


async def ensure(
    name: str = "lisp0", *, namespace: str | None = None, core_mtu: int = CORE_MTU, port: int = DATA_PORT
) -> TunnelDevice:
    """The device, made if missing, else adopted with its routes as it is and only set right.

    The inner MTU is ``core_mtu`` less the headers of an IPv6 locator, which fits IPv4 ones too; a larger
    packet is answered with ICMP by the kernel's routing, so path MTU discovery works (RFC 9300, 7.2).
    Raises ``DataPlaneError`` when another kind of device bears the name, or the kernel refuses.
    """
    mtu = core_mtu - OVERHEAD[6]
    if mtu < _MIN_MTU:
        raise DataPlaneError(
            f"{name}: a core MTU of {core_mtu} leaves {mtu} bytes; IPv6 needs {_MIN_MTU}: raise the core's MTU"
        )
    place = namespace or "this namespace"
    found = await _show(name, namespace)
    try:
        if found is None:
            await netns.ip(namespace, [
                f"link add {name} type vxlan external gpe dstport {port} nolearning noudpcsum "
                "udp6zerocsumtx udp6zerocsumrx"
            ])  # fmt: skip
        else:
            _check(found, name, port, place)
        await netns.ip(namespace, [f"link set {name} mtu {mtu} up"])
    except ProcessError as error:
        raise DataPlaneError(f"cannot make tunnel device {name} in {place}: {error}") from None
    # GRO here queues each packet that leaves the tunnel once more: 4 to 11 per cent of the CPU time of a path's
    # UDP packets, and no gain for TCP (docs/decisions/lisp-dataplane.md).
    netns.call_in(namespace, lambda: _gro_off(name))
    made = await _show(name, namespace)
    if made is None:
        raise DataPlaneError(f"tunnel device {name} in {place} was removed while it was being made")
    return TunnelDevice(name, int(made["ifindex"]), int(made["mtu"]), port, namespace)


async def remove(name: str = "lisp0", *, namespace: str | None = None) -> bool:
    """Delete the device, and with it its routes; False if there is none."""
    if await _show(name, namespace) is None:
        return False
    try:
        await netns.ip(namespace, [f"link delete {name}"])
    except ProcessError as error:
        raise DataPlaneError(f"cannot remove tunnel device {name}: {error}") from None
    return True


async def kind(name: str, *, namespace: str | None = None, port: int = DATA_PORT) -> str | None:
    """Of what kind a device is: "lisp" (as ``ensure`` makes and adopts it), else as the kernel calls it ("vxlan",
    "tun", ...); ``None`` if there is none of that name."""
    found = await _show(name, namespace)
    if found is None:
        return None
    try:
        _check(found, name, port, namespace or "this namespace")
    except DataPlaneError:
        return str(found.get("linkinfo", {}).get("info_kind", "")) or "device"
    return "lisp"


async def _show(name: str, namespace: str | None) -> dict[str, Any] | None:
    where = [] if namespace is None else ["-n", namespace]
    try:
        text = await run(["ip", *where, "-json", "-details", "link", "show", "dev", name])
    except ProcessError as error:
        if "does not exist" in str(error):
            return None
        raise DataPlaneError(f"cannot look for device {name}: {error}") from None
    shown: list[dict[str, Any]] = json.loads(text)
    return shown[0] if shown else None


def _check(found: dict[str, Any], name: str, port: int, place: str) -> None:
    info = found.get("linkinfo", {})
    data = info.get("info_data", {})
    if info.get("info_kind") != "vxlan" or not data.get("external") or not data.get("gpe"):
        raise DataPlaneError(
            f"{name} in {place} is no LISP-GPE device (vxlan external gpe): remove it or choose another name"
        )
    if data.get("port") != port:
        raise DataPlaneError(f"{name} in {place} listens on UDP port {data.get('port')}, not {port}: remove it")


def _gro_off(name: str) -> None:
    value = array.array("I", [_ETHTOOL_SGRO, 0])
    request = struct.pack("16sP16x", name.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            fcntl.ioctl(handle, _SIOCETHTOOL, request)
        except OSError as error:
            raise DataPlaneError(f"cannot switch GRO off on {name}: {error.strerror}") from None
