"""What is missing is named with the package that brings it."""

from pathlib import Path

import pytest

from followme.system import needs
from followme.system.needs import Need, acceleration

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
KERNEL = Path("/no/kernel/is/read/here")


def test_missing_programs_come_with_their_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    problems = needs.check([Need.OPENVSWITCH, Need.QEMU, Need.QEMU])
    assert any("ovs-vswitchd" in line and "apt-get install openvswitch-switch" in line for line in problems)
    assert [line for line in problems if "qemu" in line] == [
        "missing qemu-system-x86_64: apt-get install qemu-system-x86"
    ]
    assert all("\n" not in line for line in problems)


def test_not_being_root_is_a_problem_only_where_root_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert any("sudo" in line for line in needs.check([Need.ROOT]))
    assert needs.check([]) == []


@pytest.mark.parametrize(("works", "kind"), [(True, "kvm"), (False, "tcg")])
async def test_acceleration_is_tried_once_a_boot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, works: bool, kind: str
) -> None:
    tried: list[str] = []

    async def machine_runs(accelerator: str, kernel: Path) -> bool:
        tried.append(accelerator)
        return works

    monkeypatch.setattr(needs, "machine_runs", machine_runs)
    monkeypatch.setattr("os.access", lambda *_: True)
    (tmp_path / "acceleration").write_text("another-boot kvm\n")
    assert await acceleration(KERNEL, tmp_path) == kind
    assert await acceleration(KERNEL, tmp_path) == kind
    assert tried == ["kvm"]
    assert (tmp_path / "acceleration").read_text() == f"{BOOT_ID.read_text().strip()} {kind}\n"
