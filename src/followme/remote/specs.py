"""A machine's description as agents tell it each other, and what a host accepts of what it is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from followme.migration.host import MachineSpec, MigrationError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")
_MACHINE_TYPE = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}\Z")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}\Z")
_MAX_TEXT = 4096


@dataclass(frozen=True, slots=True)
class Rules:
    """What a peer may have this host run: images in ``directories`` only (all below them too), machines of
    at most ``max_memory_bytes``, at most ``max_waiting`` that wait at a time."""

    directories: tuple[Path, ...]
    max_memory_bytes: int = 4 << 30
    max_waiting: int = 8


def spec_document(spec: MachineSpec) -> dict[str, Any]:
    """The spec as a JSON object."""
    return {
        "name": spec.name, "mac": spec.mac.hex(":"), "memory_bytes": spec.memory_bytes,
        "kernel": str(spec.kernel), "initrd": str(spec.initrd), "cmdline": spec.cmdline,
        "machine_type": spec.machine_type, "disk": None if spec.disk is None else str(spec.disk),
    }


def machine_name(value: object) -> str:
    """``MigrationError`` unless it is a name that may stand in a path and in QEMU's options."""
    if not isinstance(value, str) or not _NAME.match(value):
        raise MigrationError(f"{value!r:.60} is no name of a machine: 1 to 40 of A-Z a-z 0-9 . _ -")
    return value


def mac_of(value: object) -> bytes:
    """``MigrationError`` unless it is a unicast MAC's text."""
    mac = bytes.fromhex(value.replace(":", "")) if isinstance(value, str) and _MAC.match(value) else b"\x01"
    if mac[0] & 1 or not any(mac):
        raise MigrationError(f"{value!r:.60} is no MAC of a machine")
    return mac


def spec_from(document: object, rules: Rules) -> MachineSpec:
    """The spec that a peer tells of; ``MigrationError`` for one that this host may not run.

    No text of a peer ends up in one of QEMU's options with commas, where it could add another.
    """
    if not isinstance(document, Mapping):
        raise MigrationError("the machine's spec is missing")
    name = machine_name(document.get("name"))
    memory, cmdline, kind = (document.get(key) for key in ("memory_bytes", "cmdline", "machine_type"))
    if type(memory) is not int or not 1 << 20 <= memory <= rules.max_memory_bytes:
        raise MigrationError(f"machine {name}: memory_bytes {memory!r:.40} is not between 1 MiB and "
                             f"{rules.max_memory_bytes}")
    if not isinstance(cmdline, str) or len(cmdline) > _MAX_TEXT or not cmdline.isprintable():
        raise MigrationError(f"machine {name}: its cmdline is no printable text of at most {_MAX_TEXT} characters")
    if not isinstance(kind, str) or not _MACHINE_TYPE.match(kind):
        raise MigrationError(f"machine {name}: {kind!r:.60} is no machine type")
    disk = document.get("disk")
    return MachineSpec(
        name=name, mac=mac_of(document.get("mac")), memory_bytes=memory,
        kernel=_image(name, document.get("kernel"), rules), initrd=_image(name, document.get("initrd"), rules),
        cmdline=cmdline, machine_type=kind, disk=None if disk is None else _image(name, disk, rules),
    )


def _image(name: str, value: object, rules: Rules) -> Path:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or "," in value or not value.isprintable():
        raise MigrationError(f"machine {name}: {value!r:.60} is no path of an image")
    try:
        path = Path(value).resolve(strict=True)
        allowed = any(path.is_relative_to(directory.resolve()) for directory in rules.directories)
    except (OSError, RuntimeError, ValueError):
        path, allowed = Path(value), False
    # The same words for "not there" and "not allowed": what lies elsewhere is not the peer's to know.
    if not allowed or "," in str(path) or not (path.is_file() or path.is_block_device()):
        raise MigrationError(f"machine {name}: there is no image {value} in the directories that this host allows")
    return path
