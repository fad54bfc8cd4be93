"""The lab of several domains on paper: addresses that do not meet, and files that its daemons accept."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from followme.agent import host_config
from followme.cli.application import app
from followme.config import federation
from followme.lab import domains_plan, domains_scenario
from followme.lab.base import Hypervisor
from followme.lab.domains_document import DomainsConfig, Papers
from followme.lab.domains_plan import DomainsLabConfig, domains
from followme.lab.domains_topology import DomainsLab
from followme.lab.guest import GuestImage
from followme.system import needs

LAB = DomainsLabConfig(centres=3, correspondents=2, instances=2)
MISSING = "missing nats-server: apt-get install nats-server"


def papers(directory: Path) -> Papers:
    made = domains(LAB)
    hosts = {
        domain.network.name: Hypervisor(
            f"hv{domain.number}", f"ns-hv{domain.number}", "br0", "uplink",
            str(domains_plan.management_address(domain.number).ip), directory / f"hv{domain.number}",
        )
        for domain in made if domain.has_centre
    }  # fmt: skip
    lab = SimpleNamespace(domains=made, hosts=hosts, directory=directory)
    image = GuestImage(Path("/images/kernel/vmlinuz"), Path("/images/guest/initrd.gz"))
    return Papers(cast(DomainsLab, lab), image, DomainsConfig(lab=LAB), directory / "keys")


def test_networks_are_apart_and_locators_are_no_hosts() -> None:
    config = DomainsLabConfig(centres=6, correspondents=3)
    made = domains(config)
    assert len(made) == 9
    for one, other in combinations([domain.network for domain in made], 2):
        assert not one.prefix.overlaps(other.prefix)
        assert one.datapath != other.datapath
    for domain in made:
        assert not domains_plan.is_locator(config, domain.host(domains_plan.MACHINE_NUMBER).ip)
        assert domains_plan.is_locator(config, domain.network.locators[0])
    assert not domains_plan.is_locator(config, IPv4Address("172.31.255.1"))


def test_each_pair_is_delayed_both_ways() -> None:
    paths = domains_plan.delayed_paths(LAB)
    assert len(paths) == 5 * 4
    assert {path.delay_s for path in paths} == {LAB.between_domains_rtt_s / 2}


@pytest.mark.parametrize("wrong", [{"centres": 2}, {"centres": 7}, {"correspondents": 0}, {"instances": 4},
                                   {"between_domains_rtt_s": -1.0}])  # fmt: skip
def test_what_the_lab_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"lab has|negative"):
        DomainsLabConfig(**wrong)


def test_all_daemons_accept_their_files(tmp_path: Path) -> None:
    made = papers(tmp_path)
    ports = set()
    for domain in made.lab.domains:
        for instance in (1, 2):
            config = federation.check(made.controller(domain, instance), f"{domain.name}.yaml")
            assert config.file.federation.instance == str(instance)
            assert len(config.networks) == 5
            ports.add(config.file.listen.port)
        if domain.has_centre:
            agent = host_config.check(made.agent(domain), f"{domain.network.name}.yaml")
            assert len(agent.control.peers) == 2
            assert [machine.name for machine in agent.machines] == (["vm1"] if domain.name == "alpha" else [])
        host_config.OperatorConfig.model_validate(made.operator(domain))
    assert len(ports) == 10
    for file in (tmp_path / "keys").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "check", lambda wanted: [])
    monkeypatch.setattr(domains_scenario, "program", lambda: None)
    done = CliRunner().invoke(app, ["demo", "--domains", "3", "--plot", str(tmp_path / "p.png")])
    assert done.exit_code == 1
    assert done.stderr.strip() == f"followme: this machine cannot run the lab: {MISSING}"


@pytest.mark.parametrize("options", [["--plane", "lisp"], ["--overlapping"]])
def test_options_that_do_not_go_with_domains(options: list[str]) -> None:
    assert CliRunner().invoke(app, ["demo", "--domains", "3", *options]).exit_code == 2
    assert CliRunner().invoke(app, ["demo", "--domains", "2"]).exit_code == 2
