"""The map server's file: mistakes are all named, and keys never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from followme.config.document import ConfigError
from followme.lisp import Action
from followme.mapsystem.config import check, load

from .fakes import eid

EXAMPLE = Path(__file__).parents[3] / "examples" / "mapserver.yaml"
SECRET = "do not show me"


def site(**changes: object) -> dict[str, object]:
    return {"name": "dc1", "site_id": 1, "keys": [{"key": SECRET}], "prefixes": ["10.1.0.0/24"], **changes}


def write_key(path: Path, text: str) -> None:
    path.touch(0o600)
    path.write_text(text)


def problems(data: dict[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(data, "map.yaml")
    assert SECRET not in str(caught.value)
    return caught.value.problems


def test_the_example_is_right(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(EXAMPLE.read_text().replace("/etc/followme", str(tmp_path)))
    for name in ("dc1", "dc2", "dc2-new", "wlan1", "wlan2", "ctl"):
        write_key(tmp_path / f"ms-{name}.key", f"secret of {name}\n")
    config = load(path)
    assert [one.name for one in config.sites] == ["dc1", "dc2", "wlan1", "wlan2", "ctl"]
    assert config.sites[1].keys == {0: b"secret of dc2", 1: b"secret of dc2-new"}, "without the end of the line"


def test_a_small_file_and_its_defaults() -> None:
    config = check({"sites": [site(visitors=["10.2.0.0/24"], rlocs=["192.0.2.0/30"])]}, "map.yaml")
    (one,) = config.sites
    assert one.keys == {0: SECRET.encode()}
    assert one.prefixes[0].eid == eid("10.1.0.0/24")
    assert one.prefixes[0].more_specifics
    assert one.visitors == (eid("10.2.0.0/24"),)
    assert [str(address) for address in config.file.listen.addresses] == ["127.0.0.1", "::1"], "loopback only"
    assert (config.file.listen.port, config.settings().families) == (4342, (4, 6))
    assert SECRET not in repr(config.file)
    assert SECRET not in repr(config.sites)
    assert SECRET not in repr(config)


def test_settings() -> None:
    config = check({
        "sites": [site(prefixes=[{"prefix": "2001:db8::/48", "instance_id": 9, "more_specifics": False}])],
        "listen": {"addresses": ["192.0.2.1"], "port": 0}, "registration_s": 10,
        "negative": {"outside": "drop", "not_registered": "send-map-request"},
        "damping": {"changes": 2, "within_s": 5},
    }, "map.yaml")  # fmt: skip
    settings = config.settings()
    assert (settings.interval_s, settings.families) == (10.0, (4,))
    assert (settings.negative.outside, settings.negative.not_registered) == (Action.DROP, Action.SEND_MAP_REQUEST)
    assert (settings.damping.changes, settings.damping.within_s) == (2, 5.0)
    assert config.sites[0].prefixes[0].eid == eid("2001:db8::/48", 9)


def test_all_mistakes_at_once_each_with_its_key() -> None:
    found = problems({
        "sites": [
            site(prefixes=["10.1.0.1/24"], colour="red"), site(keys=[{"key": SECRET, "id": 300}], reply="never"),
        ],
        "listen": {"port": "4342"}, "sotre": "x",
    })  # fmt: skip
    keys = [line.split(": ")[1] for line in found]
    assert keys == [
        "sites[0].prefixes[0].prefix", "sites[0].colour", "sites[1].keys[0].id", "sites[1].reply", "listen.port",
        "sotre",
    ]  # fmt: skip
    assert "unknown key" in found[1]
    assert "host bits" in found[0]


@pytest.mark.parametrize("keys", [SECRET, [SECRET], [{"key": [SECRET]}], [{"kye": SECRET}], {"key": SECRET}])
def test_a_key_in_the_wrong_place_is_not_shown(keys: object) -> None:
    (line, *_) = problems({"sites": [site(keys=keys)]})
    assert line.startswith("map.yaml: sites[0].keys")


def test_keys(tmp_path: Path) -> None:
    write_key(tmp_path / "short", "abc\n")
    (line,) = problems({"sites": [site(keys=[{"key_file": str(tmp_path / "short")}])]})
    says = "a key must have 8 to 1024 bytes, this one has 3"
    assert line == f"map.yaml: sites[0].keys[0]: key file {tmp_path}/short: {says}"
    (line,) = problems({"sites": [site(keys=[{"key_file": str(tmp_path / "none")}])]})
    assert line.endswith(f"key file {tmp_path}/none: No such file or directory")
    neither_and_both: list[list[dict[str, str]]] = [[{}], [{"key": SECRET, "key_file": "x"}]]
    for keys in neither_and_both:
        (line,) = problems({"sites": [site(keys=keys)]})
        assert line.endswith("give either key or key_file")


def test_contradictions() -> None:
    assert problems({
        "sites": [site(), site(), site(name="dc3", site_id=None, prefixes=[], visitors=["10.1.0.0/24"],
                                       keys=[{"key": SECRET}, {"key": SECRET}])],
        "listen": {"addresses": ["::1", "224.0.0.1", "::1"], "port": 0}, "processes": 2,
    }) == [
        "map.yaml: sites[2].visitors: this site needs a site_id: a visitor's prefix does not say where it is "
        "visiting",
        "map.yaml: sites[2].keys[1].id: key id 0 stands already at sites[2].keys[0].id",
        "map.yaml: sites[1].name: site name dc1 stands already at sites[0].name",
        "map.yaml: sites[1].site_id: site_id 1 stands already at sites[0].site_id",
        "map.yaml: sites[1].prefixes[0]: prefix 10.1.0.0/24 stands already at sites[0].prefixes[0]",
        "map.yaml: listen.addresses: an address stands twice",
        "map.yaml: listen.addresses: 224.0.0.1 is not an address of one host",
        "map.yaml: processes: several processes need a port of their own choice: set listen.port",
    ]  # fmt: skip


def test_what_must_not_be_empty() -> None:
    assert problems({"sites": []}) == ["map.yaml: sites: one at least is needed"]
    found = problems({"sites": [site(keys=[], algorithms=[])], "listen": {"addresses": []}})
    assert [line.split(": ")[1] for line in found] == ["listen.addresses", "sites[0].keys", "sites[0].algorithms"]


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    for text, what in (
        (f"sites: [{SECRET}", "not valid YAML"), ("- 1", "must be a mapping"), ("sites: *a", "aliases"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ConfigError, match=what) as caught:
            load(path)
        assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none")
