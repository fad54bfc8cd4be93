"""Learned tables look up what they were given; their files are read back to the last bit, or refused."""

from __future__ import annotations

import io
import json
import zipfile
from math import inf
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from followme.placement import Situation
from followme.placement import learned_file as module
from followme.placement.learned import LearnedTables
from followme.placement.learned_file import LearnedError, load_learned, save_learned
from followme.placement.learned_line import LearnedLine
from followme.placement.policy import policy_named


def tables(**changed: Any) -> LearnedTables:
    """Two areas: everyone's table follows from a to b only, ann has a rule, bob an own value."""
    given: dict[str, Any] = {
        "areas": ("a", "b"), "users": ("ann", "bob"), "kinds": ("all users' moves", "always"),
        "gain": np.array([[[-inf, -2.0], [3.0, -inf]], [[-inf, inf], [inf, -inf]]]),
        "table_of": np.array([1, 0, 0]), "own_state": np.array([1 * 4 + 1]), "own_gain": np.array([0.5]),
    }  # fmt: skip
    return LearnedTables(**(given | changed))


def line(**changed: Any) -> LearnedLine:
    given: dict[str, Any] = {
        "areas": ("a", "b"), "users": ("ann",), "gain": np.array([[-inf, -1.0, 2.0], [-inf, 1.0, 2.0]]),
        "line_of": np.array([[1, 1], [0, 1]]),
    }  # fmt: skip
    return LearnedLine(**(given | changed))


def test_each_user_has_a_table_and_perhaps_own_values() -> None:
    policy = tables()
    to_b = {name: policy.decide(Situation(name, "a", "b", 1, user=name)) for name in ("ann", "bob", "new")}
    to_a = {name: policy.decide(Situation(name, "b", "a", 1, user=name)) for name in ("ann", "bob", "new")}
    assert [one.migrate for one in to_b.values()] == [True, True, True]
    assert [one.migrate for one in to_a.values()] == [True, True, False]
    assert to_a["ann"].why == "always, the cheapest in training, goes here"
    assert to_a["bob"].why == (
        "migrating saves +0.5 s of waiting to the session's end against staying (bob's own moves)"
    )
    assert "-2 s of waiting" in to_a["new"].why
    assert (to_b["new"].policy, to_b["new"].target) == ("learned", "b")


@pytest.mark.parametrize("policy", [tables(), line()])
def test_where_nothing_was_learned_the_service_stays(policy: LearnedTables | LearnedLine) -> None:
    assert not policy.decide(Situation("ann", "a", "z", 2)).migrate
    assert "nothing was learned of z" in policy.decide(Situation("ann", "a", "z", 2)).why
    assert not policy.decide(Situation("ann", "b", "b", 0)).migrate
    # The nearest place was ruled out: the user is not in the area of the best that is left.
    other = policy.decide(Situation("ann", "a", "b", 3, distance_best=1))
    assert not other.migrate
    assert "not in the user's area" in other.why


def test_a_line_for_each_user_and_place() -> None:
    policy = line()
    assert policy.decide(Situation("ann", "b", "a", 1, user="ann")).migrate
    assert [policy.decide(Situation("new", "b", "a", far)).migrate for far in (1, 2, 9)] == [False, True, True]
    assert "threshold 2" in policy.decide(Situation("new", "b", "a", 1)).why


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"areas": ("a", "a")}, "'a' is there twice"),
        ({"users": ("ann", "ann")}, "'ann' is there twice"),
        ({"kinds": ()}, "no table"),
        ({"gain": np.zeros((1, 2, 2))}, "gain has the shape"),
        ({"gain": np.full((2, 2, 2), np.nan)}, "not a number"),
        ({"table_of": np.array([0, 2, 0])}, "table_of must be 0 to 1"),
        ({"own_state": np.array([8])}, "own_state must be 0 to 7"),
        ({"own_state": np.array([3, 3]), "own_gain": np.zeros(2)}, "rising"),
        ({"own_gain": np.zeros(3)}, "own_gain has the shape"),
    ],
)
def test_tables_are_checked(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        tables(**changed)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"gain": np.zeros(3)}, "lines, distances"),
        ({"gain": np.ones((2, 3))}, "above 0 at distance 0"),
        ({"line_of": np.zeros((1, 2), dtype=int)}, "users \\+ 1"),
        ({"line_of": np.full((2, 2), -1)}, "line_of must be 0 to 1"),
    ],
)
def test_lines_are_checked(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        line(**changed)


@pytest.mark.parametrize("policy", [tables(), line(), tables(own_state=np.zeros(0, int), own_gain=np.zeros(0))])
def test_a_file_is_read_back_as_it_was(policy: LearnedTables | LearnedLine, tmp_path: Path) -> None:
    file = tmp_path / "policy.any"
    save_learned(policy, file)
    read = load_learned(file)
    assert type(read) is type(policy)
    assert (read.areas, read.users) == (policy.areas, policy.users)
    for name in module._KINDS["areas" if isinstance(policy, LearnedTables) else "line"][1]:
        assert getattr(read, name).tobytes() == getattr(policy, name).tobytes()
    for user in ("ann", "bob", "new"):
        for way in (("a", "b"), ("b", "a")):
            asked = Situation(user, *way, 1, user=user)
            assert read.decide(asked) == policy.decide(asked)


def rewritten(tmp_path: Path, head: dict[str, Any] | None = None, **members: bytes) -> Path:
    """A good file with its head or a member changed."""
    file = tmp_path / f"policy{len(list(tmp_path.iterdir()))}.npz"
    save_learned(tables(), file)
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    if head is not None:
        old = json.loads(np.load(io.BytesIO(content["head.npy"])).tobytes())
        content["head.npy"] = packed(np.frombuffer(json.dumps(old | head).encode(), dtype=np.uint8))
    content |= {f"{name}.npy": data for name, data in members.items()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file


def packed(array: Any, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    huge = packed(np.zeros((2, 2, 2))).replace(b"(2, 2, 2)", b"(9, 9, 9)")
    for file, complaint in (
        (tmp_path / "none.npz", "No such file"),
        (rewritten(tmp_path, {"version": 2}), "version 2; this program reads 1"),
        (rewritten(tmp_path, {"format": "other"}), "no learned policy"),
        (rewritten(tmp_path, {"kind": "cloud"}), "kind 'cloud' is unknown"),
        (rewritten(tmp_path, {"areas": [1, 2]}), "areas must be a list of names"),
        (rewritten(tmp_path, {"users": ["ann"]}), "table_of has the shape"),
        (rewritten(tmp_path, {"kind": "line"}), "line_of"),
        (rewritten(tmp_path, gain=huge), "gain is float64 of shape"),
        (rewritten(tmp_path, gain=packed(np.zeros((2, 2, 2), dtype=np.float32))), "gain is float32"),
        (rewritten(tmp_path, gain=packed(np.array([{}]), allow_pickle=True)), "gain is object"),
        (rewritten(tmp_path, head=None, table_of=b"junk"), "not a learned policy, or a damaged one"),
    ):
        with pytest.raises(LearnedError) as caught:
            load_learned(file)
        assert complaint in str(caught.value)
        assert str(file) in str(caught.value)


def test_a_damaged_file_is_refused_at_every_byte(tmp_path: Path) -> None:
    whole, file = tmp_path / "whole.npz", tmp_path / "part.npz"
    save_learned(tables(), whole)
    data = whole.read_bytes()
    for length in range(0, len(data) - 1, 7):
        file.write_bytes(data[:length])
        with pytest.raises(LearnedError):
            load_learned(file)
    for at in range(0, len(data), 5):
        file.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            read = load_learned(file)
        except LearnedError:
            continue
        assert isinstance(read, LearnedTables)  # a byte that means nothing (a time stamp)


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "policy.npz"
    save_learned(tables(), file)
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(LearnedError, match="more than 100"):
        load_learned(file)


def test_the_config_names_a_learned_policy_by_its_file(tmp_path: Path) -> None:
    save_learned(tables(), tmp_path / "learned.npz")
    policy = policy_named("learned", {"file": str(tmp_path / "learned.npz")})
    assert policy.decide(Situation("ann", "a", "b", 1, user="ann")).migrate
    for parameters, said in (
        ({}, "needs the parameter file"),
        ({"file": 3.0}, "file 3.0 is not a text"),
        ({"file": "nowhere.npz"}, "nowhere.npz: No such file"),
    ):
        with pytest.raises(ValueError, match=said):
            policy_named("learned", parameters)
    with pytest.raises(ValueError, match="distance 'far' is not a number"):
        policy_named("threshold", {"distance": "far"})


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "policy.npz"
    save_learned(tables(), file)
    before = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        size = sum(one.file_size for one in archive.infolist())
    monkeypatch.setattr(module, "MOST_BYTES", size)
    save_learned(tables(), file)
    load_learned(file)
    monkeypatch.setattr(module, "MOST_BYTES", size - 1)
    with pytest.raises(LearnedError, match=f"too large to be read again: {size} bytes"):
        save_learned(tables(), file)
    assert file.read_bytes() == before
    with pytest.raises(LearnedError, match="unpacks to"):
        load_learned(file)


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, link = tmp_path / "policy.npz", tmp_path / "link.npz"
    save_learned(tables(), file)
    link.symlink_to(file)
    before = file.read_bytes()

    def full(stream: IO[bytes], **arrays: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as changed:
        changed.setattr(np, "savez_compressed", full)
        with pytest.raises(OSError, match="No space left"):
            save_learned(line(), file)
    assert file.read_bytes() == before
    save_learned(line(), link)
    assert isinstance(load_learned(file), LearnedLine)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link.npz", "policy.npz"]
    assert link.is_symlink()


def test_a_device_is_written_to_and_not_replaced() -> None:
    with pytest.raises(OSError, match="No space left"):
        save_learned(tables(), Path("/dev/full"))
    assert Path("/dev/full").is_char_device()
