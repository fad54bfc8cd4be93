"""The lab's guest: Debian's cloud kernel and an initial RAM disk with busybox and an echo service.

It boots in about two seconds in plain emulation, answers pings, echoes TCP and UDP on port 7, opens a session to
where a datagram to port 8 says, and prints
``READY`` on the serial console when it does. Building is cached by content, so it costs nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import lzma
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import resources
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from followme.lab import initrd
from followme.system.cache import default_cache
from followme.system.process import ProcessError, run

READY = "followme: ready"
ECHO_PORT = 7
DIAL_PORT = 8
MEMORY_BYTES = 256 << 20

_KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
# In the order in which they must be inserted.
_MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
)
_BUSYBOX = Path("/bin/busybox")


class GuestError(RuntimeError):
    """The guest image cannot be built; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class GuestImage:
    """What QEMU boots: ``-kernel kernel -initrd initrd -append kernel_arguments(...)``."""

    kernel: Path
    initrd: Path

    def kernel_arguments(
        self,
        address: IPv4Interface,
        gateway: IPv4Address,
        *,
        dirty_bytes_s: int = 0,
        dirty_set_bytes: int = 32 << 20,
    ) -> str:
        """The kernel command line: the guest's address, and how fast it shall write to how much memory."""
        words = [
            "console=ttyS0 quiet panic=-1 mitigations=off nowatchdog random.trust_cpu=on ipv6.disable=1",
            f"fm.ip={address} fm.gw={gateway}",
        ]
        if dirty_bytes_s:
            words.append(f"fm.dirty_kib_s={dirty_bytes_s >> 10} fm.dirty_set_kib={dirty_set_bytes >> 10}")
        return " ".join(words)


async def build_guest(cache: Path | None = None) -> GuestImage:
    """The guest's kernel and initial RAM disk, from the cache or built now (Debian only; needs gcc)."""
    cache = cache or default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    async with _locked(cache / "lock"):
        kernel = _cached_kernel(cache) or await _fetch_kernel(cache)
        return GuestImage(kernel / "vmlinuz", await _build_initrd(cache, kernel))


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """One builder at a time; polls, because a thread that blocks in flock() cannot be cancelled."""
    with path.open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.05)
        yield


def _cached_kernel(cache: Path) -> Path | None:
    # Names sort by version well enough: any of them does, so no look-up is made when one is here.
    return max((cache / "kernels").glob("linux-image-*"), default=None)


async def _kernel_package() -> str | None:
    """The package behind Debian's meta package, e.g. ``linux-image-6.1.0-56-cloud-amd64``."""
    try:
        answer = await run(["apt-cache", "depends", _KERNEL_META_PACKAGE], env={"LC_ALL": "C"})
    except ProcessError:
        return None
    found = re.search(r"Depends: (linux-image-\S+)", answer)
    return found.group(1) if found else None


async def _fetch_kernel(cache: Path) -> Path:
    package = await _kernel_package()
    try:
        if package is None:
            await run(["apt-get", "update", "-qq"], timeout=300)
            package = await _kernel_package()
        if package is None:
            raise GuestError(
                f"apt knows no package {_KERNEL_META_PACKAGE}: the lab's guest needs Debian's cloud kernel; "
                "check /etc/apt/sources.list"
            )
        with tempfile.TemporaryDirectory(dir=cache, prefix=".kernel-") as work:
            await _download(package, Path(work))
            done = Path(work, package)
            await _unpack_kernel(next(Path(work).glob("*.deb")), Path(work, "tree"), done)
            return _publish(done, cache / "kernels" / package)
    except ProcessError as error:
        raise GuestError(f"cannot get the guest's kernel: {error}") from None


async def _download(package: str, directory: Path) -> None:
    # Without the sandbox option apt complains that its own user cannot write to a private directory.
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package]
    try:
        await run(command, cwd=directory, timeout=300)
    except ProcessError:  # lists that are older than the archive name files that are gone
        await run(["apt-get", "update", "-qq"], timeout=300)
        await run(command, cwd=directory, timeout=300)


async def _unpack_kernel(package: Path, tree: Path, target: Path) -> None:
    await run(["dpkg", "-x", package, tree], timeout=120)
    (target / "modules").mkdir(parents=True)
    kernels = list(tree.glob("boot/vmlinuz-*"))
    if len(kernels) != 1:
        raise GuestError(f"{package.name} holds {len(kernels)} kernels instead of one")
    shutil.copyfile(kernels[0], target / "vmlinuz")
    builtin = {Path(line).stem for line in _lines(next(tree.rglob("modules.builtin")))}
    order = [name for name in _MODULES if name not in builtin]
    for name in order:
        (target / "modules" / f"{name}.ko").write_bytes(_module(tree, name))
    (target / "modules" / "order").write_text("".join(f"{name}\n" for name in order))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _module(tree: Path, name: str) -> bytes:
    for path in tree.rglob(f"{name}.ko*"):
        return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    raise GuestError(f"Debian's kernel package holds no module {name}, which the guest's network card needs")


async def _build_initrd(cache: Path, kernel: Path) -> Path:
    files = resources.files("followme.lab") / "files"
    init, source = (files / "init.sh").read_bytes(), (files / "guest.c").read_bytes()
    busybox = _static_busybox()
    key = hashlib.sha256()
    for part in (kernel.name.encode(), init, source, busybox, Path(__file__).read_bytes()):
        key.update(hashlib.sha256(part).digest())
    target = cache / "guests" / key.hexdigest()[:16]
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache, prefix=".guest-") as work:
            service = await _compile(source, Path(work))
            done = Path(work, "done")
            done.mkdir()
            modules = sorted((kernel / "modules").iterdir())
            entries = [
                *(initrd.directory(name) for name in ("bin", "dev", "modules", "proc", "sys")),
                initrd.character_device("dev/console", 5, 1),
                initrd.file("bin/busybox", busybox, executable=True),
                initrd.file("bin/guest", service, executable=True),
                initrd.file("init", init, executable=True),
                *(initrd.file(f"modules/{path.name}", path.read_bytes()) for path in modules),
            ]
            (done / "initrd.gz").write_bytes(initrd.pack(entries))
            _publish(done, target)
    return target / "initrd.gz"


def _static_busybox() -> bytes:
    content = _BUSYBOX.read_bytes() if _BUSYBOX.exists() else b""
    if not content or b"/ld-linux" in content:
        raise GuestError(f"{_BUSYBOX} is missing or not static: apt-get install busybox-static")
    return content


async def _compile(source: bytes, work: Path) -> bytes:
    (work / "guest.c").write_bytes(source)
    try:
        # cwd and relative names keep the build directory out of the binary.
        await run(["gcc", "-static", "-O2", "-s", "-Wall", "-Werror", "-o", "guest", "guest.c"], cwd=work)
    except ProcessError as error:
        raise GuestError(f"cannot compile the guest's service (apt-get install gcc libc6-dev): {error}") from None
    return (work / "guest").read_bytes()


def _publish(done: Path, target: Path) -> Path:
    """Move a finished directory to its name at once, so that no reader ever sees half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    done.rename(target)
    return target
