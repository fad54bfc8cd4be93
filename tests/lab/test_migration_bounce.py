"""Where a bridge sends the frames for a machine, and what waits in a tap: on a real bridge, without a machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from followme.lab.guest import build_guest
from followme.migration.bounce import Bounce, attach_tap
from followme.migration.frames import TapQueue, drop_plug, plug, send_out
from followme.migration.host import Host, MachineSpec, MigrationError
from followme.migration.qemu import Qemu
from followme.system import netns

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces and taps"),
]

ONE, TWO = bytes.fromhex("52540000aa07"), bytes.fromhex("52540000aa08")
PEER = bytes.fromhex("020000000001")
ALL = b"\xff" * 6


def frame(to: bytes, number: int = 0) -> bytes:
    return to + PEER + b"\x88\xb6" + bytes([number]) * 46


class Bridge:
    """A bridge with an uplink and two taps; ``switch`` is a socket at the far end of the uplink."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.queues: dict[bytes, TapQueue] = {}
        self.switch = netns.socket_in(host.namespace, socket.AF_PACKET, socket.SOCK_RAW)
        self.switch.bind(("far", 0x88B6))
        self.switch.settimeout(0.2)

    async def add(self, name: str, mac: bytes) -> Bounce:
        self.queues[mac] = TapQueue(netns.open_tap(self.host.namespace, name, vnet_hdr=True))
        await attach_tap(self.host, name, mac)
        bounce = Bounce(self.host, name, mac)
        bounce.to_tap()
        return bounce

    async def send(self, *frames: bytes) -> None:
        for data in frames:
            self.switch.send(data)
        await asyncio.sleep(0.02)

    def waiting(self, mac: bytes) -> list[bytes]:
        """The frames that wait for a machine, without what the kernel sends of itself."""
        return [data[10:] for data in self.queues[mac].drain() if data[22:24] == b"\x88\xb6"]

    def returned(self) -> list[bytes]:
        got = []
        try:
            while True:
                data, address = self.switch.recvfrom(2000)
                if address[2] != socket.PACKET_OUTGOING:
                    got.append(data)
        except TimeoutError:
            return got


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    host = Host("h", f"mgb{os.getpid()}", "br0", "uplink", "127.0.0.1", Path(f"/tmp/fmbounce{os.getpid()}"))
    assert host.namespace is not None
    await netns.add(host.namespace)
    try:
        # No chatter of the kernel's own, which would wait in the queues too.
        netns.sysctl(host.namespace, {"ipv6/conf/default/disable_ipv6": 1, "ipv6/conf/all/disable_ipv6": 1})
        await netns.ip(host.namespace, [
            "link add br0 type bridge", "link set br0 up", "link add uplink type veth peer name far",
            "link set dev uplink master br0 up", "link set dev far up",
        ])
        made = Bridge(host)
        yield made
        made.switch.close()
        for queue in made.queues.values():
            queue.close()
    finally:
        await netns.delete(host.namespace)
        shutil.rmtree(host.run_dir, ignore_errors=True)


async def test_a_flip_turns_one_machine_around_and_nothing_else(bridge: Bridge) -> None:
    with closing(await bridge.add("t1", ONE)) as one, closing(await bridge.add("t2", TWO)) as two:
        await bridge.send(frame(ONE), frame(TWO))
        assert bridge.waiting(ONE) == [frame(ONE)]
        assert bridge.waiting(TWO) == [frame(TWO)]
        assert bridge.returned() == []

        one.flip()
        one.flip()
        await bridge.send(frame(ONE, 1), frame(TWO, 1), frame(ALL, 1))
        assert bridge.waiting(ONE) == [frame(ALL, 1)]
        assert bridge.waiting(TWO) == [frame(TWO, 1), frame(ALL, 1)]
        assert bridge.returned() == [frame(ONE, 1)]

        two.flip()
        await bridge.send(frame(ONE, 2), frame(TWO, 2))
        assert bridge.returned() == [frame(ONE, 2), frame(TWO, 2)]

        one.to_tap()
        await bridge.send(frame(ONE, 3))
        assert bridge.waiting(ONE) == [frame(ONE, 3)]
        await bridge.send(frame(TWO, 3))
        assert bridge.returned() == [frame(TWO, 3)]


async def test_who_never_made_it_can_clear_it(bridge: Bridge) -> None:
    with closing(await bridge.add("t1", ONE)) as one:
        one.flip()
    with closing(Bounce(bridge.host, None, ONE)) as later:
        later.clear()
        later.clear()
        await bridge.send(frame(ONE))
        assert bridge.returned() == []
        with pytest.raises(MigrationError, match="has no tap"):
            later.to_tap()


async def test_what_waits_is_sent_on_unchanged_and_in_order(bridge: Bridge) -> None:
    with closing(await bridge.add("t1", ONE)):
        plug(bridge.host, "t1", ONE)
        frames = [frame(ONE, number) for number in range(100)]
        await bridge.send(*frames)
        assert bridge.queues[ONE].waiting
        drained = bridge.queues[ONE].drain()
        assert not bridge.queues[ONE].waiting
        kept = [data for data in drop_plug(drained) if data[10:16] == ONE]
        assert len(drained) > len(kept)
        send_out(bridge.host, "uplink", kept)
        assert bridge.returned() == frames


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs qemu-system-x86_64")
async def test_a_qemu_that_waits_for_its_machine_swallows_no_frame(bridge: Bridge) -> None:
    image = await build_guest()
    spec = MachineSpec("vm", ONE, 64 << 20, image.kernel, image.initrd, "")
    qemu = await Qemu.start(bridge.host, spec, incoming=True)
    try:
        frames = [frame(ONE, number) for number in range(5)]
        await bridge.send(*frames)
        await asyncio.sleep(0.1)
        await qemu.stop_process()
        waiting = [data[10:] for data in qemu.queue.drain()]
        assert [data for data in waiting if data[12:14] == b"\x88\xb6"] == frames
    finally:
        await qemu.kill()


def test_a_host_says_what_is_missing() -> None:
    with pytest.raises(MigrationError, match="host h has no interface nowhere"):
        Bounce(Host("h", None, "br0", "nowhere", "127.0.0.1", Path("/tmp")), None, ONE)
