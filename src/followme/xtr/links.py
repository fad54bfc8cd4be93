"""What the kernel says of a device, by one rtnetlink request."""

from __future__ import annotations

import os
import socket
import struct

from followme.system import netns
from followme.xtr.errors import DataPlaneError

_GETLINK, _NEWLINK, _REQUEST = 18, 16, 0x1
_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_QDISC, _LINKINFO, _LINK_NETNSID, _INFO_KIND = 6, 18, 37, 1
_TYPE = 0x3FFF


def is_bare_veth(namespace: str | None, index: int) -> bool:
    """Whether the device is a veth whose other end is in another namespace, and which has no queue of its own (so
    that nothing is shaped or delayed there). Raises ``DataPlaneError``."""
    try:
        with netns.socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
            asking.settimeout(5.0)
            header = _HEADER.pack(_HEADER.size + _IFINFO.size, _GETLINK, _REQUEST, 1, 0)
            asking.send(header + _IFINFO.pack(0, 0, index, 0, 0))
            answer = asking.recv(1 << 16)
    except OSError as error:
        raise DataPlaneError(f"the kernel does not tell of device {index}: {error}") from None
    length, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind != _NEWLINK:
        code = -int(struct.unpack_from("=i", answer, _HEADER.size)[0])
        raise DataPlaneError(f"the kernel does not tell of device {index}: {os.strerror(code)}")
    found = _attributes(answer[_HEADER.size + _IFINFO.size : length])
    name = _attributes(found.get(_LINKINFO, b"")).get(_INFO_KIND, b"")
    return (
        name.rstrip(b"\0") == b"veth"
        and _LINK_NETNSID in found
        and found.get(_QDISC, b"").rstrip(b"\0") == b"noqueue"
    )


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & _TYPE] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found
