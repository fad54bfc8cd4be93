"""``check-config`` of a federated controller: its key files are looked at, and whose key is whose."""

from __future__ import annotations

from pathlib import Path

import yaml
from typer.testing import CliRunner

from followme.cli import app
from followme.federation.keyfile import make_key_file

EXAMPLE = Path(__file__).parents[3] / "examples" / "controller-federated.yaml"
runner = CliRunner()


def check(file: Path) -> tuple[int, list[str]]:
    result = runner.invoke(app, ["check-config", str(file)])
    assert "Traceback" not in result.output
    return result.exit_code, (result.stderr if result.exit_code else result.stdout).splitlines()


def local_copy(directory: Path, public: str = "") -> Path:
    """The example, with key files in ``directory`` (which are not made), and ``public`` for the other domain's."""
    data = yaml.safe_load(EXAMPLE.read_text().replace("/etc/followme/", f"{directory}/"))
    if public:
        data["federation"]["domains"][0]["public_key"] = public
    file = directory / "fmc.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def test_it_is_good_with_its_keys_and_each_is_named_without(tmp_path: Path) -> None:
    file = local_copy(tmp_path)
    code, lines = check(file)
    assert code == 2
    assert [line.split(": ")[1] for line in lines] == ["federation.password_file", "federation.key_file"]
    make_key_file(tmp_path / "east.key")
    (tmp_path / "east.password").touch(0o600)
    (tmp_path / "east.password").write_text("0123456789")
    assert check(file) == (0, [f"{file}: good: domain east: 2 networks of 2 domains' 4, 1 machines, 0 users"])


def test_another_domain_with_our_own_key_is_refused(tmp_path: Path) -> None:
    public = make_key_file(tmp_path / "east.key")
    (tmp_path / "east.password").touch(0o600)
    (tmp_path / "east.password").write_text("0123456789")
    file = local_copy(tmp_path, public)
    code, (line,) = check(file)
    assert code == 2
    assert line.startswith(f"{file}: federation.domains[0].public_key: it is our own")
