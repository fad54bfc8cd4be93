"""``record``: the dataclass of values that are made for each packet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """A value class with slots, equality and a hash, which the type checker (alone) keeps from changing.

    ``@dataclass(frozen=True)`` stores every field by a call of ``object.__setattr__``: a PACKET_IN made
    so takes 4 times as long as one whose ``__init__`` assigns (bench/openflow_codec.py prints the ratio).
    mypy reports an assignment to a field of a record as it does for a frozen dataclass.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
