"""Who may say what on the bus: a NATS configuration in which each domain is an account of its own.

What is of one account cannot be seen from another: a bucket of keys, requests of hosts, answers. Only the
requests between domains pass, each as a service that one account offers to exactly one other:
``fmc.beta.alpha`` is offered by beta to alpha, so nobody but alpha can ask in alpha's name. Within an account the
controller and each host have users of their own, with what they need and nothing else.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .bus import MAX_PAYLOAD, check_name
from .nats import inbox_of

MIB = 1 << 20
LEASE_BYTES = 4 * MIB
"""Kept for the lease's bucket, so that a domain whose own bucket is full still knows who is active."""

_CONNECTIONS, _SUBSCRIPTIONS = 64, 4096
"""Of a domain's controllers, and of each host: more than they need, but none takes all that a server has."""

_MEMORY = 16 * MIB
"""Of a domain, for what follows its buckets."""


def bucket_of(domain: str) -> str:
    return f"fmc-{domain}"


def lease_bucket_of(domain: str) -> str:
    return f"fmc-{domain}-lease"


@dataclass(frozen=True, slots=True)
class Login:
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DomainLogins:
    """Of one domain: the controller instances' and each host's."""

    controller: Login
    hosts: Mapping[str, Login]


def generate_logins(domains: Mapping[str, Sequence[str]]) -> dict[str, DomainLogins]:
    """New passwords (192 random bits each) for each domain and its hosts; ``ValueError`` for a bad name."""
    made = {}
    for domain, hosts in domains.items():
        users = {check_name(host): Login(f"{domain}.{host}", secrets.token_urlsafe(24)) for host in hosts}
        made[check_name(domain)] = DomainLogins(Login(domain, secrets.token_urlsafe(24)), users)
    return made


@dataclass(frozen=True, slots=True)
class Member:
    """One server. ``listen`` and ``cluster`` are ``address:port`` for clients and for the other servers; at
    ``monitor`` it shows what it does to whoever asks (nobody, unless told)."""

    name: str
    listen: str
    store: str = ""
    cluster: str = ""
    monitor: str = ""


def write_configuration(
    member: Member,
    logins: Mapping[str, DomainLogins],
    *,
    members: Sequence[Member] = (),
    cluster_password: str = "",
    domain_bytes: int = 256 * MIB,
) -> str:
    """The text of one server's configuration file; it holds passwords.

    ``members`` are all servers of the cluster (none: a single server). ``domain_bytes`` is what each domain may
    store; its disk needs room for that of all domains.
    """
    copies = max(1, len(members))
    account = (domain_bytes + LEASE_BYTES) * copies  # what is kept on each server counts for the account on each
    document: dict[str, object] = {
        "server_name": member.name,
        "listen": member.listen,
        "max_payload": MAX_PAYLOAD + 1024,
        "ping_interval": "2s",
        "ping_max": 2,
        "write_deadline": "2s",
        "jetstream": {
            "store_dir": member.store, "max_mem": _MEMORY * len(logins), "max_file": account * len(logins),
        },
        "accounts": {
            "SYS": {"users": [{"user": "sys", "password": secrets.token_urlsafe(24)}]},
            **{_account(one): _domain(one, logins, account) for one in logins},
        },
        "system_account": "SYS",
    }
    if member.monitor:
        document["http"] = member.monitor
    if members:
        document["cluster"] = {
            "name": "fmc",
            "listen": member.cluster,
            "authorization": {"user": "route", "password": cluster_password, "timeout": 2},
            "routes": [f"nats://route:{cluster_password}@{one.cluster}" for one in members if one != member],
        }
    return json.dumps(document, indent=1)  # which is a NATS configuration too


def _account(domain: str) -> str:
    return f"FMC_{domain}"


def _domain(domain: str, logins: Mapping[str, DomainLogins], max_bytes: int) -> dict[str, object]:
    others = [other for other in logins if other != domain]
    mine = logins[domain]
    return {
        "jetstream": {"max_memory": _MEMORY, "max_file": max_bytes, "max_streams": 2},
        "limits": {
            "max_connections": _CONNECTIONS * (1 + len(mine.hosts)),
            "max_subscriptions": _SUBSCRIPTIONS * (1 + len(mine.hosts)),
        },
        "users": [
            _user(mine.controller, *_controller(domain, mine.hosts)),
            *(_user(login, *_host(domain, host), answers=1) for host, login in mine.hosts.items()),
        ],
        "exports": [{"service": f"fmc.{domain}.{other}", "accounts": [_account(other)]} for other in others],
        "imports": [
            {"service": {"account": _account(other), "subject": f"fmc.{other}.{domain}"}} for other in others
        ],
    }


def _user(login: Login, publish: list[str], subscribe: list[str], answers: int = 0) -> dict[str, object]:
    """``answers``: so many may be sent to whatever subject a request names, within a minute."""
    permissions: dict[str, object] = {"publish": publish, "subscribe": subscribe}
    if answers:
        permissions["allow_responses"] = {"max": answers, "expires": "1m"}
    return {"user": login.user, "password": login.password, "permissions": permissions}


def _controller(domain: str, hosts: Iterable[str]) -> tuple[list[str], list[str]]:
    """Answers go to its hosts' inboxes, and to where the server takes those to other accounts from (``_R_``).

    Not by ``allow_responses``: the server would remember each message of a bucket that is followed, and look at all
    of them with each.
    """
    answers = ["_R_.>", *(f"{inbox_of(domain, host)}.>" for host in hosts)]
    publish = [f"fmc.*.{domain}", f"fmc.{domain}.agent.*", *answers]
    for bucket in (bucket_of(domain), lease_bucket_of(domain)):
        stream = f"KV_{bucket}"
        calls = ("STREAM.INFO", "STREAM.CREATE", "STREAM.MSG.GET", "STREAM.MSG.DELETE", "CONSUMER.CREATE")
        publish += [f"$KV.{bucket}.>", f"$JS.FC.{stream}.>", *(f"$JS.API.{call}.{stream}" for call in calls)]
    return publish, [f"fmc.{domain}.*", f"fmc.{domain}.host.*", f"{inbox_of(domain)}.>"]


def _host(domain: str, host: str) -> tuple[list[str], list[str]]:
    return [f"fmc.{domain}.host.{host}"], [f"fmc.{domain}.agent.{host}", f"{inbox_of(domain, host)}.>"]
