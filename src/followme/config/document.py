"""YAML files as all our daemons read them: bounded, no aliases, no key twice, every mistake in one line."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

MAX_FILE_BYTES = 4 << 20
MAX_DEPTH = 32
"""Of mappings and lists in each other; no file of ours has half as many."""

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


class ConfigError(Exception):
    """One or more mistakes in a config file; ``problems`` has a line for each: file, key, value, what to do."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class Section(BaseModel):
    """A mapping of a file: unknown keys are refused, so a typing error never becomes a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


S = TypeVar("S", bound=BaseModel)
Entry = tuple[str, object, str]
"""What a value is, the value, and its key in the file."""


def read(path: Path, first_key: str, page: str) -> dict[str, Any]:
    """The file's mapping; ``ConfigError`` if it cannot be read or is none. ``first_key`` is one that it must
    have, ``page`` the docs' page that explains the keys: both only help in messages."""
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError([f"{path}: larger than {MAX_FILE_BYTES} bytes; this is not a config file"])
    try:
        data = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        # Not the error's own text: it shows the lines around, and a key may stand there.
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f"line {mark.line + 1}: "
        what = getattr(error, "problem", None) or "not UTF-8, or a number that is far too long"
        raise ConfigError([f"{path}: {line}not valid YAML: {what}"]) from None
    if not isinstance(data, dict):
        raise ConfigError([f"{path}: must be a mapping with the key '{first_key}'; see {page}"])
    return data


def validate(model: type[S], data: dict[str, Any], name: str, page: str, *, secrets: bool = False) -> S:
    """``data`` as ``model``; ``ConfigError`` has a line for each mistake, ``name`` is the file's in them. With
    ``secrets`` in the file no value is shown that may be one, or stands where one is meant."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError([_line(name, problem, page, secrets) for problem in error.errors()]) from None


def refuse(name: str, problems: Iterable[str]) -> None:
    """``ConfigError`` with all ``problems`` of the file ``name``, if there are any."""
    lines = [f"{name}: {problem}" for problem in problems]
    if lines:
        raise ConfigError(lines)


def twice(entries: Iterable[Entry]) -> Iterator[str]:
    """A line for each value that stands at another key already, as the same thing."""
    keys: dict[tuple[str, object], str] = {}
    for what, value, key in entries:
        first = keys.setdefault((what, value), key)
        if first != key:
            yield f"{key}: {what} {value} stands already at {first}"


def short(value: object) -> str:
    """A value as a message shows it: 60 characters at the most."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a number that is far too long"
    return text if len(text) <= 60 else text[:57] + "..."


def _line(name: str, problem: Any, page: str, secrets: bool) -> str:
    key = ""
    for part in problem["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    value, kind = problem["input"], problem["type"]
    secret = any(isinstance(part, str) and part in ("key", "keys") for part in problem["loc"])
    full = isinstance(value, (dict, list, tuple)) and bool(value)
    userinfo = isinstance(value, str) and "@" in value  # a URL's, with a password perhaps
    hidden = (secrets and (secret or kind == "extra_forbidden" or full)) or userinfo
    if kind == "extra_forbidden":
        return f"{name}: {key}: unknown key{'' if hidden else f' (value {short(value)})'}; see {page} for the keys"
    if kind == "missing":
        return f"{name}: {key}: missing; see {page}"
    message = problem["msg"].removeprefix("Value error, ")
    if hidden and secret and kind == "value_error":  # the words of a field's own check, which may quote the value
        message = "is not a value that may stand here"
    return f"{name}: {key}: {'' if hidden else f'{short(value)}: '}{message}"


class _Loader(yaml.SafeLoader):
    """Without aliases: a few lines of them stand for more data than there is memory. And without depth, which
    would be as much of Python's stack."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise self._refused("aliases (*) are not taken here; write the value out")
        if self.depth > MAX_DEPTH:
            raise self._refused(f"nested more than {MAX_DEPTH} deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refused(self, why: str) -> yaml.MarkedYAMLError:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return yaml.MarkedYAMLError(None, None, why, mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        None, None, f"key {short(key.value)} stands twice; the second would win", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)
