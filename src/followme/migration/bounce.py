"""Where a hypervisor's bridge sends the frames for a machine: into its tap, or straight back to the switch.

The flip between the two happens at the moment of the switch-over, so it is two netlink messages on a socket
that is already open: some 50 microseconds, no process, no thread. The messages are built here by hand
because pyroute2's u32 classifier cannot match in front of the network header, where the destination is.

A bridge port in hairpin mode would send frames back too, but all of them: each broadcast would return to
the switch with its sender's address, which reads there as that sender having moved to this port. A filter
on the machine's own address at the uplink's ingress bounces nothing else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from followme.migration.host import Host, MigrationError
from followme.system.netns import ip, socket_in

_NLMSG_ERROR = 2
_REQUEST, _ACK, _EXCL, _REPLACE, _CREATE = 0x1, 0x4, 0x200, 0x100, 0x400
_RTM_NEWNEIGH, _RTM_DELNEIGH = 28, 29
_RTM_NEWQDISC, _RTM_NEWTFILTER, _RTM_DELTFILTER = 36, 44, 45
_NUD_NOARP, _NTF_MASTER, _NDA_LLADDR = 0x40, 0x04, 2
_TC_H_CLSACT, _TC_H_INGRESS = 0xFFFFFFF1, 0xFFFFFFF2
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_U32_SEL, _TCA_U32_ACT = 5, 7
_TC_ACT_STOLEN, _EGRESS_REDIRECT = 4, 1
_ETH_P_ALL = 3
_SIOCGIFINDEX = 0x8933
_TXQUEUELEN = 4096


async def attach_tap(host: Host, tap: str, mac: bytes) -> None:
    """Make a tap a port of the host's bridge, with a static entry for its machine and a long queue.

    Learning is off at all ports: a frame of the machine that comes back from the other side must not
    move its entry. The queue is long because frames wait in it while the machine is carried.
    """
    await ip(host.namespace, [
        f"link set dev {tap} txqueuelen {_TXQUEUELEN} master {host.bridge} up",
        f"link set dev {tap} type bridge_slave learning off",
        f"link set dev {host.uplink} type bridge_slave learning off",
    ])


class Bounce:
    """The switch between "to the tap" and "back to the switch" for one machine on one host.

    Without a tap, where the machine's is gone, frames can still be bounced and forgotten.
    """

    def __init__(self, host: Host, tap: str | None, mac: bytes) -> None:
        self.host = host
        self.mac = mac
        self.flipped = False
        self._netlink = socket_in(host.namespace, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._netlink.settimeout(2.0)
        self._sequence = 0
        try:
            self._tap = None if tap is None else self._index(tap)
            self._uplink = self._index(host.uplink)
            # A priority is removed whole, so each machine has one of its own: the last two bytes of its MAC,
            # for the sake of those who come after a crash and did not make it. Machines of one host whose
            # MACs end alike must not be carried away at the same time.
            self._priority = 1 + int.from_bytes(mac[4:]) % 0xFFFF
            self._request(_RTM_NEWQDISC, _CREATE | _EXCL,
                          struct.pack("=BxxxiIII", 0, self._uplink, 0xFFFF0000, _TC_H_CLSACT, 0)
                          + _attribute(_TCA_KIND, b"clsact\0"), accept=errno.EEXIST)
        except BaseException:
            self._netlink.close()
            raise

    def to_tap(self) -> None:
        """Frames for the machine go into its tap."""
        if self._tap is None:
            raise MigrationError(f"host {self.host.name} has no tap for {self.mac.hex(':')} to send frames to")
        self._entry(_RTM_NEWNEIGH, self._tap)
        self._remove_filter()
        self.flipped = False

    def flip(self) -> None:
        """Frames for the machine go back out of the uplink, from this moment on."""
        redirect = struct.pack("=IIiiiiI", 0, 0, _TC_ACT_STOLEN, 0, 0, _EGRESS_REDIRECT, self._uplink)
        action = _attribute(1, _attribute(1, b"mirred\0") + _attribute(2, _attribute(2, redirect)))
        high, low = struct.unpack(">HI", self.mac)
        # Two keys, at 16 and 12 bytes before the network header: destination bytes 0-1 and 2-5.
        selector = (struct.pack("=BBBxHHhhI", 1, 0, 2, 0, 0, 0, 0, 0)
                    + struct.pack(">II", 0xFFFF, high) + struct.pack("=ii", -16, 0)
                    + struct.pack(">II", 0xFFFFFFFF, low) + struct.pack("=ii", -12, 0))
        self._filter(_RTM_NEWTFILTER, _CREATE | _EXCL, _attribute(_TCA_KIND, b"u32\0") + _attribute(
            _TCA_OPTIONS, _attribute(_TCA_U32_ACT, action) + _attribute(_TCA_U32_SEL, selector)),
            # The kernel's word for a handle that is taken: frames are being bounced already.
            accept=errno.ENOSPC)
        # Frames of other machines on this bridge do not come through the uplink: the entry sends them out.
        self._entry(_RTM_NEWNEIGH, self._uplink)
        self.flipped = True

    def clear(self) -> None:
        """Forget the machine: no entry, no filter. Harmless where there is none."""
        self._remove_filter()
        self._entry(_RTM_DELNEIGH, self._uplink, accept=errno.ENOENT)
        self.flipped = False

    def close(self) -> None:
        self._netlink.close()

    def _entry(self, kind: int, port: int, accept: int = 0) -> None:
        flags = _CREATE | _REPLACE if kind == _RTM_NEWNEIGH else 0
        self._request(kind, flags, struct.pack("=BxxxiHBB", socket.AF_BRIDGE, port, _NUD_NOARP, _NTF_MASTER, 0)
                      + _attribute(_NDA_LLADDR, self.mac), accept)

    def _remove_filter(self) -> None:
        self._filter(_RTM_DELTFILTER, 0, b"", accept=errno.ENOENT)

    def _filter(self, kind: int, flags: int, attributes: bytes, accept: int) -> None:
        info = self._priority << 16 | socket.htons(_ETH_P_ALL)
        handle = 1 + int.from_bytes(self.mac[2:4]) % 0xFFE if kind == _RTM_NEWTFILTER else 0
        self._request(kind, flags, struct.pack("=BxxxiIII", 0, self._uplink, handle, _TC_H_INGRESS, info)
                      + attributes, accept)

    def _request(self, kind: int, flags: int, body: bytes, accept: int = 0) -> None:
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST | _ACK, self._sequence, 0)
        self._netlink.send(header + body)
        while True:
            answer = self._netlink.recv(65536)
            _, answer_kind, _, sequence, _ = struct.unpack_from("=IHHII", answer)
            if sequence == self._sequence and answer_kind == _NLMSG_ERROR:
                break
        code = -struct.unpack_from("=i", answer, 16)[0]
        if code not in (0, accept):
            raise MigrationError(
                f"host {self.host.name}: the kernel refused to change where frames for {self.mac.hex(':')} go "
                f"(bridge {self.host.bridge}, uplink {self.host.uplink}): {os.strerror(code)}"
            )

    def _index(self, name: str) -> int:
        try:
            answer = fcntl.ioctl(self._netlink, _SIOCGIFINDEX, struct.pack("16s24x", name.encode()))
        except OSError as error:
            raise MigrationError(f"host {self.host.name} has no interface {name}: {error.strerror}") from None
        return int(struct.unpack_from("=i", answer, 16)[0])


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)
