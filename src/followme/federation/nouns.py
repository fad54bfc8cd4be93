"""What domains say about a node: its card, its places, and the mapping that its home signs.

A ``Mapping`` is the one value that all roles hold; home raises its version by at least one with each change,
and the highest version wins everywhere. Its phases are those of ``continuity.binding``.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Any, Final

import orjson

from followme.domain import Mac, NodeKind

MAX_NAME: Final = 64
_NAME: Final = re.compile(r"[-._A-Za-z0-9]{1,64}")
MAX_OLD: Final = 16
"""Old places that a mapping may list."""
MAX_VERSION: Final = (1 << 53) - 1
"""JSON numbers are exact up to here."""
_MAX_SIGNATURE: Final = 64
_SIGNED_AS: Final = b"followme mapping 1 "
_MAX_TEXTS: Final = 1024


class NounError(Exception):
    """A record or a message holds something that is no mapping; the text says what."""


@dataclass(frozen=True, slots=True)
class Card:
    """A node as other domains know it. ``home`` is a network's name, ``address`` what it is configured with."""

    name: str
    kind: NodeKind
    mac: Mac
    identifier: IPv4Address
    address: IPv4Address
    home: str


@dataclass(frozen=True, slots=True)
class Place:
    """A network, and the address under which the core reaches the node there."""

    network: str
    locator: IPv4Address


@dataclass(frozen=True, slots=True)
class Mapping:
    """Identifier -> locator in its phases, signed by the key of the home's domain: who was told it may hand it on,
    and nobody else can make one."""

    card: Card
    version: int
    here: Place
    arriving: Place | None = None
    leaving: Place | None = None
    old: tuple[Place, ...] = ()
    signature: bytes = b""

    @property
    def identifier(self) -> IPv4Address:
        return self.card.identifier

    @property
    def settled_home(self) -> bool:
        """The node goes by its identifier alone: nobody needs this mapping."""
        return (self.arriving is None and self.leaving is None and not self.old
                and self.here.locator == self.card.identifier)  # fmt: skip

    @property
    def places(self) -> tuple[Place, ...]:
        """All that it lists: ``here`` first, then ``arriving`` and ``leaving`` if they are, then ``old``."""
        return (self.here, *((self.arriving,) if self.arriving else ()),
                *((self.leaving,) if self.leaving else ()), *self.old)  # fmt: skip

    def lists(self, network: str, locator: IPv4Address) -> bool:
        return any(place.locator == locator and place.network == network for place in self.places)

    def canonical(self) -> bytes:
        """The octets that are signed: equal for equal mappings, different for different ones."""
        return _SIGNED_AS + orjson.dumps(_values(self))


_texts: dict[int, tuple[Mapping, bytes]] = {}
"""By ``id``, with the mapping itself, so that no other can have it."""


def card_json(card: Card) -> list[Any]:
    return [card.name, card.kind.value, card.mac.hex(), int(card.identifier), int(card.address), card.home]


def mapping_text(mapping: Mapping) -> bytes:
    """JSON for messages and records; ``mapping_of`` reads it. Kept: one mapping is sent to many, and written."""
    kept = _texts.get(id(mapping))
    if kept is not None and kept[0] is mapping:
        return kept[1]
    text = orjson.dumps([*_values(mapping), b64encode(mapping.signature).decode()])
    if len(_texts) >= _MAX_TEXTS:
        _texts.clear()
    _texts[id(mapping)] = mapping, text
    return text


def signed(card: Card, version: int, after: Mapping, sign: Callable[[bytes], bytes]) -> Mapping:
    """``after``'s places as that version of that card's mapping."""
    mapping = Mapping(card, version, after.here, after.arriving, after.leaving, after.old)
    return Mapping(card, version, after.here, after.arriving, after.leaving, after.old, sign(mapping.canonical()))


def _values(mapping: Mapping) -> list[Any]:
    old: list[Any] = []
    for place in mapping.old:
        old += (place.network, int(place.locator))
    return [
        card_json(mapping.card), mapping.version, place_json(mapping.here),
        place_json(mapping.arriving) if mapping.arriving else None,
        place_json(mapping.leaving) if mapping.leaving else None, old,
    ]  # fmt: skip


def place_json(place: Place) -> list[Any]:
    return [place.network, int(place.locator)]


def mapping_of(value: Any) -> Mapping:
    """From JSON of anybody; ``NounError`` if it is not a mapping within the bounds."""
    card, version, here, arriving, leaving, old, signature = row(value, 7)
    if not isinstance(old, list) or len(old) > 2 * MAX_OLD or len(old) % 2:
        raise NounError("a mapping's old places are not a short list")
    return Mapping(
        card_of(card), number(version), place_of(here),
        None if arriving is None else place_of(arriving), None if leaving is None else place_of(leaving),
        tuple([Place(name(old[at]), address(old[at + 1])) for at in range(0, len(old), 2)]), _signature(signature),
    )  # fmt: skip


def card_of(value: Any) -> Card:
    try:
        return _card(*row(value, 6))
    except (TypeError, ValueError):  # TypeError: a list is among them
        raise NounError("a card's kind is not known") from None


@lru_cache(maxsize=4096, typed=True)
def _card(node: Any, kind: Any, mac: Any, identifier: Any, own: Any, home: Any) -> Card:
    """Kept: who moves is told of several times."""
    return Card(name(node), NodeKind(kind), mac_of(mac), address(identifier), address(own), name(home))


def place_of(value: Any) -> Place:
    network, locator = row(value, 2)
    return Place(name(network), address(locator))


def row(value: Any, length: int) -> Sequence[Any]:
    if type(value) is not list or len(value) != length:
        raise NounError(f"a list of {length} values is expected")
    return value


def name(value: Any) -> str:
    if type(value) is not str or not _NAME.fullmatch(value):
        raise NounError(f"a name is expected: 1 to {MAX_NAME} letters, digits, -, . or _")
    return value


def number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_VERSION:
        raise NounError("a number is expected, from 0")
    return value


def address(value: Any) -> IPv4Address:
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise NounError("an IPv4 address is expected, as a number")
    return IPv4Address(value)


def mac_of(value: Any) -> Mac:
    try:
        mac = bytes.fromhex(value) if type(value) is str and len(value) == 12 else b""
    except ValueError:
        mac = b""
    if len(mac) != 6:
        raise NounError("a MAC address is expected, as 12 hexadecimal digits")
    return mac


def _signature(value: Any) -> bytes:
    if type(value) is not str or len(value) > 2 * _MAX_SIGNATURE:
        raise NounError("a signature is expected")
    try:
        signature = b64decode(value, validate=True)
    except ValueError:
        raise NounError("a signature is expected, in base64") from None
    if len(signature) > _MAX_SIGNATURE:
        raise NounError("a signature is too long")
    return signature
