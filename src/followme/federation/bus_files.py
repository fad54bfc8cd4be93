"""The files of a bus of one's own: what its servers run from, and the password of each who may be on it.

Passwords are made once: who is added later changes nobody else's.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from followme.config.keys import read_key

from .bus import check_name
from .nats_accounts import DomainLogins, Login, Member, write_configuration

_RANDOM_OCTETS = 24
_LEAST = 8
_CLUSTER = "servers.secret"


def write_bus(
    directory: Path, domains: Mapping[str, Sequence[str]], members: Sequence[Member], domain_bytes: int
) -> Iterator[tuple[Path, str]]:
    """Write ``NAME.conf`` for each server and ``USER.password`` for each login into ``directory``, for their owner
    alone; each file, and whose it is. What servers of a cluster know each other by is kept there, too.

    ``domain_bytes`` is what each domain may store. ``domains`` are each domain's hosts; one may be ``operator``.
    A member without ``store`` gets one in ``directory``. ``ValueError`` for a name that cannot be one,
    ``KeyFileError`` for a file that holds no password, ``OSError``.
    """
    for name in (*domains, *itertools.chain(*domains.values()), *(one.name for one in members)):
        check_name(name)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    logins, files = {}, []
    for domain, hosts in domains.items():
        made = {host: _login(directory, f"{domain}.{host}") for host in hosts}
        logins[domain] = DomainLogins(_login(directory, domain), made)
        files.append((_password_file(directory, domain), f"the controllers of domain {domain}, user {domain}"))
        files += [(_password_file(directory, login.user), f"{_who(host)} of domain {domain}, user {login.user}")
                  for host, login in made.items()]  # fmt: skip
    whole = [replace(one, store=one.store or str(directory.resolve() / f"{one.name}.store")) for one in members]
    among = _password(directory / _CLUSTER) if len(whole) > 1 else ""
    for member in whole:
        file = directory / f"{member.name}.conf"
        text = write_configuration(
            member, logins, members=whole if among else (), cluster_password=among, domain_bytes=domain_bytes
        )
        _write(file, text)
        yield file, f"nats-server {member.name}, which listens at {member.listen}"
    yield from files


def _who(host: str) -> str:
    return "the operator" if host == "operator" else f"host {host}"


def _login(directory: Path, user: str) -> Login:
    return Login(user, _password(_password_file(directory, user)))


def _password_file(directory: Path, user: str) -> Path:
    return directory / f"{user}.password"


def _password(file: Path) -> str:
    """What the file holds; it is made if there is none."""
    if not file.exists():
        _write(file, secrets.token_urlsafe(_RANDOM_OCTETS) + "\n")
    return read_key(file, _LEAST).decode()


def _write(file: Path, text: str) -> None:
    """All of it or nothing, and never for others to read."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    draft.rename(file)
