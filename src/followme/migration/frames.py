"""Frames that wait in a tap's queue: see whether there are any, take them out, send them on elsewhere."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct

from followme.migration.host import Host
from followme.system.netns import socket_in

_TUNGETIFF = 0x800454D2
_TUNGETVNETHDRSZ = 0x800454D7
_IFF_VNET_HDR = 0x4000
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_VNET_HEADER = 10
_BIGGEST_FRAME = 70_000
_PLUG_ETHERTYPE = 0x88B5  # IEEE 802 local experimental 1: every system drops it unread


class TapQueue:
    """Our own copy of the descriptor that QEMU has of a tap; the device lives while either is open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    @property
    def waiting(self) -> bool:
        """Whether a frame waits that nobody has read."""
        return any(mask & select.POLLIN for _, mask in self._poll.poll(0))

    def drain(self) -> list[bytes]:
        """All waiting frames, each behind a 10-byte virtio header; they are gone from the queue."""
        os.set_blocking(self._descriptor, False)
        interface = fcntl.ioctl(self._descriptor, _TUNGETIFF, bytes(40))
        size = 0
        if struct.unpack_from("=H", interface, 16)[0] & _IFF_VNET_HDR:
            size = struct.unpack("=i", fcntl.ioctl(self._descriptor, _TUNGETVNETHDRSZ, bytes(4)))[0]
        frames = []
        while self.waiting:
            try:
                data = os.read(self._descriptor, _BIGGEST_FRAME)
            except BlockingIOError:  # QEMU was quicker
                continue
            frames.append(data[:_VNET_HEADER].ljust(_VNET_HEADER, b"\0") + data[size:]
                          if size else bytes(_VNET_HEADER) + data)
        return frames

    def close(self) -> None:
        if self._descriptor >= 0:
            self._poll.unregister(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def send_out(host: Host, interface: str, frames: list[bytes]) -> None:
    """Send frames as ``TapQueue.drain`` gives them out of an interface of the host.

    The virtio header goes along: a frame that offloading left without checksum, or larger than the MTU,
    is finished by the kernel as if it had come from the machine.
    """
    with socket_in(host.namespace, socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        sender.bind((interface, 0))
        for frame in frames:
            sender.send(frame)


def plug(host: Host, tap: str, mac: bytes) -> None:
    """Put a meaningless frame in front of a tap's queue.

    A QEMU whose machine does not run reads one frame from its tap, keeps it, and stops reading. Were that
    the first frame that waits for the machine, killing this QEMU would lose it. So the first is ours.
    """
    frame = mac + b"\x02" + mac[1:] + struct.pack(">H", _PLUG_ETHERTYPE) + bytes(46)
    send_out(host, tap, [bytes(_VNET_HEADER) + frame])


def drop_plug(frames: list[bytes]) -> list[bytes]:
    """``frames`` without the one that ``plug`` put there."""
    return [frame for frame in frames if frame[22:24] != struct.pack(">H", _PLUG_ETHERTYPE)]
