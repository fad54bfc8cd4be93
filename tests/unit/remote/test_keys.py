"""Key files, and keys that do not show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from followme.remote.keys import MAX_KEY, Key, KeyFileError, load_key

SECRET = b"correct horse battery staple"


def test_a_key_file_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(SECRET + b"\n")
    for mode in (0o600, 0o400, 0o640):
        file.chmod(mode)
        assert load_key(file).mac(b"x", b"y") == Key(SECRET).mac(b"x", b"y")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602, 0o601])
def test_a_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "key"
    file.write_bytes(SECRET)
    file.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600") as caught:
        load_key(file)
    assert SECRET.decode() not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * (MAX_KEY + 1), b" " * 100])
def test_a_file_without_a_key(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(KeyFileError, match="must have 16 to 1024 bytes"):
        load_key(file)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        load_key(tmp_path / "none")
    with pytest.raises(KeyFileError, match="directory|plain file"):  # noqa: RUF043
        load_key(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match="no plain file"):
        load_key(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_somebody_elses_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(SECRET)
    file.chmod(0o600)
    os.chown(file, 12345, 12345)
    with pytest.raises(KeyFileError, match="belongs to user 12345"):
        load_key(file)


def test_a_key_does_not_show_and_parts_do_not_run_together() -> None:
    key = Key(SECRET)
    assert SECRET.decode() not in f"{key!r} {key}"
    assert not hasattr(key, "__dict__")
    assert key.mac(b"a", b"bc") != key.mac(b"ab", b"c") != key.mac(b"abc")
    assert Key.random().mac(b"a") != Key.random().mac(b"a")
