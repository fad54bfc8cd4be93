"""All that map server, tunnel routers and a subscriber say to each other in a short history, read by tshark.

``test_lisp_tshark.py`` has the messages as the library makes them; these are the ones that are really sent, with
the fields that the roles put into them. What tshark 4.0 does not know of them is listed there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, ip_address
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from tests.interop.test_lisp_tshark import dissected, pcap
from tests.unit.mapsystem.fakes import IDS, KEYS, PREFIXES, RLOCS, eid, server, site
from tests.unit.xtr.play import packet

from followme.lisp import (
    EidPrefix,
    EncapsulatedControlMessage,
    Locator,
    MapNotify,
    MapRegister,
    MapReply,
    MapRequest,
    decode,
)
from followme.mapsystem import Datagram as Told
from followme.mapsystem import MapServer, SitePrefix
from followme.mapsystem.client import MapClient
from followme.mapsystem.sites import Reply
from followme.packets import pack_ipv4, pack_udp
from followme.xtr.control import Control
from followme.xtr.outputs import Datagram
from followme.xtr.residents import Policy
from followme.xtr.site import MapServer as Server
from followme.xtr.site import Site

pytestmark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

MAP_SERVER: Final = IPv4Address("192.0.2.18")
CONTROLLER: Final = IPv4Address(RLOCS["ctl"])
USER, MACHINE = eid("10.3.0.10/32"), eid("10.1.0.5/32")
USER_MAC, MACHINE_MAC = bytes.fromhex("020000000010"), bytes.fromhex("020000000005")


class Sent(NamedTuple):
    source: IPv4Address
    target: IPv4Address
    port: int
    data: bytes


class Internet:
    """Map server, four routers and the controller's client; every datagram is kept, and arrives at once."""

    def __init__(self) -> None:
        sites = {name: site(name) for name in KEYS}
        sites["dc1"] = site("dc1", prefixes=(SitePrefix(eid(PREFIXES["dc1"])), SitePrefix(eid("fd00:1::/64"))))
        sites["dc2"] = site("dc2", reply=Reply.FORWARD)
        self.now = 1000.0
        self.server: MapServer = server(*sites.values())
        self.routers = {IPv4Address(RLOCS[name]): self._router(name) for name in PREFIXES}
        self.client = MapClient(
            CONTROLLER, 4342, (str(MAP_SERVER), 4342), KEYS["ctl"], site_id=IDS["ctl"],
            xtr_id=bytes(16), wall_s=1.75e9,
        )  # fmt: skip
        self.sent: list[Sent] = []

    def _router(self, name: str) -> Control:
        prefixes: tuple[EidPrefix, ...] = (eid(PREFIXES[name]),)
        if name == "dc1":
            prefixes = (*prefixes, eid("fd00:1::/64"))
        site = Site(
            prefixes=prefixes, space=(eid("10.0.0.0/8"), eid("fd00::/16")),
            locators=(Locator(ip_address(RLOCS[name]), local=True),), resolvers=((MAP_SERVER, 4342),),
            servers=(Server(MAP_SERVER, 4342, KEYS[name], 0, 1 if name == "wlan2" else 2),),
            xtr_id=name.encode().ljust(16, b"."), site_id=IDS[name],
        )  # fmt: skip
        nonces = count(1 << 40)
        policy = Policy((eid("10.0.0.0/8"),), {}, frozenset(), frozenset())
        return Control(site, policy, 1.75e9, self.now, lambda: next(nonces))

    def router(self, name: str) -> Control:
        return self.routers[IPv4Address(RLOCS[name])]

    def wait(self, seconds: float) -> None:
        """Let time pass in small steps."""
        end = self.now + seconds
        while self.now < end:
            self.client.timer(self.now)
            for router in self.routers.values():
                router.timer(self.now)
            self.settle(self.server.timer(self.now).datagrams)
            self.now += 0.25

    def settle(self, said: Iterable[Told] = ()) -> None:
        """Everything that was said arrives, and what is said to that."""
        waiting = [Sent(MAP_SERVER, IPv4Address(one.host), one.port, one.data) for one in said]
        while waiting := [*waiting, *self._said()]:
            one = waiting.pop(0)
            self.sent.append(one)
            if one.target == MAP_SERVER:
                answers = self.server.receive(one.data, (str(one.source), 4342), self.now).datagrams
                waiting += [Sent(MAP_SERVER, IPv4Address(told.host), told.port, told.data) for told in answers]
            elif one.target in self.routers:
                self.routers[one.target].receive(one.data, one.source, 4342, self.now)
            else:
                self.client.receive(one.data, (str(one.source), 4342), self.now)

    def _said(self) -> Iterator[Sent]:
        for rloc, router in self.routers.items():
            for output in router.take():
                if isinstance(output, Datagram) and isinstance(output.address, IPv4Address):
                    yield Sent(rloc, output.address, output.port, output.data)
        while self.client.datagrams:
            data, (host, port) = self.client.datagrams.popleft()
            yield Sent(CONTROLLER, IPv4Address(host), port, data)


def history() -> Internet:
    """A user talks to a machine, moves, the machine follows, comes back, and everybody is told."""
    net = Internet()
    net.wait(1.0)
    for prefix in PREFIXES.values():
        net.client.subscribe(eid(prefix), net.now)
    net.client.ask(eid(PREFIXES["dc2"]), net.now)  # forwarded to its router, which answers
    net.client.ask(eid("198.51.100.0/24"), net.now)  # nobody's
    net.wait(1.0)
    wlan1, wlan2, dc1, dc2 = (net.router(name) for name in ("wlan1", "wlan2", "dc1", "dc2"))
    for source, target in (("10.3.0.10", "10.1.0.5"), ("10.3.0.10", "10.2.0.7"), ("10.3.0.10", "10.99.0.1")):
        wlan1.miss(packet(source, target), net.now)
    wlan1.miss(packet("fd00:3::10", "fd00:1::5"), net.now)
    dc1.miss(packet("10.1.0.5", "10.3.0.10"), net.now)
    net.settle()
    net.wait(12.0)  # probes
    assert wlan2.appeared(USER, USER_MAC, net.now)
    net.settle()
    wlan2.miss(packet("10.3.0.10", "10.1.0.5"), net.now)
    wlan1.etr.solicit(USER, net.now)
    net.wait(3.0)
    # not told by publication alone: dc1 has heard from wlan2, which hears an SMR
    dc1.miss(packet("10.1.0.5", "10.3.0.10"), net.now)
    net.settle()
    dc1.switch(MACHINE, ip_address(RLOCS["dc2"]), net.now)
    dc2.claim(MACHINE, MACHINE_MAC, net.now, pinned=True)
    dc1.etr.correspondents.heard(MACHINE, ip_address(RLOCS["wlan2"]), net.now)
    dc1.etr.solicit(MACHINE, net.now)
    net.wait(3.0)
    dc2.erase(MACHINE, net.now, withdraw=True)
    assert wlan1.appeared(USER, USER_MAC, net.now)
    net.wait(70.0)  # refreshes of registrations and subscriptions
    return net


def kinds(data: bytes) -> set[str]:
    """What a datagram is, in the words of RFC 9301 and 9437."""
    message = decode(data)
    found = {type(message).__name__}
    if isinstance(message, EncapsulatedControlMessage):
        inner = message.message
        found |= {f"ECM {type(inner).__name__}"}
        if isinstance(inner, MapRequest) and inner.subscribes:
            found.add("subscription")
        if isinstance(inner, MapRequest) and inner.smr_invoked:
            found.add("SMR-invoked")
    if isinstance(message, MapRequest):
        found |= {name for name, bit in (("SMR", message.smr), ("probe", message.probe)) if bit}
    if isinstance(message, MapReply):
        found |= {"probe answer"} if message.probe else set()
        found |= {"negative"} if not message.records[0].locators else set()
    if isinstance(message, MapRegister):
        found |= {"withdrawal"} if any(not record.ttl for record in message.records) else set()
        found |= {f"algorithm {message.algorithm_id}"}
    if isinstance(message, MapNotify):
        found |= {"gone"} if any(not record.ttl for record in message.records) else set()
    return found


EXPECTED: Final = {
    "MapRegister", "MapNotify", "MapNotifyAck", "MapReply", "MapRequest", "EncapsulatedControlMessage",
    "ECM MapRequest", "subscription", "SMR", "SMR-invoked", "probe", "probe answer", "negative", "withdrawal",
    "gone", "algorithm 1", "algorithm 2",
}  # fmt: skip


@pytest.fixture(scope="module")
def net() -> Internet:
    return history()


def test_the_history_has_a_message_of_every_kind(net: Internet) -> None:
    said: set[str] = set()
    for one in net.sent:
        said |= kinds(one.data)
    missing = EXPECTED - said
    assert not missing


def test_nobody_refused_what_another_of_ours_said(net: Internet) -> None:
    """But for a subscription that the map server did not keep, nothing: the roles speak the same language."""
    for name, router in ((name, net.router(name)) for name in PREFIXES):
        assert not set(router.refusals.counts) & {"not a LISP message", "message of an unknown type"}, name
        assert not any("key" in reason for reason in router.refusals.counts), name
    assert not {"malformed", "wrong-key", "replay", "unknown-site", "algorithm"} & set(net.server.refusals.counts)
    assert not net.client.refused


def test_tshark_finds_nothing_wrong_in_what_was_sent(net: Internet, tmp_path: Path) -> None:
    capture = tmp_path / "history.pcap"
    capture.write_bytes(pcap([
        pack_ipv4(one.source, one.target, 17, pack_udp(one.source, one.target, 4342, one.port, one.data))
        for one in net.sent
    ]))  # fmt: skip
    seen = dissected(capture)
    assert len(seen) == len(net.sent) > 50
    wrong = [
        (sorted(kinds(one.data)), fields["_ws.malformed"], fields["_ws.expert.message"])
        for one, fields in zip(net.sent, seen, strict=True)
        if fields["_ws.malformed"] or fields["_ws.expert.message"]
    ]
    assert wrong == []
    for one, fields in zip(net.sent, seen, strict=True):
        outer = one.data[0] >> 4
        assert fields["lisp.type"].split(",")[0] == str(outer), "tshark reads the type that was sent"


def test_what_was_sent_reads_back_and_is_written_the_same(net: Internet) -> None:
    for one in net.sent:
        assert decode(one.data).encode() == one.data

