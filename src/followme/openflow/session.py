"""Messages about the connection and the switch as a whole (7.3.1, 7.3.2, 7.3.8, 7.3.9, 7.4.4, 7.5)."""

from __future__ import annotations

from struct import Struct
from typing import ClassVar, Final

from . import constants as of
from .errors import OpenFlowError
from .message import HEADER, Message, need, unpackable
from .record import record

_ELEMENT: Final = Struct("!HH")
_ERROR: Final = Struct("!HH")
_FEATURES: Final = Struct("!QIBB2xII")
_CONFIG: Final = Struct("!HH")
_ROLE: Final = Struct("!I4xQ")


@record
class Hello(Message):
    """The first message of both sides (7.5.1).

    ``version`` is that of the header, the highest that the sender speaks; ``versions`` is what its version
    bitmap says, ascending, ``None`` if there is no bitmap.
    """

    type: ClassVar[int] = of.OFPT_HELLO
    version: int = of.OFP_VERSION
    versions: tuple[int, ...] | None = (of.OFP_VERSION,)

    def pack(self, xid: int) -> bytes:
        element = b""
        if self.versions is not None:
            if self.version < of.OFP_VERSION or any(not 0 <= version <= 255 for version in self.versions):
                raise unpackable(self.type, "a bitmap belongs to version 4 and later, its versions are bytes")
            words = max(self.versions, default=0) // 32 + 1
            bits = sum(1 << version for version in set(self.versions))
            bitmap = b"".join((bits >> 32 * word & 0xFFFFFFFF).to_bytes(4, "big") for word in range(words))
            element = _ELEMENT.pack(of.OFPHET_VERSIONBITMAP, 4 + len(bitmap)) + bitmap
            element += bytes(-len(element) % 8)
        if not 0 <= self.version <= 255:
            raise unpackable(self.type, f"version {self.version} has more than one byte")
        return HEADER.pack(self.version, self.type, of.OFP_HEADER_SIZE + len(element), xid) + element


@record
class ErrorMsg(Message):
    """What the peer refused (7.4.4): ``data`` holds the start of it, or a text for HELLO_FAILED."""

    type: ClassVar[int] = of.OFPT_ERROR
    error_type: int
    code: int
    data: bytes = b""

    @property
    def name(self) -> str:
        return of.error_name(self.error_type, self.code)

    def _body(self) -> bytes:
        return _ERROR.pack(self.error_type, self.code) + self.data


@record
class EchoRequest(Message):
    """Are you there? (7.5.2)"""

    type: ClassVar[int] = of.OFPT_ECHO_REQUEST
    data: bytes = b""

    def _body(self) -> bytes:
        return self.data


@record
class EchoReply(Message):
    """The answer, with the same data (7.5.3)."""

    type: ClassVar[int] = of.OFPT_ECHO_REPLY
    data: bytes = b""

    def _body(self) -> bytes:
        return self.data


@record
class FeaturesRequest(Message):
    """Who are you? (7.3.1)"""

    type: ClassVar[int] = of.OFPT_FEATURES_REQUEST


@record
class FeaturesReply(Message):
    """The switch: its identity and its size (7.3.1)."""

    type: ClassVar[int] = of.OFPT_FEATURES_REPLY
    datapath_id: int
    n_buffers: int = 0
    n_tables: int = 254
    auxiliary_id: int = 0
    capabilities: int = 0
    reserved: int = 0

    def _body(self) -> bytes:
        return _FEATURES.pack(
            self.datapath_id,
            self.n_buffers,
            self.n_tables,
            self.auxiliary_id,
            self.capabilities,
            self.reserved,
        )


@record
class GetConfigRequest(Message):
    """Ask for the switch configuration (7.3.2)."""

    type: ClassVar[int] = of.OFPT_GET_CONFIG_REQUEST


@record
class GetConfigReply(Message):
    """The switch configuration (7.3.2)."""

    type: ClassVar[int] = of.OFPT_GET_CONFIG_REPLY
    flags: int = of.OFPC_FRAG_NORMAL
    miss_send_len: int = of.OFPCML_NO_BUFFER

    def _body(self) -> bytes:
        return _CONFIG.pack(self.flags, self.miss_send_len)


@record
class SetConfig(Message):
    """Set the switch configuration (7.3.2)."""

    type: ClassVar[int] = of.OFPT_SET_CONFIG
    flags: int = of.OFPC_FRAG_NORMAL
    miss_send_len: int = of.OFPCML_NO_BUFFER

    def _body(self) -> bytes:
        return _CONFIG.pack(self.flags, self.miss_send_len)


@record
class BarrierRequest(Message):
    """Answer when all before this is done (7.3.8)."""

    type: ClassVar[int] = of.OFPT_BARRIER_REQUEST


@record
class BarrierReply(Message):
    """All before the request with this xid is done (7.3.8)."""

    type: ClassVar[int] = of.OFPT_BARRIER_REPLY


@record
class RoleRequest(Message):
    """Ask for a role among several controllers (6.3.4, 7.3.9).

    To become master or slave takes a ``generation_id`` (64 bits, compared as they wrap around) that is not older
    than the newest that the switch has seen, else it answers ``OFPET_ROLE_REQUEST_FAILED/OFPRRFC_STALE``. A slave's
    flow-mods and packet-outs are answered by ``OFPET_BAD_REQUEST/OFPBRC_IS_SLAVE``.
    """

    type: ClassVar[int] = of.OFPT_ROLE_REQUEST
    role: int = of.OFPCR_ROLE_NOCHANGE
    generation_id: int = 0

    def _body(self) -> bytes:
        return _ROLE.pack(self.role, self.generation_id)


@record
class RoleReply(Message):
    """The role that this controller has (7.3.9), and the newest generation; 2**64 - 1 if there was none yet."""

    type: ClassVar[int] = of.OFPT_ROLE_REPLY
    role: int
    generation_id: int = 0

    def _body(self) -> bytes:
        return _ROLE.pack(self.role, self.generation_id)


def parse_hello(data: bytes) -> Hello:
    """Any version's HELLO. Unknown elements are skipped (7.5.1); before 1.3 the body has no meaning."""
    version = data[0]
    if version < of.OFP_VERSION:
        return Hello(version, None)
    versions: tuple[int, ...] | None = None
    offset, end = of.OFP_HEADER_SIZE, len(data)
    while offset < end:
        if end - offset < 4:
            raise OpenFlowError("hello element is cut off", offset=offset)
        kind, length = _ELEMENT.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            raise OpenFlowError(f"hello element length {length} is wrong", offset=offset)
        if kind == of.OFPHET_VERSIONBITMAP:
            if length % 4:
                raise OpenFlowError("version bitmap is not made of 32-bit words", offset=offset)
            versions = tuple(_bitmap_versions(data[offset + 4 : offset + length]))
        offset += length + -length % 8  # the length leaves out the padding; behind the last it may be missing
    return Hello(version, versions)


def _bitmap_versions(bitmap: bytes) -> list[int]:
    # versions have one byte: what lies beyond the 8th word can be no version
    words = [int.from_bytes(bitmap[i : i + 4], "big") for i in range(0, min(len(bitmap), 32), 4)]
    return [32 * i + bit for i, word in enumerate(words) for bit in range(32) if word >> bit & 1]


def parse_error(data: bytes) -> ErrorMsg:
    need(data, 12)
    error_type, code = _ERROR.unpack_from(data, 8)
    return ErrorMsg(error_type, code, data[12:])


def parse_features_reply(data: bytes) -> FeaturesReply:
    need(data, 32, exactly=True)
    return FeaturesReply(*_FEATURES.unpack_from(data, 8))


def parse_get_config_reply(data: bytes) -> GetConfigReply:
    need(data, 12, exactly=True)
    return GetConfigReply(*_CONFIG.unpack_from(data, 8))


def parse_set_config(data: bytes) -> SetConfig:
    need(data, 12, exactly=True)
    return SetConfig(*_CONFIG.unpack_from(data, 8))


def parse_role_request(data: bytes) -> RoleRequest:
    need(data, 24, exactly=True)
    return RoleRequest(*_ROLE.unpack_from(data, 8))


def parse_role_reply(data: bytes) -> RoleReply:
    need(data, 24, exactly=True)
    return RoleReply(*_ROLE.unpack_from(data, 8))
