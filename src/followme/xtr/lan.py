"""The LAN as the control plane sees it: who shows up there, and which watched EIDs packets go to."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from followme.lisp import EidPrefix
from followme.packets.arp import parse_arp
from followme.packets.errors import PacketError
from followme.system.netns import socket_in
from followme.xtr.errors import DataPlaneError

from . import lanfilter
from .site import host

_ETH_P_ALL: Final = 3
_OUTGOING: Final = 4
_BATCH: Final = 64
_SHARES: Final = (1.0, 0.5, 0.25, 0.125)
_AGAIN_S: Final = 5.0

log = logging.getLogger(__name__)


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
        self._iid, self._device = iid, device
        self._interest: lanfilter.Interest | None = None
        self._refused_until = float("-inf")
        self._warned = False
        self.socket = socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self.socket.setblocking(False)
            lanfilter.attach(self.socket, [(0x06, 0, 0, 0)])
            self.bind()
        except OSError as error:
            self.socket.close()
            raise DataPlaneError(f"cannot watch the LAN device {device} in {namespace or 'this namespace'}: "
                                 f"{error.strerror}; make it, or write its name in the config") from None

    def bind(self) -> None:
        """Listen at the device of that name, which may be a new one. Raises ``OSError``."""
        self.socket.bind((self._device, _ETH_P_ALL))

    def filter(self, interest: lanfilter.Interest, now: float) -> None:
        """Let through what is of interest from now on. In one step: nothing slips through in between.

        Where the kernel has not the memory for all of it (``net.core.optmem_max``) it gets a smaller program, which
        lets more through; where it takes none the last one stays, and after a while another is tried.
        """
        if interest == self._interest or now < self._refused_until:
            return
        problem = self._attached(interest, 1.0)
        if problem:
            # The old program counts until the new one is there: so first the smallest takes its place.
            smallest = self._attached(interest, 0.0)
            share = next((share for share in _SHARES if not self._attached(interest, share)), 0.0)
            if smallest and not share:
                self._refused_until = now + _AGAIN_S
            if share < 1.0 and not self._warned:
                self._warned = True
                log.warning("the kernel has no room for the LAN's filter (%s): it knows fewer of those here, so "
                            "more packets come to us; raise net.core.optmem_max", problem)  # fmt: skip
        if now >= self._refused_until:
            self._interest = interest

    def _attached(self, interest: lanfilter.Interest, share: float) -> str:
        """Attach the program; "" or why the kernel does not take it."""
        try:
            lanfilter.attach(self.socket, lanfilter.program(interest, share))
        except OSError as error:
            return error.strerror or str(error)
        return ""

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
