"""What a migration needs to know of a hypervisor host and of a machine, and the error of this room."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

MAX_SOCKET_PATH = 107


class MigrationError(RuntimeError):
    """A machine could not be started or carried; the text says which, where and why."""


@dataclass(frozen=True, slots=True)
class Host:
    """A hypervisor: a bridge whose port ``uplink`` leads to the OpenFlow switch, in a namespace or not.

    ``management_address`` is where it listens for machines that are carried to it. ``run_dir`` holds the
    QMP sockets, so its path must be short. ``accel`` is QEMU's ``-accel`` argument.
    """

    name: str
    namespace: str | None
    bridge: str
    uplink: str
    management_address: str
    run_dir: Path
    accel: str = "tcg"

    def file(self, machine: str, suffix: str) -> Path:
        """Where this host keeps a file of a machine; both names are in it, hosts may share ``run_dir``."""
        return self.run_dir / f"{machine}@{self.name}.{suffix}"

    def qmp_path(self, machine: str) -> Path:
        path = self.file(machine, "qmp")
        if len(str(path).encode()) > MAX_SOCKET_PATH:
            raise MigrationError(
                f"{path} is too long for a unix socket ({MAX_SOCKET_PATH} bytes): give host {self.name} a "
                "shorter run_dir"
            )
        return path

    def tap_name(self, machine: str) -> str:
        """The machine's tap here: stable, at most 15 bytes, different on hosts that share a namespace."""
        return f"fm{zlib.crc32(f'{machine}@{self.name}'.encode()):08x}"


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A machine as QEMU must be told of it, the same at the source and at the target.

    ``disk`` is a raw image on storage that both hosts reach; None for a machine that lives in its initrd.
    ``machine_type`` must be a versioned one where the hosts run different QEMU versions.
    """

    name: str
    mac: bytes
    memory_bytes: int
    kernel: Path
    initrd: Path
    cmdline: str
    machine_type: str = "pc"
    disk: Path | None = None
