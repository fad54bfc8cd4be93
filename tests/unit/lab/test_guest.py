"""Building the guest: what stops it is named, and what is cached is not fetched again. (Booting it: tests/lab.)"""

import os
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from followme.lab import guest
from followme.lab.guest import GuestError, GuestImage, build_guest


def fake(directory: Path, program: str, script: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / program).write_text(f"#!/bin/sh\n{script}\n")
    (directory / program).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose programs come before the machine's."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "bin"


def test_the_kernel_command_line_carries_the_address_and_the_load() -> None:
    image = GuestImage(Path("k"), Path("i"))
    address, gateway = IPv4Interface("10.1.0.5/24"), IPv4Address("10.1.0.1")
    plain = image.kernel_arguments(address, gateway)
    assert "console=ttyS0" in plain
    assert plain.endswith("fm.ip=10.1.0.5/24 fm.gw=10.1.0.1")
    busy = image.kernel_arguments(address, gateway, dirty_bytes_s=10 << 20, dirty_set_bytes=1 << 20)
    assert busy.endswith("fm.dirty_kib_s=10240 fm.dirty_set_kib=1024")


async def test_no_kernel_in_the_lists_even_after_an_update(tmp_path: Path, programs: Path) -> None:
    fake(programs, "apt-cache", "echo 'linux-image-cloud-amd64'")
    fake(programs, "apt-get", f"echo \"$@\" >> {tmp_path}/asked")
    with pytest.raises(GuestError, match=r"no package linux-image-cloud-amd64.*sources\.list"):
        await build_guest(tmp_path / "cache")
    assert (tmp_path / "asked").read_text() == "update -qq\n"


async def test_a_download_that_fails_says_so_and_leaves_nothing(tmp_path: Path, programs: Path) -> None:
    fake(programs, "apt-cache", "echo '  Depends: linux-image-9.9-cloud-amd64'")
    fake(programs, "apt-get", "echo 'no network' >&2; exit 100")
    with pytest.raises(GuestError, match=r"cannot get the guest's kernel.*no network"):
        await build_guest(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


async def test_a_busybox_that_is_not_static_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache/kernels/linux-image-9.9").mkdir(parents=True)
    (tmp_path / "busybox").write_bytes(b"\x7fELF /lib64/ld-linux-x86-64.so.2")
    monkeypatch.setattr(guest, "_BUSYBOX", tmp_path / "busybox")
    with pytest.raises(GuestError, match="apt-get install busybox-static"):
        await build_guest(tmp_path / "cache")


async def test_a_cached_kernel_needs_no_apt_and_a_cached_image_no_compiler(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(programs, "apt-cache", "exit 1")
    fake(programs, "apt-get", "exit 1")
    fake(programs, "gcc", f"echo run >> {tmp_path}/compiled; echo service > guest")
    modules = tmp_path / "cache/kernels/linux-image-9.9/modules"
    modules.mkdir(parents=True)
    (modules / "order").write_text("")
    (tmp_path / "busybox").write_bytes(b"static")
    monkeypatch.setattr(guest, "_BUSYBOX", tmp_path / "busybox")
    first = await build_guest(tmp_path / "cache")
    assert await build_guest(tmp_path / "cache") == first
    assert first.initrd.stat().st_size > 0
    assert (tmp_path / "compiled").read_text() == "run\n"
    # Another ingredient gives another image; the old one stays for who uses it.
    (tmp_path / "busybox").write_bytes(b"static, newer")
    second = await build_guest(tmp_path / "cache")
    assert second.initrd != first.initrd
    assert first.initrd.exists()
