"""Addresses as AFI and octets (RFC 9301, 5.2), LCAF (RFC 8060) and EID-prefixes with an instance-ID."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from struct import Struct
from typing import Final, NamedTuple, TypeGuard

from .errors import LispError, need, within

AFI_NONE: Final = 0
AFI_IPV4: Final = 1
AFI_IPV6: Final = 2
AFI_LCAF: Final = 16387
LCAF_INSTANCE_ID: Final = 2
MAX_INSTANCE_ID: Final = 0xFFFFFF
"""The data plane carries 24 bits of instance-ID (RFC 9300, 5.3); the LCAF's 32 are not all usable."""

_AFI: Final = Struct("!H")
_LCAF: Final = Struct("!BBBBH")
_INSTANCE: Final = Struct("!IH")
_INSTANCE_PREFIX: Final = Struct("!HBBBBHIH")
_OCTETS: Final = {AFI_IPV4: 4, AFI_IPV6: 16}
# RFC 8060, 4.1 gives the IID mask-len a meaning only with AFI 0. Open Overlay Router sends 32, all of the
# instance-ID, with addresses too, and takes a Map-Notify with 0 for one of an EID that it has not.
_IID_MASK_LENGTH: Final = 32


def _mask(octets: int, length: int) -> int:
    return (1 << octets * 8) - (1 << octets * 8 - length)


MASKS: Final = {octets: tuple(_mask(octets, n) for n in range(octets * 8 + 1)) for octets in (4, 16)}


class EidPrefix(NamedTuple):
    """An EID-prefix in an instance: a tuple, so that it costs little to make, to hash and to look up.

    ``address`` is packed (4 or 16 octets) and has no bit set beyond ``length`` bits. ``iid`` is the
    instance-ID, 0 for the default instance, which goes on the wire without an LCAF.
    """

    iid: int
    address: bytes
    length: int

    @classmethod
    def of(cls, network: str | IPv4Network | IPv6Network | IPv4Address | IPv6Address, iid: int = 0) -> EidPrefix:
        """The prefix ``network`` (an address is a prefix of full length) in instance ``iid``.

        ``LispError`` for text that is no prefix, for set host bits, and for an instance-ID above 24 bits.
        """
        try:
            parsed = ip_network(network)
        except (ValueError, TypeError) as problem:
            raise LispError(str(problem), field="EID-prefix") from None
        return cls(within(iid, 24, "instance-ID"), parsed.network_address.packed, parsed.prefixlen)

    @property
    def network(self) -> IPv4Network | IPv6Network:
        if len(self.address) == 4:
            return IPv4Network((self.address, self.length))
        return IPv6Network((self.address, self.length))

    @property
    def host(self) -> bool:
        """Whether the prefix is of full length: one EID."""
        return self.length == len(self.address) * 8

    def covers(self, other: EidPrefix) -> bool:
        """Whether ``other`` is this prefix or a more specific one of the same instance and family."""
        octets = len(self.address)
        return (
            self.iid == other.iid
            and octets == len(other.address)
            and self.length <= other.length
            and int.from_bytes(other.address, "big") & MASKS[octets][self.length]
            == int.from_bytes(self.address, "big")
        )

    def __str__(self) -> str:
        return f"[{self.iid}]{self.network}" if self.iid else str(self.network)


@dataclass(frozen=True, slots=True)
class Lcaf:
    """A LISP Canonical Address (RFC 8060) that is not read here, kept so that it is sent on unchanged."""

    kind: int
    payload: bytes
    flags: int = 0
    reserved1: int = 0
    reserved2: int = 0

    def encode(self) -> bytes:
        """AFI 16387, the header and the payload."""
        if len(self.payload) > 0xFFFF:
            raise LispError(f"{len(self.payload)} octets of payload, at most 65535 fit", field="LCAF")
        head = _LCAF.pack(
            within(self.reserved1, 8, "LCAF Rsvd1"),
            within(self.flags, 8, "LCAF Flags"),
            within(self.kind, 8, "LCAF Type"),
            within(self.reserved2, 8, "LCAF Rsvd2"),
            len(self.payload),
        )
        return _AFI.pack(AFI_LCAF) + head + self.payload


@dataclass(frozen=True, slots=True)
class LcafEid:
    """An EID in an LCAF other than "instance-ID with an IP address"; ``length`` is the EID mask-len."""

    lcaf: Lcaf
    length: int = 0


Address = IPv4Address | IPv6Address | Lcaf | None
"""What a locator can be; ``None`` is AFI 0."""
Eid = EidPrefix | LcafEid


def is_rloc(address: Address) -> TypeGuard[IPv4Address | IPv6Address]:
    """Whether packets can be sent there from anywhere: an address of one host, and not of this host or link."""
    if isinstance(address, IPv4Address):
        number = int(address)
        first = number >> 24
        return first not in (0, 127) and not 224 <= first < 240 and number >> 16 != 0xA9FE and number != 0xFFFFFFFF
    if isinstance(address, IPv6Address):
        number = int(address)
        return number > 1 and number >> 120 != 0xFF and number >> 118 != 0xFE80 >> 6
    return False


def encode_address(address: Address) -> bytes:
    """The AFI and the address."""
    if address is None:
        return b"\0\0"
    if isinstance(address, Lcaf):
        return address.encode()
    return (b"\0\1" if address.version == 4 else b"\0\2") + address.packed


def decode_address(data: bytes, offset: int, field: str) -> tuple[Address, int]:
    """The address whose AFI is at ``offset``, and the offset behind it.

    ``LispError`` for an AFI whose length is not known and for an address cut short.
    """
    need(data, offset, 2, field)
    afi = data[offset] << 8 | data[offset + 1]
    offset += 2
    if afi == AFI_IPV4:
        need(data, offset, 4, field)
        return IPv4Address(data[offset : offset + 4]), offset + 4
    if afi == AFI_IPV6:
        need(data, offset, 16, field)
        return IPv6Address(data[offset : offset + 16]), offset + 16
    if afi == AFI_LCAF:
        return _decode_lcaf(data, offset, field)
    if afi == AFI_NONE:
        return None, offset
    raise LispError(f"AFI {afi} is not supported", field=field, offset=offset - 2)


def encode_eid(eid: Eid) -> bytes:
    """The AFI and the EID, without its mask-len, which stands elsewhere in each message."""
    if isinstance(eid, LcafEid):
        return eid.lcaf.encode()
    octets = len(eid.address)
    if octets not in MASKS or not 0 <= eid.length <= octets * 8:
        raise LispError(f"{octets} octets with a mask-len of {eid.length} are no prefix", field="EID-prefix")
    if int.from_bytes(eid.address, "big") & ~MASKS[octets][eid.length]:
        raise LispError(f"bits are set beyond the mask-len of {eid.length}", field="EID-prefix")
    afi = AFI_IPV4 if octets == 4 else AFI_IPV6
    if eid.iid == 0:
        return _AFI.pack(afi) + eid.address
    iid = within(eid.iid, 24, "instance-ID")
    head = _INSTANCE_PREFIX.pack(AFI_LCAF, 0, 0, LCAF_INSTANCE_ID, _IID_MASK_LENGTH, 6 + octets, iid, afi)
    return head + eid.address


def decode_eid(data: bytes, offset: int, length: int | None, field: str) -> tuple[Eid | None, int]:
    """The EID whose AFI is at ``offset``, and the offset behind it; ``None`` for AFI 0.

    ``length`` is the mask-len (``None``: an address without one, such as a Source-EID, is of full length).
    Host bits are cleared, as peers differ in whether they do it.
    """
    need(data, offset, 2, field)
    start = offset
    afi = data[offset] << 8 | data[offset + 1]
    offset += 2
    iid = 0
    if afi == AFI_LCAF:
        lcaf, end = _decode_lcaf(data, offset, field)
        inner = _instance(lcaf)
        if inner is None:
            return LcafEid(lcaf, length or 0), end
        iid, address = inner
        if iid > MAX_INSTANCE_ID:
            raise LispError(f"instance-ID {iid} does not fit 24 bits", field=field, offset=start)
    elif afi in _OCTETS:
        octets = _OCTETS[afi]
        need(data, offset, octets, field)
        end = offset + octets
        address = data[offset:end]
    elif afi == AFI_NONE:
        return None, offset
    else:
        raise LispError(f"AFI {afi} is not supported", field=field, offset=start)
    octets = len(address)
    if length is None:
        return EidPrefix(iid, address, octets * 8), end
    if length > octets * 8:
        raise LispError(f"mask-len {length} of an address of {octets * 8} bits", field=field, offset=start)
    number = int.from_bytes(address, "big") & MASKS[octets][length]
    return EidPrefix(iid, number.to_bytes(octets, "big"), length), end


def _decode_lcaf(data: bytes, offset: int, field: str) -> tuple[Lcaf, int]:
    need(data, offset, 6, field)
    reserved1, flags, kind, reserved2, size = _LCAF.unpack_from(data, offset)
    offset += 6
    need(data, offset, size, f"{field}, LCAF of type {kind}")
    return Lcaf(kind, data[offset : offset + size], flags, reserved1, reserved2), offset + size


def _instance(lcaf: Lcaf) -> tuple[int, bytes] | None:
    """The instance-ID and the address of an Instance ID LCAF (RFC 8060, 4.1) with an IP address in it.

    The IID mask-len means something only with AFI 0 (a range of instances), which is not read here.
    """
    if lcaf.kind != LCAF_INSTANCE_ID or len(lcaf.payload) < 6:
        return None
    iid, afi = _INSTANCE.unpack_from(lcaf.payload)
    if _OCTETS.get(afi) != len(lcaf.payload) - 6:
        return None
    return iid, lcaf.payload[6:]
