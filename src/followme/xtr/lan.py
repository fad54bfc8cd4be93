"""The LAN as the control plane sees it: who shows up there, and which watched EIDs packets go to."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from followme.lisp import EidPrefix
from followme.packets.arp import parse_arp
from followme.packets.errors import PacketError
from followme.system.netns import socket_in

from . import lanfilter
from .site import host

_ETH_P_ALL: Final = 3
_SO_ATTACH_FILTER: Final = 26
_OUTGOING: Final = 4
_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """``source`` was claimed by ``mac``; ``None`` where a frame claims nothing. ``target``: a packet's
    destination."""

    mac: bytes
    source: EidPrefix | None
    target: EidPrefix | None = None


def read_frame(frame: bytes, iid: int) -> Seen | None:
    """What a frame says about who is where; ``None`` if nothing. Never raises."""
    if len(frame) < 34:
        return None
    mac, ethertype = frame[6:12], frame[12:14]
    if ethertype == b"\x08\x06":
        try:
            arp = parse_arp(frame, 14)
        except PacketError:
            return None
        # A probe (RFC 5227) claims nothing yet; a sender other than the frame's speaks for somebody else.
        if arp.sha != mac or not any(arp.spa):
            return None
        return Seen(mac, host(iid, arp.spa))
    if ethertype == b"\x08\x00" and frame[14] >> 4 == 4:
        return Seen(mac, _claimable(host(iid, frame[26:30])), host(iid, frame[30:34]))
    if ethertype == b"\x86\xdd" and len(frame) >= 54 and frame[14] >> 4 == 6:
        source, target = host(iid, frame[22:38]), host(iid, frame[38:54])
        if frame[20] == 58 and len(frame) >= 78 and frame[54] == 136:
            return Seen(mac, _claimable(host(iid, frame[62:78])))
        return Seen(mac, _claimable(source), target)
    return None


def _claimable(eid: EidPrefix) -> EidPrefix | None:
    """The EID, unless it is unspecified, a group, or valid on its link only."""
    first = eid.address[0]
    if not any(eid.address) or (len(eid.address) == 4 and (first >= 224 or first == 127)):
        return None
    if len(eid.address) == 16 and (first == 0xFF or eid.address[:2] == b"\xfe\x80"):
        return None
    return eid


class LanSensor:
    """A packet socket on the LAN device behind the filter of ``lanfilter``."""

    def __init__(self, namespace: str | None, device: str, iid: int) -> None:
        self._iid = iid
        self.socket = socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self.socket.setblocking(False)
            self.filter([(0x06, 0, 0, 0)])
            self.socket.bind((device, _ETH_P_ALL))
        except BaseException:
            self.socket.close()
            raise

    def filter(self, code: list[lanfilter.Instruction]) -> None:
        """Let through what ``code`` says from now on. In one step: nothing slips through in between."""
        program = ctypes.create_string_buffer(lanfilter.packed(code))
        self.socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", len(code), ctypes.addressof(program))
        )

    def read(self, tell: Callable[[Seen], None]) -> None:
        """What has come, up to a bound: the rest is for the next turn."""
        for _ in range(_BATCH):
            try:
                frame, address = self.socket.recvfrom(lanfilter.SNAP)
            except BlockingIOError:
                return
            except OSError:
                return  # the device went down; it may come back
            if address[2] == _OUTGOING:
                continue
            seen = read_frame(frame, self._iid)
            if seen is not None:
                tell(seen)

    def close(self) -> None:
        self.socket.close()
