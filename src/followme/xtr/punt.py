"""The punt: a tun device that the EID space is routed to where no mapping is known.

What comes out of it is a miss. When the mapping has come, the packet is written back, and the kernel routes it
once more, over the route that is there now.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable

from followme.system.netns import open_tun
from followme.xtr.errors import DataPlaneError

MTU = 65_535
_TUNSETPERSIST = 0x400454CB
_BATCH = 64


class Punt:
    """The device ``name`` in ``namespace``. It stays when we end, so that its routes stay."""

    def __init__(self, namespace: str | None, name: str) -> None:
        self._namespace, self._name = namespace, name
        self.handle = -1
        self.open()

    def open(self) -> None:
        """Make the device, or take up the one that is there. Raises ``OSError``; ``DataPlaneError`` where another
        kind of device has its name."""
        self.close()
        try:
            handle = open_tun(self._namespace, self._name)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise DataPlaneError(f"punt: there is a device {self._name} that is no tun device") from None
            raise
        try:
            fcntl.ioctl(handle, _TUNSETPERSIST, 1)
            os.set_blocking(handle, False)
        except BaseException:
            os.close(handle)
            raise
        self.handle = handle

    def read(self, tell: Callable[[bytes], None]) -> None:
        """The misses that wait, up to a bound: the rest is for the next turn. Raises ``DataPlaneError`` once the
        device is not there any more."""
        for _ in range(_BATCH):
            try:
                packet = os.read(self.handle, MTU)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EIO:  # the device is down
                    return
                raise DataPlaneError(f"device {self._name} is gone: {error.strerror}") from None
            tell(packet)

    def write(self, packet: bytes) -> None:
        """Give a packet back to the kernel. One that it does not take is lost, as on any link."""
        with contextlib.suppress(OSError):
            os.write(self.handle, packet)

    def unmake(self) -> None:
        """Let the device go when we end."""
        with contextlib.suppress(OSError, ValueError):  # there may be none
            fcntl.ioctl(self.handle, _TUNSETPERSIST, 0)

    def close(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1
