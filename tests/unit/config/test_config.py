"""The config file: what is right is read, and every wrong value is named with file, key and value."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from followme.config.document import MAX_FILE_BYTES, ConfigError, Section, validate
from followme.config.fields import MacField, Prefix
from followme.config.openflow import check, load
from followme.domain import NodeKind, mac_bytes

from .document import GONE, RIGHT, Key, changed, keys, sections, text

SMALL = """
networks:
- name: wlan1
  kind: access
  datapath: 0xa1
  uplink: {port: 1, router_mac: '02:aa:00:00:00:03'}
  prefix: 10.3.0.0/24
  gateway: 10.3.0.1
  locators: 10.3.0.128/25
"""


def problems(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(document, "fmc.yaml")
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_a_right_file_becomes_the_nouns_of_the_domain() -> None:
    config = check(RIGHT, "fmc.yaml")
    assert [(network.name, network.datapath) for network in config.networks] == [("wlan1", 0xA1), ("dc1", 0xD1)]
    machine, user = config.nodes
    assert (machine.name, machine.kind, machine.home, machine.port) == ("vm1", NodeKind.MACHINE, "dc1", 2)
    # configured with a private address, known outside by the same host number of the prefix
    assert (str(machine.address), str(machine.identifier)) == ("192.168.0.5", "10.1.0.5")
    assert (user.name, user.kind, user.port) == ("alice", NodeKind.USER, 4)
    assert user.mac == mac_bytes("02:00:00:00:00:02")
    assert config.services[0].machine == "vm1"
    assert config.network("dc1").router == IPv4Address("10.1.0.1")
    assert config.network("wlan1").router == IPv4Address("10.3.0.1")
    assert config.section("dc1").host is not None


def test_a_small_file_gets_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "fmc.yaml"
    path.write_text(SMALL)
    config = load(path)
    assert config.file.policy.name == "mdp"
    assert config.file.listen.port == 6653
    assert config.networks[0].inside == config.networks[0].prefix
    assert config.nodes == ()


@pytest.mark.parametrize("section", sections(), ids=text)
def test_an_unknown_key_is_refused_wherever_it_stands(section: Key) -> None:
    (line,) = problems(changed(((*section, "colour"), "blue")))
    key = text((*section, "colour"))
    # Not its value: it may be a key of another daemon's file.
    assert line == f"fmc.yaml: {key}: unknown key; see docs/config.md for the keys"


@pytest.mark.parametrize("key", keys(), ids=text)
def test_a_value_of_a_wrong_type_is_named_with_file_and_key(key: Key) -> None:
    wrong: Any = [3.25] if key[-1] == "parameters" else {"surprise": 3.25}
    lines = problems(changed((key, wrong)))
    assert lines
    for line in lines:
        assert line.startswith(f"fmc.yaml: {text(key)}")
        assert "3.25" not in line


@pytest.mark.parametrize("key", [key for key in keys() if key[-1] in {
    "name", "kind", "datapath", "port", "router_mac", "prefix", "gateway", "locators", "first", "last", "bridge",
    "home", "mac", "user", "machine", "certificate", "ca", "run_dir", "management_address", "networks",
} and key not in {("users", 0, "port"), ("listen", "port"), ("policy", "name")}], ids=text)  # fmt: skip
def test_a_missing_key_is_named(key: Key) -> None:
    assert f"fmc.yaml: {text(key)}: missing; see docs/config.md" in problems(changed((key, GONE)))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (("users", 0, "mac"), 41135085296, "write a MAC address in quotes"),
        (("users", 0, "mac"), "02:00:00:00:00", "is not a MAC address of the form"),
        (("users", 0, "mac"), "0x:00:00:00:00:02", "is not a MAC address of the form"),
        (("users", 0, "mac"), "01:00:5e:00:00:01", "is a multicast address"),
        (("networks", 0, "datapath"), 0, "a number from 1 to 2^64 - 1"),
        (("networks", 0, "datapath"), 1 << 64, "a number from 1 to 2^64 - 1"),
        (("networks", 0, "datapath"), "d-one", "write a datapath id as a number"),
        (("networks", 0, "datapath"), True, "write a datapath id as a number"),
        (("networks", 0, "gateway"), 167772161, "write an IPv4 address"),
        (("networks", 0, "gateway"), "10.3.0.256", "10.3.0.256"),
        (("networks", 0, "prefix"), "10.3.0.0", "with its length"),
        (("networks", 0, "prefix"), "10.3.0.9/24", "has host bits set"),
        (("networks", 0, "kind"), "cloud", "access"),
        (("networks", 0, "name"), "wlan 1", "match pattern"),
        (("networks", 0, "area"), -1, "greater than or equal to 0"),
        (("networks", 0, "area"), "1", "valid integer"),
        (("networks", 0, "uplink", "port"), 0, "greater than or equal to 1"),
        (("networks", 0, "uplink", "port"), 0xFFFFFFFD, "less than or equal to"),
        (("networks", 0, "dhcp", "lease_s"), 1, "greater than or equal to 60"),
        (("machines", 0, "memory_mib"), 16, "greater than or equal to 32"),
        (("listen", "port"), 65536, "less than or equal to 65535"),
        (("policy", "name"), "sometimes", "always"),
        (("policy", "parameters", "distance"), True, "write a number"),
        (("probe", "interval_s"), 0, "greater than 0"),
        (("probe", "interval_s"), float("nan"), "nan: Input should be"),
        (("probe", "interval_s"), True, "write a number"),
        (("migration", "mode"), "warm", "paper"),
        (("migration", "timeout_s"), float("inf"), "less than or equal to"),
        (("store",), "a\0b", "is not a path"),
        (("networks",), [], "at least 1 item"),
    ],
)
def test_a_value_out_of_its_range_is_explained(key: Key, value: object, says: str) -> None:
    (line,) = problems(changed((key, value)))
    assert line.startswith(f"fmc.yaml: {text(key)}: ")
    assert says in line


def test_a_file_of_another_daemon_is_refused_without_its_secrets() -> None:
    secret = "topsecret-key"
    sites = [{"name": "dc1", "keys": [{"key": secret}], "prefixes": ["10.1.0.0/24"]}]
    lines = problems({"sites": sites, "store": "map.db", "networks": [{"name": "dc1", "keys": sites[0]["keys"]}],
                      "listen": {"tls": {"key": [secret]}, "key": secret}})  # fmt: skip
    assert "fmc.yaml: sites: unknown key; see docs/config.md for the keys" in lines
    assert secret not in "\n".join(lines)


class Named(Section):
    macs: dict[str, MacField]
    keys: tuple[Prefix, ...] = ()


@pytest.mark.parametrize("data", [{"macs": {"key": "topsecret-key"}}, {"macs": {}, "keys": ["topsecret-key/8"]}])
def test_the_words_of_a_check_do_not_quote_what_stands_where_a_key_is_meant(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Named, data, "fmc.yaml", "docs/config.md", secrets=True)
    (line,) = caught.value.problems
    assert line.endswith(": is not a value that may stand here")
    assert "topsecret" not in line


def test_all_mistakes_are_reported_at_once() -> None:
    lines = problems(changed((("probe", "interval_s"), 0), (("policy", "name"), "no"), (("store",), 7)))
    assert len(lines) == 3


def test_a_mac_without_quotes_that_yaml_reads_as_a_number_is_met_with_help(tmp_path: Path) -> None:
    path = tmp_path / "fmc.yaml"
    # YAML 1.1: digits below 60 between colons are a number of base 60
    path.write_text(SMALL + "users: [{name: a, home: wlan1, mac: 52:54:00:12:34:56, address: 10.3.0.5}]")
    with pytest.raises(ConfigError, match=r"users\[0\].mac: 41135085296: write a MAC address in quotes.*base 60"):
        load(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "must be a mapping"),
        (b"- networks", "must be a mapping"),
        (b"networks: [", "not valid YAML"),
        (b"networks: \xff\xfe", "not valid YAML"),
        (b"b: 1\na: " + b"[" * 5000, "line 2: not valid YAML: nested more than 32 deep"),
        (b"\n".join(b" " * n + b"a:" for n in range(1000)), "line 33: not valid YAML: nested more than 32 deep"),
        (b"a: " + b"9" * 5000, "not valid YAML"),
        (b"networks: 0x" + b"f" * 5000, "a number that is far too long"),
        (b"a: !!python/object/apply:os.system ['false']", "not valid YAML"),
        (b"a: &a [x]\nb: [*a, *a]", "aliases"),
        (b"#" * (MAX_FILE_BYTES + 1), "larger than"),
    ],
    ids=["empty", "list", "cut off", "no text", "deep in a line", "deep in lines", "long number", "long hex",
         "code", "aliases", "large"],
)  # fmt: skip
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "fmc.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    for line in caught.value.problems:
        assert line.startswith(f"{path}: ")
    assert says in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.yaml: cannot be read: No such file"):
        load(tmp_path / "absent.yaml")


def test_a_bomb_of_yaml_aliases_does_not_go_off(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = tmp_path / "fmc.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="aliases"):
        load(path)


def test_a_key_that_stands_twice_is_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("listen: {port: 1}\nlisten: {port: 2}\nnetworks: []\n")
    with pytest.raises(ConfigError, match="'listen' stands twice"):
        load(file)
