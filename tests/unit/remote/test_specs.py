"""What a host accepts of what a peer tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from followme.migration.host import MachineSpec, MigrationError
from followme.remote.commands import check_command
from followme.remote.specs import Rules, spec_document, spec_from


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("kernel", "initrd", "disk"):
        (images / name).write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"x")
    (images / "link").symlink_to(tmp_path / "secret")
    (images / "a,readonly=off").write_bytes(b"x")
    return MachineSpec("vm-1.x", bytes.fromhex("525400000001"), 64 << 20, images / "kernel", images / "initrd",
                       "console=ttyS0 quiet", disk=images / "disk")


def rules(spec: MachineSpec) -> Rules:
    return Rules((spec.kernel.parent,), max_memory_bytes=1 << 30)


def test_a_spec_comes_over_whole(spec: MachineSpec) -> None:
    assert spec_from(spec_document(spec), rules(spec)) == spec


@pytest.mark.parametrize(("field", "value"), [
    ("name", "vm,id=x"), ("name", "../vm"), ("name", ""), ("name", None), ("name", "a" * 41), ("name", "vm@b"),
    ("mac", "01:00:5e:00:00:01"), ("mac", "00:00:00:00:00:00"), ("mac", "52:54"), ("mac", 7), ("mac", None),
    ("memory_bytes", 0), ("memory_bytes", 2 << 30), ("memory_bytes", True), ("memory_bytes", "1G"),
    ("cmdline", "a\0b"), ("cmdline", "a\nb"), ("cmdline", "x" * 5000), ("cmdline", None),
    ("machine_type", "pc,kernel=/etc/shadow"), ("machine_type", ""), ("machine_type", None),
    ("kernel", "/etc/shadow"), ("kernel", "relative"), ("kernel", None), ("kernel", "{images}/../secret"),
    ("initrd", "{images}/link"), ("initrd", "{images}"), ("initrd", "{images}/none"), ("initrd", "a\0b"),
    ("disk", "{images}/a,readonly=off"), ("disk", "nbd:somewhere:10809"), ("disk", "/dev/null"), ("disk", 7),
])
def test_what_is_refused(spec: MachineSpec, field: str, value: Any) -> None:
    document = spec_document(spec)
    document[field] = value.format(images=spec.kernel.parent) if isinstance(value, str) else value
    with pytest.raises(MigrationError):
        spec_from(document, rules(spec))


@pytest.mark.parametrize("document", [None, [], "vm", {}, 3])
def test_what_is_no_spec(spec: MachineSpec, document: object) -> None:
    with pytest.raises(MigrationError):
        spec_from(document, rules(spec))


def test_commands_that_a_migration_needs() -> None:
    events = {"capabilities": [{"capability": "events", "state": True}]}
    for command, arguments in (("cont", {}), ("query-status", {}), ("migrate-set-capabilities", events),
                               ("migrate-incoming", {"uri": "tcp:10.0.0.1:0"})):
        check_command(command, arguments, "10.0.0.1")
    check_command("migrate-incoming", {"uri": "tcp:[fd00::1]:0"}, "fd00::1")


@pytest.mark.parametrize(("command", "arguments"), [
    ("quit", {}), ("human-monitor-command", {"command-line": "info"}), ("migrate", {"uri": "exec:sh"}), (None, {}),
    ("migrate-incoming", {"uri": "exec:sh"}), ("migrate-incoming", {"uri": "tcp:0.0.0.0:0"}), ("cont", {"a": 1}),
    ("migrate-incoming", {"uri": "tcp:10.0.0.1:0", "exit-on-error": False}), ("migrate-incoming", {}), ([], {}),
    ("migrate-set-parameters", {"tls-creds": "x"}), ("migrate-set-capabilities", {"capabilities": 3}),
    ("migrate-set-capabilities", {"capabilities": [{"capability": "postcopy-ram", "state": True}]}), ("cont", [1]),
    ("migrate-set-capabilities", {"capabilities": [[]]}),
])
def test_commands_that_it_does_not(command: object, arguments: object) -> None:
    with pytest.raises(MigrationError, match="not one that a migration needs"):
        check_command(command, arguments, "10.0.0.1")
