"""The papers' figure 1 is there and carries packets; without a controller's rules it carries none."""

from ipaddress import IPv4Address, IPv4Interface

import pytest

from followme.lab.pinger import Pinger
from followme.lab.plan import LabConfig
from followme.lab.topology import Host, Lab, LabError
from followme.system import needs, netns
from followme.system.process import ProcessError, run

PROBLEMS = needs.check(needs.NETWORK_LAB)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]


async def forward_as_a_plain_switch(lab: Lab) -> None:
    for network in lab.networks:
        await lab.switch.ofctl("add-flow", network.name, "actions=NORMAL")


async def pings(host: Host, target: str, count: int = 3) -> bool:
    try:
        await run(["ping", "-c", str(count), "-i", "0.05", "-W", "1", target], namespace=host.namespace)
    except ProcessError:
        return False
    return True


async def test_bridges_are_those_that_the_networks_describe() -> None:
    async with Lab() as lab:
        for network in lab.networks:
            shown = await lab.switch.ofctl("show", network.name)
            assert f"dpid:{network.datapath:016x}" in shown
            ports = await lab.switch.ports(network.name)
            assert ports[f"{network.name}-router"] == network.uplink_port
            assert not await lab.switch.connected(network.name)
        assert (await lab.switch.ports("dc2"))["dc2-hv"] == 2
        assert await lab.switch.dump_flows("dc1") == []


async def test_hosts_reach_each_other_through_switch_and_router_and_only_by_rules() -> None:
    async with Lab() as lab:
        server = await lab.add_host("dc1", "server", port=10, address=IPv4Interface("10.1.0.10/24"))
        far = await lab.add_host("wlan2", "far", port=10, address=IPv4Interface("10.4.0.10/24"))
        assert not await pings(far, "10.4.0.1", count=1), "fail_mode=secure: no rules, no packets"
        await forward_as_a_plain_switch(lab)
        assert await pings(far, "10.1.0.10")
        assert await pings(server, "10.4.0.10")
        assert len(await lab.switch.dump_flows("dc1")) == 1
        delayed = await lab.delay.statistics()
        assert delayed.packets >= 12, "request and answer of six pings between the sites"
        assert delayed.dropped == 0


async def test_hypervisors_join_the_data_centre_and_each_other() -> None:
    async with Lab(LabConfig(management_rate_bit_s=500_000_000)) as lab:
        await forward_as_a_plain_switch(lab)
        one, two = lab.hosts["dc1"], lab.hosts["dc2"]
        await run(["ping", "-c", "1", "-W", "2", two.management_address], namespace=one.namespace)
        assert "rate 500Mbit" in await run(["tc", "qdisc", "show", "dev", "mgmt"], namespace=one.namespace)
        # A machine's place on the hypervisor's bridge, here taken by the bridge itself.
        await netns.ip(two.namespace, [f"address add 10.2.0.9/24 dev {two.bridge}"])
        await run(["ping", "-c", "1", "-W", "2", "10.2.0.1"], namespace=two.namespace)
        ports = await run(["bridge", "-d", "link"], namespace=two.namespace)
        assert "learning off flood on" in ports
        await two.set_hairpin(two.uplink, True)
        assert "hairpin on" in await run(["bridge", "-d", "link"], namespace=two.namespace)
        assert one.run_dir.is_dir()


async def test_overlapping_data_centres_share_addresses_inside() -> None:
    async with Lab(LabConfig(overlapping=True)) as lab:
        await forward_as_a_plain_switch(lab)
        # The same address twice, each with the first hop of its own data centre.
        for centre, gateway in (("dc1", "10.0.0.1"), ("dc2", "10.0.0.126")):
            host = await lab.add_host(centre, centre, port=10, address=IPv4Interface("10.0.0.10/24"))
            route = await run(["ip", "route", "show", "default"], namespace=host.namespace)
            assert f"via {gateway}" in route
        routes = await run(["ip", "route"], namespace=lab.router_namespace)
        assert "10.0.0.0/24" not in routes
        assert "10.1.0.0/24 dev dc1" in routes


async def test_the_client_goes_to_access_networks_only() -> None:
    async with Lab() as lab:
        with pytest.raises(LabError, match="dc1 is a data centre"):
            await lab.attach_client("dc1")
        with pytest.raises(LabError, match="no network 'wlan9'"):
            await lab.attach_client("wlan9")
        await lab.attach_client("wlan1")
        await lab.attach_client("wlan2")
        assert "air" not in await lab.switch.ports("wlan1")
        assert (await lab.switch.ports("wlan2"))["air"] == 2


async def test_distance_is_what_the_configuration_says() -> None:
    round_trips = {frozenset({"dc1", "wlan1"}): 0.030, frozenset({"dc2", "wlan1"}): 0.0}
    async with Lab(LabConfig(round_trips=round_trips)) as lab:
        await forward_as_a_plain_switch(lab)
        user = await lab.add_host("wlan1", "user", port=10, address=IPv4Interface("10.3.0.10/24"))
        await lab.add_host("dc1", "one", port=10, address=IPv4Interface("10.1.0.10/24"))
        await lab.add_host("dc2", "two", port=10, address=IPv4Interface("10.2.0.10/24"))
        shortest = {}
        for centre, address in (("dc1", "10.1.0.10"), ("dc2", "10.2.0.10")):
            async with Pinger(user.namespace, IPv4Address(address)) as pinger:
                await run(["sleep", "1"])
            answered = sorted(ping.rtt_s for ping in pinger.pings if ping.rtt_s is not None)
            assert len(answered) > 20
            shortest[centre] = answered[0]
            print(f"{centre}: median {answered[len(answered) // 2] * 1e3:.3f} ms ({lab.delay.kind})")
        # A delay can be late on a busy host, never early; the undelayed pair shows that it is per pair.
        assert shortest["dc1"] >= 0.030
        assert shortest["dc2"] < 0.030
