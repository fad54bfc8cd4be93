"""The initial RAM disk, read back by busybox."""

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from followme.lab import initrd

ENTRIES = [
    initrd.directory("bin"),
    initrd.file("bin/tool", b"#!/bin/sh\n", executable=True),
    initrd.file("plain", b"odd length!"),
    initrd.file("empty", b""),
]


def test_the_same_content_gives_the_same_bytes() -> None:
    assert initrd.pack(ENTRIES) == initrd.pack(ENTRIES)
    assert initrd.pack(ENTRIES) != initrd.pack(ENTRIES[:-1])


@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is missing: apt-get install busybox-static")
def test_cpio_reads_it_back(tmp_path: Path) -> None:
    archive = gzip.decompress(initrd.pack(ENTRIES))
    subprocess.run(["busybox", "cpio", "-i"], input=archive, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "bin/tool").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "bin/tool").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "plain").read_bytes() == b"odd length!"
    assert (tmp_path / "plain").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "empty").read_bytes() == b""
