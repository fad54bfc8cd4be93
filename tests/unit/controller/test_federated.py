"""Controllers of a federation: a machine moves through three domains, and its peers in all of them go on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from ..continuity.switch import until
from .domains import DOMAINS, HOSTS, VM, domains


async def test_sessions_go_on_from_home_to_two_networks_and_back(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        places = ["dc-a", "dc-b", "dc-c", "dc-a"]
        for host in HOSTS.values():
            await world.talks(host, "dc-a")
        for number, (source, target) in enumerate(pairwise(places)):
            await world.carry(source, target, f"m{number}")
            for host in HOSTS.values():
                await world.talks(host, target, first="host" if number % 2 else "machine")
            await world.settled(target)
            for host in HOSTS.values():
                await world.talks(host, target)
        for domain, (network, _) in DOMAINS.items():
            federate = world.federate(domain)
            await until(lambda federate=federate: federate.view(VM) is None)  # type: ignore[misc]
            assert (network == "dc-a") == bool(world.entries(network))


@pytest.mark.parametrize("first", ["host", "machine"])
@pytest.mark.parametrize("network", [name for name, _ in DOMAINS.values()])
async def test_a_first_word_while_it_is_away_reaches_whoever_was_not_told(
    tmp_path: Path, network: str, first: str
) -> None:
    async with domains(tmp_path) as world:
        await world.carry("dc-a", "dc-b", "m1")
        await world.talks(HOSTS[network], "dc-b", first=first)
        await world.carry("dc-b", "dc-c", "m2", release=False)
        await world.talks(HOSTS[network], "dc-c", first=first)


async def test_a_controller_that_starts_again_has_the_same_rules(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        await world.carry("dc-a", "dc-b", "m1")
        for host in HOSTS.values():
            await world.talks(host, "dc-b")
        await world.settled("dc-b")
        before = {name: set(switch.table.entries) for name, switch in world.switches.items()}
        for domain in DOMAINS:
            await world.stop(domain)
        for domain in DOMAINS:
            await world.start(domain)
        assert {name: set(switch.table.entries) for name, switch in world.switches.items()} == before
        for host in HOSTS.values():
            await world.talks(host, "dc-b")
