"""An Open vSwitch of our own: a database and a switch process per run, in a namespace of the run.

It shares nothing with the machine's own Open vSwitch or with another run: its sockets and database are in
the run's directory. The datapath is in user space (``netdev``), so no kernel module is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from followme.system.process import Child, ProcessError, run

_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_MAX_SOCKET_PATH = 107
# Logs go to standard error only, whose tail is part of our error messages.
_LOGGING = ("-vconsole:warn", "-vsyslog:off", "-vfile:off")
_RECONNECT_MS = 1000
_PROBE_MS = 5000
_CONTROLLER_SETTINGS = (
    "connection_mode=out-of-band", f"max_backoff={_RECONNECT_MS}", f"inactivity_probe={_PROBE_MS}",
)  # fmt: skip


class SwitchError(RuntimeError):
    """Open vSwitch did not do what it was told; the text says what."""


class OpenVSwitch:
    """``await start()``, then bridges and ports; ``await stop()`` ends both processes."""

    def __init__(self, namespace: str, directory: Path) -> None:
        self.namespace = namespace
        self.directory = directory
        self._database = directory / "db.sock"
        self._control = directory / "vswitchd.ctl"
        self._children: list[Child] = []
        longest = directory / "a-long-bridge-nm.mgmt"
        if len(str(longest)) > _MAX_SOCKET_PATH:
            raise SwitchError(f"{directory} is too long a path for the switch's sockets: use a shorter one")

    @property
    def _environment(self) -> dict[str, str]:
        here = str(self.directory)
        return {"OVS_RUNDIR": here, "OVS_DBDIR": here, "OVS_LOGDIR": here, "OVS_SYSCONFDIR": here}

    async def start(self) -> None:
        """Start the database and the switch; returns when both answer."""
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "conf.db"
        await run(["ovsdb-tool", "create", file, _SCHEMA], env=self._environment)
        await self._child(
            "ovsdb-server",
            file,
            f"--remote=punix:{self._database}",
            f"--unixctl={self.directory / 'ovsdb.ctl'}",
        )
        await self._vsctl("--no-wait", "--retry", "init")
        await self._child("ovs-vswitchd", f"unix:{self._database}", f"--unixctl={self._control}")
        # Without --no-wait this returns only when the switch has taken the configuration.
        await self._vsctl("set", "Open_vSwitch", ".", "external-ids:owner=followme")

    async def _child(self, program: str, *arguments: str | Path) -> None:
        child = await Child.start(
            [program, *arguments, *_LOGGING],
            name=program,
            namespace=self.namespace,
            env=self._environment,
            cwd=self.directory,
        )
        self._children.append(child)

    async def stop(self) -> None:
        """End the switch, then its database."""
        while self._children:
            await self._children.pop().stop()

    def check(self) -> None:
        """``ProcessError`` with the reason if one of the two processes has ended."""
        for child in self._children:
            if child.returncode is not None:
                raise child.failure()

    async def _vsctl(self, *arguments: str) -> str:
        command = ["ovs-vsctl", f"--db=unix:{self._database}", "--timeout=10", *arguments]
        try:
            return (await run(command, namespace=self.namespace, env=self._environment)).strip()
        except ProcessError as error:
            self.check()
            raise SwitchError(str(error)) from None

    async def add_bridge(self, name: str, datapath_id: int, controller_target: str | None = None) -> None:
        """A bridge that speaks OpenFlow 1.3 and forwards nothing unless a controller's rule says so."""
        commands = [
            ["add-br", name],
            ["set", "bridge", name, "datapath_type=netdev", "fail_mode=secure", "protocols=OpenFlow13"],
            ["set", "bridge", name, f"other-config:datapath-id={datapath_id:016x}"],
            ["set", "bridge", name, "other-config:disable-in-band=true"],
        ]
        if controller_target is not None:
            commands += _controller(name, controller_target)
        await self._vsctl(*(word for command in commands for word in ("--", *command)))

    async def set_controller(self, name: str, target: str) -> None:
        """Have a bridge connect to ``target`` (``tcp:HOST:PORT``)."""
        await self._vsctl(*(word for command in _controller(name, target) for word in ("--", *command)))

    async def set_controllers(self, name: str, targets: Sequence[str]) -> None:
        """Have a bridge connect to all of ``targets``, among which roles (OpenFlow 1.3, 6.3.5) tell the master."""
        words: list[str] = []
        for number, target in enumerate(targets):
            words += ["--", f"--id=@c{number}", "create", "controller", f'target="{target}"', *_CONTROLLER_SETTINGS]
        names = ",".join(f"@c{number}" for number in range(len(targets)))
        await self._vsctl(*words, "--", "set", "bridge", name, f"controller=[{names}]")

    async def drop_controller(self, name: str) -> None:
        """End a bridge's session with its controller; its rules stay (fail_mode=secure)."""
        await self._vsctl("del-controller", name)

    async def add_port(self, bridge: str, netdev: str, ofport: int) -> None:
        """Put a network device of the switch's namespace at an OpenFlow port number of a bridge."""
        await self._vsctl(
            "add-port", bridge, netdev, "--", "set", "interface", netdev, f"ofport_request={ofport}"
        )
        got = await self._vsctl("get", "interface", netdev, "ofport")
        if got != str(ofport):
            why = await self._vsctl("get", "interface", netdev, "error")
            await self.del_port(bridge, netdev)
            raise SwitchError(f"{netdev} came up at port {got} of {bridge} instead of {ofport}: {why}")

    async def del_port(self, bridge: str, netdev: str) -> None:
        """Take a network device off a bridge, if it is there."""
        await self._vsctl("--if-exists", "del-port", bridge, netdev)

    async def ports(self, bridge: str) -> dict[str, int]:
        """The devices of a bridge and their OpenFlow port numbers."""
        names = (await self._vsctl("list-ports", bridge)).split()
        return {name: int(await self._vsctl("get", "interface", name, "ofport")) for name in names}

    async def connected(self, bridge: str) -> bool:
        """Whether the bridge has a session with its controller."""
        return await self._vsctl("get", "controller", bridge, "is_connected") == "true"

    async def dump_flows(self, bridge: str) -> list[str]:
        """The rules of a bridge, one text line each, as ``ovs-ofctl dump-flows`` writes them."""
        lines = (await self.ofctl("dump-flows", bridge, "--no-names")).splitlines()
        return [line.strip() for line in lines if "actions=" in line]

    async def ofctl(self, command: str, bridge: str, *arguments: str) -> str:
        """``ovs-ofctl COMMAND BRIDGE ARGUMENTS``, with OpenFlow 1.3."""
        socket = f"unix:{self.directory / bridge}.mgmt"
        line = ["ovs-ofctl", "-O", "OpenFlow13", command, socket, *arguments]
        return await self._tool(line)

    async def appctl(self, *arguments: str) -> str:
        """``ovs-appctl ARGUMENTS`` to the switch process."""
        return await self._tool(["ovs-appctl", "-t", str(self._control), *arguments])

    async def _tool(self, line: list[str]) -> str:
        try:
            return await run(line, namespace=self.namespace, env=self._environment)
        except ProcessError as error:
            self.check()
            raise SwitchError(str(error)) from None


def _controller(name: str, target: str) -> list[list[str]]:
    return [
        ["set-controller", name, target],
        ["set", "controller", name, *_CONTROLLER_SETTINGS],
    ]
