"""The one exception of the LISP library."""

from __future__ import annotations


class LispError(ValueError):
    """Bytes that are not the LISP message they claim to be, or fields that fit in no message.

    ``what`` says what is wrong, ``field`` in which field, ``offset`` at which octet of the LISP message
    (``None`` while encoding, where there are no octets yet).
    """

    def __init__(self, what: str, *, field: str = "", offset: int | None = None) -> None:
        super().__init__(what, field, offset)
        self.what = what
        self.field = field
        self.offset = offset

    def __str__(self) -> str:
        where = self.field
        if self.offset is not None:
            where += f"{' ' if where else ''}at octet {self.offset}"
        return f"{where}: {self.what}" if where else self.what


def need(data: bytes, offset: int, count: int, field: str) -> None:
    """``LispError`` unless ``count`` octets are there from ``offset`` on."""
    left = len(data) - offset
    if left < count:
        raise LispError(f"{count} octets needed, {max(left, 0)} left", field=field, offset=offset)


def finished(data: bytes, offset: int, field: str) -> None:
    """``LispError`` if anything follows the message: what no field describes, nobody meant."""
    if len(data) != offset:
        raise LispError(f"{len(data) - offset} octets after the end of the message", field=field, offset=offset)


def within(value: int, bits: int, field: str) -> int:
    """``value``, if it is an unsigned number of ``bits`` bits; else ``LispError``."""
    if not 0 <= value < 1 << bits:
        raise LispError(f"{value} does not fit {bits} bits", field=field)
    return value


def exactly(value: bytes, octets: int, field: str) -> bytes:
    """``value``, if it has ``octets`` octets; else ``LispError``."""
    if len(value) != octets:
        raise LispError(f"{len(value)} octets where there are {octets}", field=field)
    return value
