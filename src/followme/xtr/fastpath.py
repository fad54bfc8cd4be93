"""The fast path: eBPF programs at the LAN's and the core's device, which spare usual packets most of the way.

Where one of the two is a veth without a queue, whose other end is in another namespace, packets are handed to that
end at once; if it is the LAN's, super-packets that the kernel took out of the tunnel are, too (a third program, at
the tunnel device). What a device is like counts when the programs are attached: shape it before.

Routes stay the truth. The trie of the first program mirrors the map-cache's table (``MapCacheRoutes``); the second
asks the kernel's routing for each packet. What either does not take goes on as if it were not there. Packets
that are taken do not pass netfilter's ``forward`` hooks, nor does the tunnel device see those that are sent.
A daemon that stops leaves both at work; the next one puts an empty trie in the place of the old one and fills it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import logging
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from followme.system import netns
from followme.xtr import bpf, fastpath_programs
from followme.xtr.device import OVERHEAD, TunnelDevice
from followme.xtr.errors import DataPlaneError
from followme.xtr.links import is_bare_veth
from followme.xtr.routemsg import ENTRY_METRIC, PUNT_METRIC, Address, Encap, Entry, Network, Punt

log = logging.getLogger(__name__)

MAX_ENTRIES = 1 << 20
PREFERENCE = 49
"""Of our filters in the devices' ``clsact``: nobody else's may have it."""
_NEWQDISC, _NEWTFILTER, _DELTFILTER = 36, 44, 45
_REQUEST, _ACK, _EXCL, _REPLACE, _CREATE = 0x1, 0x4, 0x200, 0x100, 0x400
_SIOCGIFMTU, _SIOCGIFHWADDR, _ETHERNET = 0x8921, 0x8927, 1
_HEADER = struct.Struct("=IHHII")
_TCMSG = struct.Struct("=BxxxiIII")
_CLSACT, _CLSACT_HANDLE, _INGRESS = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2
_KIND, _OPTIONS, _BPF_FD, _BPF_NAME, _BPF_FLAGS = 1, 2, 6, 7, 8
_INFO = PREFERENCE << 16 | socket.htons(0x0800)


class FastPath:
    """The programs at work between ``lan`` and ``up`` of one tunnel device."""

    def __init__(self, device: TunnelDevice, lan: str, up: str, local_rloc: ipaddress.IPv4Address) -> None:
        self._device = device
        self._lan, self._up = lan, up
        self._local = local_rloc
        self._trie = bpf.Trie(fastpath_programs.ENTRY.size, MAX_ENTRIES)
        self._entries: dict[Network, dict[int, Entry]] = {}
        self._plain: frozenset[Address] = frozenset()
        self._held: set[Network] = set()
        self._broken = False
        self.hold(ipaddress.IPv4Network(local_rloc))  # a mapping that covers it must not carry us away

    def attach(self, *, plain: bool, hand_over: bool = True) -> None:
        """Put the programs to work, in the place of an earlier run's. Without ``hand_over`` all packets go by the
        devices' queues, as where no device is a bare veth. Raises ``DataPlaneError``."""
        if self._broken:
            raise DataPlaneError("the trie of the fast path lacks entries: make a new one")
        namespace, tunnel = self._device.namespace, self._device
        lan, up = (_index(namespace, name) for name in (self._lan, self._up))
        to_lan, to_up = (index if hand_over and is_bare_veth(namespace, index) else 0 for index in (lan, up))
        made = [
            (lan, self._lan, fastpath_programs.encapsulate(self._trie.handle, tunnel.index, up, peer=to_up)),
            (up, self._up, fastpath_programs.decapsulate(tunnel.index, self._local, plain=plain, peer=to_lan)),
        ]
        if to_lan:
            made.append((tunnel.index, tunnel.name, fastpath_programs.onward(tunnel.index, to_lan)))
        else:
            detach(namespace, tunnel.name)
        with contextlib.ExitStack() as closing:
            handles = []
            for _, _, program in made:
                handles.append(bpf.load(program))
                closing.callback(os.close, handles[-1])
            for (index, name, _), handle in zip(made, handles, strict=True):
                _attach(namespace, index, handle, name)

    def put(self, entry: Entry) -> None:
        """The kernel's table has the entry now."""
        if entry.eid.version == 4:
            self._entries.setdefault(entry.eid, {})[_metric(entry)] = entry
            self._write(entry.eid)

    def drop(self, entry: Entry) -> None:
        """The kernel's table is about to lose the entry; harmless if there is none."""
        ways = self._entries.get(entry.eid, {})
        if ways.pop(_metric(entry), None) is None:
            return
        if not ways:
            del self._entries[entry.eid]
        self._write(entry.eid)

    def set_plain(self, peers: Iterable[Address]) -> None:
        """Exactly these RLOCs get headers of RFC 9300: what is redirected never passes nftables' egress hook."""
        before, self._plain = self._plain, frozenset(peers)
        changed = before ^ self._plain
        for eid, ways in self._entries.items() if changed else ():
            if any(isinstance(way, Encap) and way.locators[0].rloc in changed for way in ways.values()):
                self._write(eid)

    def hold(self, eid: Network) -> None:
        """Leave packets for ``eid`` to the kernel whatever the table has, until ``release``."""
        if eid.version == 4:
            self._held.add(eid)
            self._write(eid)

    def release(self, eid: Network) -> None:
        """The table's entry counts again; harmless without ``hold``."""
        if eid in self._held:
            self._held.remove(eid)
            self._write(eid)

    def remove(self) -> None:
        """Take the programs away; harmless if they are gone."""
        for name in (self._lan, self._up, self._device.name):
            detach(self._device.namespace, name)

    def close(self) -> None:
        """The programs go on with what the trie has; it hears of nothing more."""
        self._broken = True
        self._trie.close()

    def _value(self, entry: Entry) -> bytes:
        if isinstance(entry, Encap) and len(entry.locators) == 1:
            rloc = entry.locators[0].rloc
            if isinstance(rloc, ipaddress.IPv4Address):
                return fastpath_programs.entry(self._local, rloc, entry.instance_id, plain=rloc in self._plain)
        return fastpath_programs.LEAVE

    def _write(self, eid: Network) -> None:
        if self._broken:
            return
        key = eid.network_address.packed, eid.prefixlen
        ways = self._entries.get(eid)
        try:
            if eid in self._held:
                self._trie.set(*key, fastpath_programs.LEAVE)
            elif ways:
                self._trie.set(*key, self._value(ways[min(ways)]))
            else:
                self._trie.delete(*key)
        except DataPlaneError as error:
            # A covering prefix would catch what this one is for.
            log.error("%s; the fast path is switched off, the kernel's routes go on alone", error)
            self._broken = True
            self.remove()


async def ensure(
    device: TunnelDevice, *, lan: str, up: str, local_rloc: ipaddress.IPv4Address, plain: bool = False
) -> FastPath | None:
    """The fast path, with an empty trie; None where it cannot be (``problem`` says why, and so does the log).

    ``plain``: headers of RFC 9300 are taken on the way in as well as those of RFC 9305. Who gets them on the way
    out is told by ``PlainHeaders``.
    """
    fast: FastPath | None = None
    reason = problem(device, lan=lan, up=up)
    if reason is None:
        try:
            fast = FastPath(device, lan, up, local_rloc)
            fast.attach(plain=plain)
        except DataPlaneError as error:
            reason = str(error)
    if reason is None and fast is not None:
        return fast
    if fast is not None:
        fast.close()
    for name in (lan, up, device.name):
        detach(device.namespace, name)  # what an earlier run left would not hear of changes
    log.warning("no fast path (%s); all packets take the kernel's routes", reason)
    return None


def problem(device: TunnelDevice, *, lan: str, up: str) -> str | None:
    """Why the settings of the router do not allow the fast path; None if they do."""

    def number(path: str) -> int:
        return int(Path(path).read_text())

    def look() -> str | None:
        net = "/proc/sys/net/ipv4"
        # The kernel's path would drop what these tell it to; a packet that is taken never comes by them.
        if not number(f"{net}/ip_forward"):
            return "ip_forward is off"
        for name in (lan, "all"):
            if number(f"{net}/conf/{name}/rp_filter"):
                return f"rp_filter of {name} is on: the fast path does not check sources"
        for name in (lan, up):
            if struct.unpack_from("=H", _asked(_SIOCGIFHWADDR, name), 16)[0] != _ETHERNET:
                return f"{name} is no Ethernet device"
        mtu = int(struct.unpack_from("=i", _asked(_SIOCGIFMTU, up), 16)[0])
        if mtu < device.mtu + OVERHEAD[4]:
            return f"the MTU of {up} is {mtu}: {device.name} needs {device.mtu + OVERHEAD[4]}"
        return None

    try:
        return netns.call_in(device.namespace, look)
    except (OSError, ValueError) as error:
        return f"cannot look at {lan} and {up}: {error}"


def detach(namespace: str | None, name: str) -> bool:
    """Remove our program from a device; False if there is none or no device. What is no program is not ours."""
    try:
        index = _index(namespace, name)
        body = _TCMSG.pack(0, index, 0, _INGRESS, _INFO) + _attribute(_KIND, b"bpf\0")
        _request(namespace, _DELTFILTER, 0, body)
    except (OSError, DataPlaneError):
        return False
    return True


def _metric(entry: Entry) -> int:
    return PUNT_METRIC if isinstance(entry, Punt) else ENTRY_METRIC


def _attach(namespace: str | None, index: int, program: int, name: str) -> None:
    try:
        body = _TCMSG.pack(0, index, _CLSACT_HANDLE, _CLSACT, 0) + _attribute(_KIND, b"clsact\0")
        _request(namespace, _NEWQDISC, _CREATE | _EXCL, body, accept=errno.EEXIST)
        options = _attribute(_BPF_FD, struct.pack("=I", program)) + _attribute(_BPF_NAME, b"lisp\0")
        options += _attribute(_BPF_FLAGS, struct.pack("=I", 1))  # direct action
        body = _TCMSG.pack(0, index, 1, _INGRESS, _INFO) + _attribute(_KIND, b"bpf\0")
        body += _attribute(_OPTIONS, options)
        _request(namespace, _NEWTFILTER, _CREATE | _REPLACE, body)
    except OSError as error:
        raise DataPlaneError(f"cannot attach a program to {name}: {error.strerror}; it needs cls_bpf") from None


def _request(namespace: str | None, kind: int, flags: int, body: bytes, accept: int = 0) -> None:
    with netns.socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        asking.settimeout(5.0)
        asking.send(_HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST | _ACK, 1, 0) + body)
        answer = asking.recv(65536)
    code = -int(struct.unpack_from("=i", answer, _HEADER.size)[0])
    if code not in (0, accept):
        raise OSError(code, os.strerror(code))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _index(namespace: str | None, name: str) -> int:
    try:
        return netns.call_in(namespace, lambda: socket.if_nametoindex(name))
    except OSError:
        raise DataPlaneError(f"there is no device {name} in {namespace or 'this namespace'}") from None


def _asked(request: int, name: str) -> bytes:
    # Not by /sys: it shows the devices of the namespace in which it was mounted.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        return bytes(fcntl.ioctl(handle, request, struct.pack("16s24x", name.encode()[:15])))
