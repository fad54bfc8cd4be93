"""Frames of orders and answers as compact JSON: ``[epoch, [order, ...]]`` and ``[epoch, [answer, ...]]``.

``epoch`` is that of the sender's lease (``lease.py``). Each order or answer is a list, its kind first.
Whatever comes in, reading raises nothing but ``MessageError``, and takes no more than ``MAX_FRAME`` octets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any, Final

import orjson

from .messages import (
    Aborted,
    Accepted,
    Answer,
    Attach,
    Denied,
    Flipped,
    Held,
    Holds,
    Left,
    Order,
    Prepare,
    Quiet,
    Ready,
    Refused,
    Released,
    Reserve,
    Reserved,
    Told,
    Update,
)
from .nouns import (
    NounError,
    Place,
    address,
    card_json,
    card_of,
    mac_of,
    mapping_of,
    mapping_text,
    name,
    number,
    row,
)

MAX_FRAME: Final = 512 << 10
MAX_ORDERS: Final = 256
MAX_NETWORKS: Final = 1024
"""In one message: of a list of networks."""
MAX_REASON: Final = 300
_TOO_MUCH: Final = b'["refused","too much for one frame",true]'
_MIGRATION: Final = re.compile(r"[-_A-Za-z0-9]{1,64}|attach [0-9]{1,16}")
"""Hosts' ids, and what home calls a move that an Attach has begun."""


class MessageError(Exception):
    """These octets are not a frame; the text says why."""


def encode_orders(epoch: int, orders: Sequence[Order]) -> bytes:
    return b"[%d,[%b]]" % (epoch, b",".join([_text(order) for order in orders]))


def decode_orders(data: bytes) -> tuple[int, list[Order]]:
    """Raises ``MessageError``."""
    return _frame(data, _ORDERS)


def encode_answers(epoch: int, answers: Sequence[Answer]) -> bytes:
    """What a frame cannot hold is refused in it: lists of networks are long. It comes again, to be answered the
    same."""
    data = orjson.dumps([epoch, [_WRITE[type(answer)](answer) for answer in answers]])
    if len(data) <= MAX_FRAME:
        return data
    room = MAX_FRAME - len(b"[%d,[]]" % epoch)
    least = len(_TOO_MUCH) + 1
    texts: list[bytes] = []
    for left, answer in zip(range(len(answers) - 1, -1, -1), answers, strict=True):
        text = orjson.dumps(_WRITE[type(answer)](answer))
        if len(text) + 1 + left * least > room and len(text) > len(_TOO_MUCH):
            text = _TOO_MUCH
        room -= len(text) + 1
        texts.append(text)
    return b"[%d,[%b]]" % (epoch, b",".join(texts))


def decode_answers(data: bytes) -> tuple[int, list[Answer]]:
    """Raises ``MessageError``."""
    return _frame(data, _ANSWERS)


def order_size(order: Order) -> int:
    """Octets that the order takes in a frame, its comma included."""
    return len(_text(order)) + 1


def _text(order: Order) -> bytes:
    if isinstance(order, Update):
        rest = orjson.dumps([order.networks, order.settled, order.told])
        return b'["update",%b,%b' % (mapping_text(order.mapping), rest[1:])
    if isinstance(order, Holds):
        return b'["holds",%b,%b]' % (mapping_text(order.mapping), orjson.dumps(dict(order.held)))
    return orjson.dumps(_WRITE[type(order)](order))


def _words(reason: str) -> str:
    """Bounded; what cannot be written as UTF-8 (in a file's name) as question marks."""
    return reason[:MAX_REASON].encode(errors="replace").decode()


def _frame(data: bytes, readers: Mapping[str, Callable[[Any], Any]]) -> tuple[int, list[Any]]:
    if len(data) > MAX_FRAME:
        raise MessageError(f"a frame of {len(data)} octets; {MAX_FRAME} are the most")
    try:
        epoch, items = row(orjson.loads(data), 2)
        if type(items) is not list or len(items) > MAX_ORDERS:
            raise MessageError(f"a frame holds a list of at most {MAX_ORDERS}")
        return number(epoch), [_read(item, readers) for item in items]
    except NounError as error:
        raise MessageError(str(error)) from None
    except (ValueError, RecursionError):
        raise MessageError("a frame is not JSON") from None


def _read(item: Any, readers: Mapping[str, Callable[[Any], Any]]) -> Any:
    if type(item) is not list or not item or type(item[0]) is not str:
        raise MessageError("an order or answer is a list, its kind first")
    reader = readers.get(item[0])
    if reader is None:
        raise MessageError("an order or answer of a kind that is not known")
    return reader(item)


def _reason(value: Any) -> str:
    """People read it, in a log: what would not be seen there as it is becomes question marks."""
    if type(value) is not str or len(value) > MAX_REASON:
        raise NounError("a reason is expected, in few words")
    return value if value.isprintable() else "".join([one if one.isprintable() else "?" for one in value])


def _migration(value: Any) -> str:
    if type(value) is not str or not _MIGRATION.fullmatch(value):
        raise NounError("a migration's id is expected")
    return value


def _networks(value: Any) -> tuple[str, ...]:
    if type(value) is not list or len(value) > MAX_NETWORKS:
        raise NounError("a list of networks is expected")
    return tuple([name(one) for one in value])


def _told(value: Any) -> dict[str, int]:
    if type(value) is not dict or len(value) > MAX_NETWORKS:
        raise NounError("networks with versions are expected")
    return {name(network): number(version) for network, version in value.items()}


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise NounError("true or false is expected")
    return value


def _update(item: list[Any]) -> Update:
    _, mapping, networks, settled, told = row(item, 5)
    return Update(mapping_of(mapping), _networks(networks), _flag(settled), _networks(told))


def _prepare(item: list[Any]) -> Prepare:
    _, identifier, network, migration, version = row(item, 5)
    return Prepare(address(identifier), name(network), _migration(migration), number(version))


def _reserve(item: list[Any]) -> Reserve:
    _, card, network, version = row(item, 4)
    return Reserve(card_of(card), name(network), number(version))


def _ready(item: list[Any]) -> Ready:
    _, identifier, migration, version = row(item, 4)
    return Ready(address(identifier), _migration(migration), number(version))


def _denied(item: list[Any]) -> Denied:
    _, identifier, migration, reason = row(item, 4)
    return Denied(address(identifier), _migration(migration), _reason(reason))


def _phase(kind: Callable[[IPv4Address, str], Any]) -> Callable[[Any], Any]:
    def read(item: list[Any]) -> Any:
        _, identifier, migration = row(item, 3)
        return kind(address(identifier), _migration(migration))

    return read


def _attach(item: list[Any]) -> Attach:
    _, identifier, mac, network, claim = row(item, 5)
    return Attach(address(identifier), mac_of(mac), name(network), number(claim))


def _left(item: list[Any]) -> Left:
    return Left(address(row(item, 2)[1]))


def _tell(item: list[Any]) -> Told:
    _, identifier, told = row(item, 3)
    return Told(address(identifier), _told(told))


def _holds(item: list[Any]) -> Holds:
    _, mapping, held = row(item, 3)
    return Holds(mapping_of(mapping), _told(held))


def _quiet(item: list[Any]) -> Quiet:
    _, identifier, network, locator = row(item, 4)
    return Quiet(address(identifier), Place(name(network), address(locator)))


_ORDERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "prepare": _prepare, "reserve": _reserve, "update": _update, "ready": _ready, "denied": _denied,
    "flipped": _phase(Flipped), "released": _phase(Released), "aborted": _phase(Aborted),
    "attach": _attach, "left": _left, "told": _tell, "holds": _holds, "quiet": _quiet,
}  # fmt: skip

_ANSWERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "accepted": lambda item: Accepted(number(row(item, 2)[1])),
    "refused": lambda item: Refused(_reason(row(item, 3)[1]), _flag(item[2])),
    "reserved": lambda item: Reserved(address(row(item, 2)[1])),
    "held": lambda item: Held(number(row(item, 3)[1]), _told(item[2])),
}

_WRITE: Final[Mapping[type, Callable[[Any], list[Any]]]] = {
    Prepare: lambda order: ["prepare", int(order.identifier), order.network, order.migration, order.version],
    Reserve: lambda order: ["reserve", card_json(order.card), order.network, order.version],
    Ready: lambda order: ["ready", int(order.identifier), order.migration, order.version],
    Denied: lambda order: ["denied", int(order.identifier), order.migration, _words(order.reason)],
    Flipped: lambda order: ["flipped", int(order.identifier), order.migration],
    Released: lambda order: ["released", int(order.identifier), order.migration],
    Aborted: lambda order: ["aborted", int(order.identifier), order.migration],
    Attach: lambda order: ["attach", int(order.identifier), order.mac.hex(), order.network, order.claim],
    Left: lambda order: ["left", int(order.identifier)],
    Told: lambda order: ["told", int(order.identifier), dict(order.told)],
    Quiet: lambda order: ["quiet", int(order.identifier), order.place.network, int(order.place.locator)],
    Accepted: lambda answer: ["accepted", answer.version],
    Refused: lambda answer: ["refused", _words(answer.reason), answer.again],
    Reserved: lambda answer: ["reserved", int(answer.locator)],
    Held: lambda answer: ["held", answer.version, dict(answer.told)],
}
