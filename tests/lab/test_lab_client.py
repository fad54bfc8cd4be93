"""The client's DHCP, against busybox's DHCP server: an address is kept or replaced as the lease says."""

import contextlib
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from followme.lab.client import DhcpError
from followme.lab.topology import Lab
from followme.system import needs
from followme.system.process import Child, run

PROBLEMS = needs.check(needs.NETWORK_LAB)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]


@contextlib.asynccontextmanager
async def dhcp_server(lab: Lab, number: int) -> AsyncIterator[None]:
    """A DHCP server on wlan1 (10.3) or wlan2 (10.4)."""
    name = f"wlan{number - 2}"
    address = IPv4Interface(f"10.{number}.0.2/24")
    host = await lab.add_host(name, f"dhcp{number}", port=10, address=address)
    work = Path(lab.directory, host.name)
    work.mkdir()
    (work / "leases").touch()
    (work / "conf").write_text(
        f"start 10.{number}.0.20\nend 10.{number}.0.99\ninterface eth0\nlease_file {work}/leases\n"
        f"pidfile {work}/pid\noption subnet 255.255.255.0\noption router 10.{number}.0.1\noption lease 600\n"
    )
    server = await Child.start(["busybox", "udhcpd", "-f", f"{work}/conf"], namespace=host.namespace)
    try:
        yield
    finally:
        await server.stop()


async def test_moves_keep_or_replace_the_address() -> None:
    async with Lab() as lab:
        for network in lab.networks:
            await lab.switch.ofctl("add-flow", network.name, "actions=NORMAL")

        async def configured() -> str:
            return await run(["ip", "-4", "-o", "address", "show", "dev", "wl0"], namespace=lab.client.namespace)

        async with dhcp_server(lab, 3), dhcp_server(lab, 4):
            first = await lab.move_client("wlan1")
            assert first.changed
            assert first.gateway == IPv4Address("10.3.0.1")
            assert first.seconds == 600
            assert f"inet {first.address} " in await configured()

            again = await lab.move_client("wlan1")
            assert (again.address, again.changed) == (first.address, False)

            second = await lab.move_client("wlan2")
            assert second.changed
            assert second.address.ip in IPv4Interface("10.4.0.0/24").network
            shown = await configured()
            assert f"inet {second.address} " in shown
            assert str(first.address) not in shown
            route = await run(["ip", "route", "show", "default"], namespace=lab.client.namespace)
            assert "via 10.4.0.1" in route
            assert len(route.splitlines()) == 1
            await run(["ping", "-c", "1", "-W", "2", "10.3.0.2"], namespace=lab.client.namespace)


async def test_no_server_is_an_error_and_leaves_the_address_alone() -> None:
    async with Lab() as lab:
        client = lab.client
        await run(["ip", "address", "add", "10.3.0.77/24", "dev", "wl0"], namespace=client.namespace)
        with pytest.raises(DhcpError, match="no DHCP lease for wl0"):
            await lab.move_client("wlan1")
        assert "10.3.0.77/24" in await run(["ip", "address"], namespace=client.namespace)
