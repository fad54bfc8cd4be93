"""Named network namespaces: make and delete them, and open sockets, taps and tuns inside them.

Whatever must happen inside a namespace happens in a thread that lives for just that: ``setns`` changes the
namespace of one thread, so the caller's never changes, not even for a moment.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from followme.system.process import ProcessError, run

DIRECTORY = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_MAX_INTERFACE_NAME = 15

_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def names() -> list[str]:
    """The named namespaces of this machine, sorted."""
    return sorted(entry.name for entry in DIRECTORY.iterdir()) if DIRECTORY.is_dir() else []


def exists(name: str) -> bool:
    return (DIRECTORY / name).exists()


async def add(name: str) -> None:
    """Make a namespace with its loopback up."""
    await run(["ip", "netns", "add", name])
    await ip(name, ["link set lo up"])


async def delete(name: str) -> None:
    """Delete a namespace if it is there; its veths go with it once no process or socket uses it."""
    try:
        await run(["ip", "netns", "delete", name])
    except ProcessError:
        if exists(name):
            raise


async def pids(name: str) -> list[int]:
    """The processes that run in a namespace."""
    return [int(pid) for pid in (await run(["ip", "netns", "pids", name])).split()]


async def ip(namespace: str | None, commands: Iterable[str]) -> None:
    """Run ``ip`` commands in order in one process: ``["link set eth0 up", ...]``; the first error ends it."""
    await _batch("ip", namespace, commands)


async def tc(namespace: str | None, commands: Iterable[str]) -> None:
    """Run ``tc`` commands in order in one process; the first error ends it."""
    await _batch("tc", namespace, commands)


async def _batch(program: str, namespace: str | None, commands: Iterable[str]) -> None:
    lines = list(commands)
    if not lines:
        return
    where = [] if namespace is None else ["-n", namespace]
    try:
        await run([program, *where, "-batch", "-"], input_text="".join(f"{line}\n" for line in lines))
    except ProcessError as error:
        raise ProcessError(f"{error}; the commands were: {' ; '.join(lines)}") from None


def call_in(namespace: str | None, function: Callable[[], T]) -> T:
    """What ``function()`` returns when run inside the namespace, in a thread of its own."""
    if namespace is None:
        return function()
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            handle = os.open(DIRECTORY / namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(handle, _CLONE_NEWNET) != 0:
                    code = ctypes.get_errno()
                    raise OSError(code, f"cannot enter network namespace {namespace}: {os.strerror(code)}")
            finally:
                os.close(handle)
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name=f"netns-{namespace}")
    thread.start()
    thread.join()
    if errors:
        if isinstance(errors[0], FileNotFoundError) and not exists(namespace):
            raise FileNotFoundError(f"there is no network namespace {namespace} (ip netns list shows them)")
        raise errors[0]
    return results[0]


def socket_in(namespace: str | None, family: int, type: int, proto: int = 0) -> socket.socket:
    """A socket that lives in the namespace for good, whichever thread uses it."""
    return call_in(namespace, lambda: socket.socket(family, type, proto))


def open_tap(namespace: str | None, name: str, *, vnet_hdr: bool = False) -> int:
    """Make a tap device in the namespace; it goes when the returned descriptor (and its copies) close.

    Reads and writes are whole Ethernet frames. The descriptor blocks and is not inherited by children
    unless passed to them.
    """
    return _open_tun(namespace, name, _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if vnet_hdr else 0))


def open_tun(namespace: str | None, name: str) -> int:
    """As ``open_tap``, but a tun device: reads and writes are whole IP packets."""
    return _open_tun(namespace, name, _IFF_TUN | _IFF_NO_PI)


def _open_tun(namespace: str | None, name: str, flags: int) -> int:
    if not 0 < len(name.encode()) <= _MAX_INTERFACE_NAME:
        raise ValueError(f"{name!r} cannot name an interface: it must have 1 to {_MAX_INTERFACE_NAME} bytes")

    def make() -> int:
        handle = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        except OSError as error:
            os.close(handle)
            place = namespace or "this namespace"
            raise OSError(error.errno, f"cannot make device {name} in {place}: {error.strerror}") from None
        return handle

    return call_in(namespace, make)


def sysctl(namespace: str | None, settings: Mapping[str, int | str]) -> None:
    """Set ``net.…`` variables of a namespace, written as paths: ``{"ipv4/ip_forward": 1}``."""

    def write() -> None:
        for key, value in settings.items():
            Path("/proc/sys/net", key).write_text(f"{value}\n")

    call_in(namespace, write)
