"""One QEMU process with one machine, whose network card is a tap on its host's bridge."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from followme.migration.bounce import Bounce, attach_tap
from followme.migration.frames import TapQueue, drop_plug, plug, send_out
from followme.migration.host import Host, MachineSpec, MigrationError
from followme.migration.monitor import Monitor, migration_event
from followme.system.netns import open_tap
from followme.system.process import duplicate_from, within

_TAIL_BYTES = 2000
# QEMU before 9.0 forgets, in software emulation, to watch a page again after it has read that the page was
# written to (fixed by "physmem: Fix migration dirty bitmap coherency with TCG memory access"): what the
# machine then writes there is not sent, and it crashes at the target. Only its quick path for memory in
# whole units of 64 pages is wrong; two pages more than that keep it on the correct one.
_DIRTY_LOG_UNIT, _ODD_PAGES = 64 * 4096, 8192
_DEATH_WAIT = 5.0


class Qemu:
    """A machine on a host. ``start`` it, then ``kill`` it, or ``detach`` and let it outlive us."""

    def __init__(self, host: Host, spec: MachineSpec) -> None:
        self.host = host
        self.spec = spec
        self.tap = host.tap_name(spec.name)
        self.ended = asyncio.Event()
        self.monitor: Monitor
        self.bounce: Bounce
        self.queue: TapQueue
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = -1
        self._pidfd = -1
        self._opened = contextlib.ExitStack()

    @classmethod
    async def start(cls, host: Host, spec: MachineSpec, *, incoming: bool = False,
                    survive: bool = False) -> Qemu:
        """Start the machine, or with ``incoming`` an empty QEMU that waits for it.

        ``survive`` lets the process outlive ours, so that a controller that was restarted finds it; else
        it is killed when we end. ``MigrationError`` says what QEMU complained about.
        """
        self = cls(host, spec)
        try:
            await self._start(incoming, survive)
        except BaseException:
            await self.kill()
            raise
        return self

    @classmethod
    async def adopt(cls, host: Host, spec: MachineSpec) -> Qemu | None:
        """The machine's QEMU that an earlier controller started here with ``survive``; ``None`` if it has none.

        Its tap's queue is ours again too: we take a copy of the descriptor that QEMU has.
        """
        self = cls(host, spec)
        pid = self._recorded_pid()
        if pid is None:
            return None
        try:
            self._watch(pid)
        except ProcessLookupError:
            return None
        try:
            self.queue = TapQueue(duplicate_from(self._pidfd, self._tap_descriptor(pid)))
            self._opened.callback(self.queue.close)
            self.bounce = Bounce(host, self.tap, spec.mac)
            self._opened.callback(self.bounce.close)
            self.bounce.to_tap()
            self.monitor = await Monitor.open(host.qmp_path(spec.name), self.who)
        except (OSError, MigrationError) as error:
            self._opened.close()
            raise MigrationError(
                f"{self.who}: QEMU (pid {pid}) runs, but cannot be taken over: {error}; end it by hand, or the "
                "machine would run twice"
            ) from None
        return self

    @classmethod
    def find(cls, host: Host, spec: MachineSpec) -> int | None:
        """The pid of the machine's QEMU on this host; it is not touched."""
        return cls(host, spec)._recorded_pid()

    def _recorded_pid(self) -> int | None:
        """The pid in our file, if that process still is this machine's QEMU."""
        try:
            pid = int(self.host.file(self.spec.name, "pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        named = words[words.index(b"-name") + 1] if b"-name" in words else b""
        return pid if named == self.spec.name.encode() and b"qemu" in words[0] else None

    def _tap_descriptor(self, pid: int) -> int:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        network = words[words.index("-netdev") + 1]
        return int(network.rpartition("fd=")[2])

    def _watch(self, pid: int) -> None:
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_death)

    async def _start(self, incoming: bool, survive: bool) -> None:
        self.host.run_dir.mkdir(parents=True, exist_ok=True)
        try:
            tap = open_tap(self.host.namespace, self.tap, vnet_hdr=True)
        except OSError as error:
            raise MigrationError(f"{self.who}: {error}; does the machine run on this host already?") from None
        self.queue = TapQueue(tap)
        self._opened.callback(self.queue.close)
        await attach_tap(self.host, self.tap, self.spec.mac)
        self.bounce = Bounce(self.host, self.tap, self.spec.mac)
        self._opened.callback(self.bounce.close)
        self.bounce.to_tap()
        path = self.host.qmp_path(self.spec.name)
        path.unlink(missing_ok=True)
        # We listen and QEMU takes the socket over: so we can connect at once, however long it takes to start.
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
            self.host.file(self.spec.name, "log").open("wb") as log,
        ):
            listener.bind(str(path))
            listener.listen()
            arguments = self._arguments(tap, listener.fileno(), incoming)
            bound = [] if survive else ["setpriv", "--pdeathsig", "KILL", "--"]
            # Not asyncio's subprocess: its transport would kill the process when our loop ends.
            self._process = subprocess.Popen(  # noqa: ASYNC220
                [*bound, *within(self.host.namespace, arguments)], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, pass_fds=(tap, listener.fileno()), start_new_session=True,
            )
        self._watch(self._process.pid)
        self.host.file(self.spec.name, "pid").write_text(f"{self._process.pid}\n")
        try:
            self.monitor = await Monitor.open(path, self.who)
        except MigrationError as error:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), 0.2)
            raise MigrationError(f"{error}{self.complaint}") from None
        if incoming:
            # Where QEMU has stopped reading, no frame for the machine can get stuck inside it.
            plug(self.host, self.tap, self.spec.mac)

    def _arguments(self, tap: int, qmp: int, incoming: bool) -> list[str]:
        spec = self.spec
        mac = spec.mac.hex(":")
        disk = [] if spec.disk is None else [
            "-drive", f"file={spec.disk},format=raw,if=virtio,cache=none",
        ]
        return [
            "qemu-system-x86_64", "-name", spec.name, "-nodefaults", "-no-user-config", "-display", "none",
            # The stream's description of itself is as long as all device state, and nobody reads it.
            "-machine", f"{spec.machine_type},suppress-vmdesc=on", "-accel", self.host.accel,
            "-m", f"{self._memory_bytes}B", "-smp", "1",
            "-kernel", str(spec.kernel), "-initrd", str(spec.initrd), "-append", spec.cmdline, *disk,
            "-netdev", f"tap,id=net0,fd={tap}",
            # guest_announce: the machine must not broadcast its home address into the target's network.
            "-device", f"virtio-net-pci,netdev=net0,mac={mac},romfile=,guest_announce=off",
            "-chardev", f"socket,id=qmp,fd={qmp},server=on,wait=off", "-mon", "chardev=qmp,mode=control",
            "-serial", f"file:{self.host.file(spec.name, 'serial')}",
            # -S: whatever state arrives, it runs when we say so, and not before.
            *(["-incoming", "defer", "-S"] if incoming else []),
        ]

    @property
    def _memory_bytes(self) -> int:
        size = self.spec.memory_bytes
        return size + _ODD_PAGES if self.host.accel.startswith("tcg") and size % _DIRTY_LOG_UNIT == 0 else size

    @property
    def who(self) -> str:
        return f"{self.spec.name} on {self.host.name}"

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return None if self._pid < 0 or self.ended.is_set() else self._pid

    @property
    def complaint(self) -> str:
        """What QEMU printed and how it ended, ready to be appended to an error; empty if neither."""
        with contextlib.suppress(OSError):
            said = self.host.file(self.spec.name, "log").read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
            # One that was adopted is not our child: its code is nobody's to know.
            code = None if self._process is None else self._process.returncode
            end = "" if code is None else f"; the process ended with code {code}"
            return end + (f"; it printed: {said.strip()}" if said.strip() else "")
        return ""

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None,
                      timeout: float = 10.0) -> Any:
        """A QMP command's result; the error of a QEMU that died carries its last words."""
        try:
            return await self.monitor.execute(command, arguments, timeout)
        except MigrationError as error:
            raise MigrationError(f"{error}{self.complaint}") from None

    async def status(self) -> str:
        """QEMU's run state: ``running``, ``paused``, ``inmigrate``, ``postmigrate``, …"""
        return str((await self.execute("query-status"))["status"])

    def _on_death(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._process is not None:
            self._process.wait()
        self.ended.set()

    async def stop_process(self) -> None:
        """End the process and wait for its end; the tap and its queue stay until ``kill``."""
        if self.ended.is_set() or self._pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        try:
            await asyncio.wait_for(self.ended.wait(), _DEATH_WAIT)
        except TimeoutError:
            raise MigrationError(
                f"{self.who}: QEMU (pid {self._pid}) does not end although it was killed"
            ) from None

    def send_on(self) -> int:
        """Send what waits in the tap out of the host's uplink instead; the number of frames."""
        # Only frames for the machine: a broadcast that went back would come from its sender's address.
        frames = [frame for frame in drop_plug(self.queue.drain()) if frame[10:16] == self.spec.mac]
        if frames:
            send_out(self.host, self.host.uplink, frames)
        return len(frames)

    async def run_when_loaded(self, timeout: float) -> None:
        """See ``Target``."""
        try:
            async with asyncio.timeout(timeout):
                event = await self.monitor.wait(migration_event("completed", "failed"))
        except TimeoutError:
            raise MigrationError(f"{self.who}: the machine was not whole within {timeout:g} s") from None
        if event["data"]["status"] != "completed":
            raise MigrationError(f"{self.who}: the machine could not be loaded{self.complaint}")
        await self.execute("cont")

    async def send_back(self) -> int:
        """See ``Target``."""
        self.bounce.flip()
        await self.stop_process()
        return self.send_on()

    async def forget(self) -> None:
        """See ``Target``."""
        self.bounce.clear()
        await self.kill()

    async def kill(self) -> None:
        """End the process; its tap, and with it the bridge's entry, goes. Harmless if it has ended."""
        try:
            await self.stop_process()
        finally:
            if hasattr(self, "monitor"):
                await self.monitor.close()
            self._opened.close()
            self.host.qmp_path(self.spec.name).unlink(missing_ok=True)
            self.host.file(self.spec.name, "pid").unlink(missing_ok=True)

    async def detach(self) -> None:
        """Leave the process alone from now on (it was started with ``survive``)."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        await self.monitor.close()
        self._opened.close()
