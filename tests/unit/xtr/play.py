"""A tunnel router's control plane on a stage: what it is sent and what it does, in bytes, by a clock of ours."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from itertools import count
from typing import TypeVar

from followme.lisp import (
    EidPrefix,
    EncapsulatedControlMessage,
    Locator,
    MapNotify,
    MapNotifyAck,
    MappingRecord,
    MapRegister,
    MapReply,
    MapRequest,
    decode,
    sign,
)
from followme.xtr.control import Control
from followme.xtr.outputs import Datagram, IPAddress, Output
from followme.xtr.residents import Policy
from followme.xtr.site import MapServer, Site

KEY = b"a key for the stage"
MS = IPv4Address("192.0.2.18")
RLOC = IPv4Address("192.0.2.10")
FAR, OTHER, STRANGER = (IPv4Address(f"192.0.2.{n}") for n in (2, 6, 99))
MAC, MAC2 = bytes.fromhex("020000000010"), bytes.fromhex("020000000011")
OWN_MAC = bytes.fromhex("02fc0000a001")
XTR = bytes(range(16))
T = TypeVar("T")

SITE = Site(
    prefixes=(EidPrefix.of("10.3.0.0/24"),),
    space=(EidPrefix.of("10.0.0.0/8"), EidPrefix.of("fd00::/16")),
    locators=(Locator(RLOC, local=True),),
    resolvers=((MS, 4342),),
    servers=(MapServer(MS, 4342, KEY),),
    xtr_id=XTR,
    site_id=3,
    probe_interval_s=0.0,
)
POLICY = Policy((EidPrefix.of("10.4.0.0/16"),), {}, frozenset(), frozenset({OWN_MAC}), 4, 2)


def eid(text: str) -> EidPrefix:
    return EidPrefix.of(text)


def record(text: str, *rlocs: IPAddress, ttl: int = 1440, action: int = 0) -> MappingRecord:
    return MappingRecord(eid(text), tuple(Locator(rloc) for rloc in rlocs), ttl, action)


def packet(source: str, target: str, octets: int = 28) -> bytes:
    """An IPv4 or IPv6 packet, as far as the control plane reads it."""
    ends = ip_address(source).packed + ip_address(target).packed
    head = b"\x45" + bytes(11) + ends if len(ends) == 8 else b"\x60" + bytes(7) + ends
    return head + bytes(max(octets - len(head), 0))


class Stage:
    """``now`` moves by ``wait``; ``out`` has what the last calls caused."""

    def __init__(self, policy: Policy = POLICY, **changes: float) -> None:
        self.site: Site = replace(SITE, **changes)  # type: ignore[arg-type]
        self.now = 1000.0
        nonces = count(1 << 60)
        self.control = Control(self.site, policy, 1_750_000_000.0, self.now, lambda: next(nonces))
        self.out: list[Output] = []
        self.nonce = 1 << 59

    def take(self) -> list[Output]:
        self.out = self.control.take()
        return self.out

    def settle(self) -> None:
        """Run the first timer and confirm all registrations."""
        self.control.timer(self.now)
        for register in self.sent(MapRegister):
            self.notify(*register.records, nonce=register.nonce)
        self.take()

    def wait(self, seconds: float) -> list[Output]:
        """Let time pass, in the steps that the control plane asks for."""
        end = self.now + seconds
        while True:
            due = self.control.next_timer()
            if due is None or due > end:
                break
            self.now = max(due, self.now + 0.001)
            self.control.timer(self.now)
        self.now = end
        return self.take()

    def receive(self, data: bytes, source: IPAddress = MS, port: int = 4342) -> list[Output]:
        self.control.receive(data, source, port, self.now)
        return self.take()

    def miss(self, source: str, target: str) -> list[Output]:
        self.control.miss(packet(source, target), self.now)
        return self.take()

    def learn(self, target: str, *records: MappingRecord, confirm: bool = True) -> None:
        """A miss, its Map-Reply, and the subscription that follows."""
        self.miss("10.3.0.5", target)
        request = next(r for r in self.requests() if r.records[0].eid.length in (32, 128))
        self.receive(MapReply(request.nonce, records).encode())
        subscriptions = [r for r in self.requests() if r.subscribes]
        if confirm and subscriptions:
            self.nonce = subscriptions[-1].nonce
            self.notify(*records, nonce=self.nonce)

    def notify(
        self, *records: MappingRecord, nonce: int, key: bytes = KEY, source: IPAddress = MS
    ) -> list[Output]:
        return self.receive(sign(MapNotify(nonce, records, XTR, 3), key).encode(), source)

    def publish(self, *records: MappingRecord) -> list[Output]:
        """The next publication of the subscription of ``learn``."""
        self.nonce += 1
        return self.notify(*records, nonce=self.nonce)

    # -- what came out

    def all(self, kind: type[T]) -> list[T]:
        return [one for one in self.out if isinstance(one, kind)]

    def datagrams(self, to: IPAddress | None = None) -> list[Datagram]:
        return [one for one in self.all(Datagram) if to in (None, one.address)]

    def sent(self, kind: type[T], to: IPAddress | None = None) -> list[T]:
        if not self.out:
            self.take()
        messages = [decode(one.data) for one in self.datagrams(to)]
        return [one for one in messages if isinstance(one, kind)]

    def requests(self) -> list[MapRequest]:
        """Map-Requests to the map system."""
        inner = [one.message for one in self.sent(EncapsulatedControlMessage)]
        return [one for one in inner if isinstance(one, MapRequest)]

    def asked(self) -> MapRequest:
        found = self.requests()
        assert len(found) == 1, found
        return found[0]

    def acks(self) -> list[MapNotifyAck]:
        return self.sent(MapNotifyAck)

    def refused(self, reason: str) -> int:
        return self.control.refusals.counts[reason]
