"""DHCP on the wire: which frames are a client's, and where a server's answer goes (RFC 2131 section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Final

from .dhcp import (
    BOOTREPLY,
    BOOTREQUEST,
    BROADCAST_FLAG,
    OPTION_CLIENT_ID,
    OPTION_LEASE_TIME,
    OPTION_MESSAGE_TYPE,
    OPTION_SERVER_ID,
    ZERO,
    Dhcp,
    MessageType,
    pack_dhcp,
    parse_dhcp,
)
from .errors import PacketError
from .ethernet import BROADCAST, ETHERTYPE_IPV4, parse_ethernet
from .ipv4 import PROTO_UDP, parse_ipv4
from .udp import parse_udp, udp_frame

CLIENT_PORT: Final = 68
SERVER_PORT: Final = 67

_EVERYONE = IPv4Address("255.255.255.255")
_CLIENT_TO_SERVER = bytes((0, CLIENT_PORT, 0, SERVER_PORT))


def is_client_frame(frame: bytes) -> bool:
    """Whether ``frame`` is UDP from port 68 to 67 over IPv4; only the headers are looked at. Never raises."""
    if len(frame) < 42:
        return False
    start = 14
    if frame[12:14] == b"\x81\x00":
        start = 18
    if frame[start - 2 : start] != b"\x08\x00" or frame[start] >> 4 != 4 or frame[start + 9] != PROTO_UDP:
        return False
    if frame[start + 6] & 0x1F or frame[start + 7]:  # a later fragment: what follows is no UDP header
        return False
    ports = start + (frame[start] & 0x0F) * 4
    return frame[ports : ports + 4] == _CLIENT_TO_SERVER


def parse_client_frame(frame: bytes) -> Dhcp:
    """The client's message in ``frame``; ``PacketError`` if it holds none, down to the checksums."""
    ethernet = parse_ethernet(frame)
    if ethernet.ethertype != ETHERTYPE_IPV4:
        raise PacketError(f"ethertype {ethernet.ethertype:#06x} carries no DHCP")
    packet = parse_ipv4(frame, ethernet.payload_offset)
    if packet.proto != PROTO_UDP or packet.is_fragment:
        raise PacketError("DHCP comes in whole UDP datagrams")
    datagram = parse_udp(packet.payload, addresses=(packet.src, packet.dst))
    if (datagram.src_port, datagram.dst_port) != (CLIENT_PORT, SERVER_PORT):
        raise PacketError(f"UDP {datagram.src_port} to {datagram.dst_port} is no DHCP client's")
    message = parse_dhcp(datagram.payload)
    if message.op != BOOTREQUEST:
        raise PacketError("DHCP reply on a client's ports")
    return message


def client_frame(message: Dhcp, *, src: IPv4Address = ZERO, dst: IPv4Address = _EVERYONE) -> bytes:
    """The broadcast frame in which a client sends ``message`` (RFC 2131 section 4.4.1)."""
    return udp_frame(BROADCAST, message.chaddr, src, dst, CLIENT_PORT, SERVER_PORT, pack_dhcp(message))


def answer(
    request: Dhcp,
    kind: MessageType,
    *,
    server: IPv4Address,
    yiaddr: IPv4Address = ZERO,
    lease_s: int | None = None,
    options: Mapping[int, bytes] | None = None,
) -> Dhcp:
    """A server's message to the client of ``request``, its fields as RFC 2131 table 3 says.

    ``server`` is the server identifier, ``lease_s`` whole seconds. The client's identifier is sent back
    (RFC 6842). ``PacketError`` if ``kind`` is no server's message or ``lease_s`` does not fit.
    """
    if kind not in (MessageType.OFFER, MessageType.ACK, MessageType.NAK):
        raise PacketError(f"{kind.name} is not a DHCP server's message")
    chosen = {OPTION_MESSAGE_TYPE: bytes((kind,)), OPTION_SERVER_ID: server.packed}
    if lease_s is not None:
        if not 0 <= lease_s < 2**32:
            raise PacketError(f"lease of {lease_s} s does not fit in 32 bits")
        chosen[OPTION_LEASE_TIME] = lease_s.to_bytes(4, "big")
    if request.client_id is not None:
        chosen[OPTION_CLIENT_ID] = request.client_id
    flags = request.flags
    if kind is MessageType.NAK and request.giaddr != ZERO:
        # The client's address is wrong where it is, so the relay must broadcast (RFC 2131 section 4.3.2).
        flags |= BROADCAST_FLAG
    return Dhcp(
        op=BOOTREPLY,
        xid=request.xid,
        chaddr=request.chaddr,
        flags=flags,
        ciaddr=request.ciaddr if kind is MessageType.ACK else ZERO,
        yiaddr=ZERO if kind is MessageType.NAK else yiaddr,
        giaddr=request.giaddr,
        options={**chosen, **(options or {})},
    )


def reply_frame(
    reply: Dhcp,
    *,
    server_mac: bytes,
    server: IPv4Address,
    ciaddr: IPv4Address | None = None,
    relay_mac: bytes | None = None,
) -> bytes:
    """The Ethernet frame that carries a server's ``reply``, addressed as RFC 2131 section 4.1 says.

    In this order: to the relay agent (``giaddr``; then its ``relay_mac`` is needed, else ``PacketError``);
    a NAK to everyone; to the client's own address; to everyone if it asked for that; to ``yiaddr`` at its
    MAC. ``ciaddr`` is the request's, where the reply does not carry it (an offer does not).
    """
    own = reply.ciaddr if ciaddr is None else ciaddr
    port = CLIENT_PORT
    if reply.giaddr != ZERO:
        if relay_mac is None:
            raise PacketError(f"DHCP reply for relay agent {reply.giaddr} without its MAC address")
        mac, dst, port = relay_mac, reply.giaddr, SERVER_PORT
    elif reply.message_type is MessageType.NAK:
        mac, dst = BROADCAST, _EVERYONE
    elif own != ZERO:
        mac, dst = reply.chaddr, own
    elif reply.broadcast or reply.yiaddr == ZERO:
        mac, dst = BROADCAST, _EVERYONE
    else:
        mac, dst = reply.chaddr, reply.yiaddr
    return udp_frame(mac, server_mac, server, dst, SERVER_PORT, port, pack_dhcp(reply))
