"""What a command needs of this machine, and how to get what is missing."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from followme.system.cache import default_cache
from followme.system.process import Child

_PROBE_SECONDS = 3.0


class Need(StrEnum):
    """Something that a command cannot do without."""

    ROOT = "root"
    NETWORKS = "networks"
    OPENVSWITCH = "openvswitch"
    BUSYBOX = "busybox"
    QEMU = "qemu"
    GUEST = "guest"
    VXLAN_GPE = "vxlan-gpe"


NETWORK_LAB = (Need.ROOT, Need.NETWORKS, Need.OPENVSWITCH, Need.BUSYBOX)
MACHINE_LAB = (*NETWORK_LAB, Need.QEMU, Need.GUEST)
LISP_LAB = (Need.ROOT, Need.NETWORKS, Need.BUSYBOX, Need.VXLAN_GPE, Need.QEMU, Need.GUEST)

_OVS_PROGRAMS = ("ovsdb-server", "ovsdb-tool", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl", "ovs-appctl")
# Program -> the Debian package that holds it.
_PROGRAMS: dict[Need, dict[str, str]] = {
    Need.NETWORKS: {"ip": "iproute2", "tc": "iproute2", "ethtool": "ethtool", "setpriv": "util-linux",
                    "unshare": "util-linux"},
    Need.OPENVSWITCH: dict.fromkeys(_OVS_PROGRAMS, "openvswitch-switch"),
    Need.BUSYBOX: {"busybox": "busybox-static"},
    Need.QEMU: {"qemu-system-x86_64": "qemu-system-x86"},
    Need.VXLAN_GPE: {"nft": "nftables"},
    Need.GUEST: {"busybox": "busybox-static", "gcc": "gcc", "dpkg": "dpkg", "apt-get": "apt"},
}
# Tried in a namespace that goes away at once, so nothing of the machine changes.
_KERNEL_FEATURES: dict[Need, dict[str, str]] = {
    Need.NETWORKS: {
        "veth pairs (CONFIG_VETH)": "link add name a0 type veth peer name a1",
        "bridges (CONFIG_BRIDGE)": "link add name b0 type bridge",
        "tap and tun devices (CONFIG_TUN)": "tuntap add dev t0 mode tap",
        "policy routing (CONFIG_IP_MULTIPLE_TABLES)": "rule add iif lo to 10.0.0.0/8 lookup 100",
    },
    Need.VXLAN_GPE: {
        "VXLAN-GPE tunnels (CONFIG_VXLAN)": "link add name x0 type vxlan external gpe dstport 4341",
    },
}


def check(needs: Iterable[Need]) -> list[str]:
    """One line for each thing that is missing and how to get it; empty if the command can run."""
    wanted = list(dict.fromkeys(needs))
    root = os.geteuid() == 0
    problems = []
    if Need.ROOT in wanted and not root:
        problems.append("not root: namespaces and switches need it; run the command with sudo")
    for need in wanted:
        problems += _missing_programs(need)
    if root and shutil.which("ip") and shutil.which("unshare"):  # without them the kernel cannot be asked
        for need in wanted:
            problems += _missing_features(need)
    if Need.GUEST in wanted and platform.machine() != "x86_64":
        problems.append(f"this is a {platform.machine()} machine: the lab's guest is built for x86_64 only")
    return list(dict.fromkeys(problems))


def _missing_programs(need: Need) -> list[str]:
    lines = []
    by_package: dict[str, list[str]] = {}
    for program, package in _PROGRAMS.get(need, {}).items():
        if shutil.which(program) is None:
            by_package.setdefault(package, []).append(program)
    for package, programs in by_package.items():
        lines.append(f"missing {', '.join(programs)}: apt-get install {package}")
    return lines


def _missing_features(need: Need) -> list[str]:
    lines = []
    for feature, command in _KERNEL_FEATURES.get(need, {}).items():
        done = subprocess.run(
            ["unshare", "--net", "ip", *command.split()], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            lines.append(
                f"the kernel gives no {feature}: {done.stderr.strip()}; load the module or take another kernel"
            )
    return lines


async def acceleration(kernel: Path, cache: Path | None = None) -> str:
    """How QEMU shall run here: ``"kvm"`` if a machine gets anywhere with it, else ``"tcg"`` (emulation).

    Some hosts offer /dev/kvm although machines hang in it, so it is tried with ``kernel`` (any Linux for
    x86_64), once per boot of this host.
    """
    file = (cache or default_cache()) / "acceleration"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if file.exists():
        words = file.read_text().split()
        if len(words) == 2 and words[0] == boot and words[1] in ("kvm", "tcg"):
            return words[1]
    usable = os.access("/dev/kvm", os.R_OK | os.W_OK) and await machine_runs("kvm", kernel)
    kind = "kvm" if usable else "tcg"
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".acceleration-{os.getpid()}")
    draft.write_text(f"{boot} {kind}\n")
    draft.rename(file)
    return kind


async def machine_runs(accelerator: str, kernel: Path, seconds: float = _PROBE_SECONDS) -> bool:
    """Whether a machine boots a kernel as far as its complaint that there is no disk, then reboots.

    The firmware alone proves nothing: where KVM is broken it may run well, and the kernel still hangs.
    """
    machine = await Child.start(
        [
            "qemu-system-x86_64",
            *("-accel", accelerator, "-m", "128", "-nodefaults", "-no-user-config", "-display", "none"),
            *("-no-reboot", "-kernel", kernel, "-append", "panic=-1"),
        ],
        name=f"QEMU with {accelerator}",
    )
    try:
        return await asyncio.wait_for(machine.wait(), seconds) == 0
    except TimeoutError:
        return False
    finally:
        await machine.stop(grace=0.2)
