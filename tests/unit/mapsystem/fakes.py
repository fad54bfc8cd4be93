"""Routers and sites for the tests of the map server."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from followme.lisp import (
    EidPrefix,
    EidRecord,
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
from followme.mapsystem import Datagram, MapServer, Outcome, Settings, Site, SitePrefix

KEYS = {name: f"secret of {name}".encode() for name in ("dc1", "dc2", "wlan1", "wlan2", "ctl")}
RLOCS = {"dc1": "192.0.2.1", "dc2": "192.0.2.5", "wlan1": "192.0.2.9", "wlan2": "192.0.2.13", "ctl": "192.0.2.17"}
PREFIXES = {"dc1": "10.1.0.0/24", "dc2": "10.2.0.0/24", "wlan1": "10.3.0.0/24", "wlan2": "10.4.0.0/24"}
IDS = {name: number for number, name in enumerate(KEYS, 1)}


def eid(text: str, iid: int = 0) -> EidPrefix:
    return EidPrefix.of(text, iid)


def site(name: str, **changes: object) -> Site:
    own = (SitePrefix(eid(PREFIXES[name])),) if name in PREFIXES else ()
    visitors = tuple(eid(prefix) for other, prefix in PREFIXES.items() if other != name)
    values: dict[str, object] = {
        "keys": {0: KEYS[name]}, "site_id": IDS[name], "prefixes": own, "visitors": visitors,
    }  # fmt: skip
    return Site(name, **{**values, **changes})  # type: ignore[arg-type]


def server(*sites: Site, **settings: object) -> MapServer:
    return MapServer(
        sites or tuple(site(name) for name in KEYS), Settings(**settings), nonce=1 << 40  # type: ignore[arg-type]
    )


def record(prefix: str, *rlocs: str, ttl: int = 1440) -> MappingRecord:
    return MappingRecord(eid(prefix), tuple(Locator(ip_address(one)) for one in rlocs), ttl)


@dataclass
class Router:
    """An xTR that speaks to a map server and keeps what it is sent."""

    server: MapServer
    name: str
    nonce: int = 100
    port: int = 4342
    host: str = ""
    xtr: bytes = b""
    last: list[Datagram] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.host = self.host or RLOCS[self.name]
        self.xtr = self.xtr or self.name.encode().ljust(16, b".")

    @property
    def source(self) -> tuple[str, int]:
        return self.host, self.port

    def send(self, data: bytes, now: float = 0.0) -> Outcome:
        outcome = self.server.receive(data, self.source, now)
        self.last = outcome.datagrams
        return outcome

    def registration(self, *records: MappingRecord, key: bytes = b"", key_id: int = 0, **flags: object) -> bytes:
        self.nonce += 1
        values: dict[str, object] = {
            "nonce": self.nonce, "proxy_map_reply": True, "want_map_notify": True, "xtr_id": self.xtr,
            "site_id": IDS[self.name],
        }  # fmt: skip
        message = MapRegister(records=records, **{**values, **flags})  # type: ignore[arg-type]
        return sign(message, key or KEYS[self.name], key_id=key_id).encode()

    def register(self, *records: MappingRecord, now: float = 0.0, **flags: object) -> Outcome:
        return self.send(self.registration(*records, **flags), now)  # type: ignore[arg-type]

    def own(self, prefix: str, now: float = 0.0, **flags: object) -> Outcome:
        """It registers ``prefix`` at its own RLOC."""
        return self.register(record(prefix, self.host), now=now, **flags)

    def subscription(self, *prefixes: str, rloc: str | None = "", nonce: int = 0) -> bytes:
        """A Map-Request; ``rloc`` is our own if it is empty, AFI 0 if it is ``None``."""
        self.nonce += 1
        rlocs = (None if rloc is None else ip_address(rloc or self.host),)
        asked = tuple(EidRecord(eid(prefix), True) for prefix in prefixes)
        return MapRequest(nonce or self.nonce, rlocs, asked, xtr_id=self.xtr, site_id=IDS[self.name]).encode()

    def subscribe(self, *prefixes: str, now: float = 0.0) -> Outcome:
        """Ask, and acknowledge the confirmation."""
        outcome = self.send(self.subscription(*prefixes), now)
        return self.acknowledge(outcome.datagrams[0], now)

    def acknowledge(self, datagram: Datagram, now: float = 0.0, key: bytes = b"") -> Outcome:
        notify = decode(datagram.data)
        assert isinstance(notify, MapNotify)
        ack = MapNotifyAck(notify.nonce, notify.records, notify.xtr_id, notify.site_id)
        return self.send(sign(ack, key or KEYS[self.name], key_id=notify.key_id).encode(), now)


def request(text: str, iid: int = 0, plain: bool = False) -> bytes:
    """A Map-Request for it, in an ECM unless ``plain``."""
    asked = eid(text, iid)
    address = asked.network.network_address
    rlocs = (IPv4Address("198.51.100.7"),)
    message = MapRequest(77, rlocs, (EidRecord(asked),))
    inner: IPv4Address | IPv6Address = rlocs[0] if address.version == 4 else IPv6Address("::1")
    ecm = EncapsulatedControlMessage(inner, address, message, source_port=5000)
    return message.encode() if plain else ecm.encode()


def ask(server: MapServer, text: str, now: float = 0.0, iid: int = 0, plain: bool = False) -> Outcome:
    return server.receive(request(text, iid, plain), ("198.51.100.7", 5000), now)


def answer(server: MapServer, text: str, iid: int = 0) -> tuple[MappingRecord, ...]:
    """What a Map-Request for it is answered."""
    (datagram,) = ask(server, text, iid=iid).datagrams
    reply = decode(datagram.data)
    assert isinstance(reply, MapReply)
    assert reply.nonce == 77
    assert datagram[1:3] == ("198.51.100.7", 5000)
    return reply.records


def notifies(outcome: Outcome, host: str) -> list[MapNotify]:
    found = []
    for datagram in outcome.datagrams:
        message = decode(datagram.data)
        if datagram.host == host and isinstance(message, MapNotify):
            found.append(message)
    return found
