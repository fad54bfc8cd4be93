"""The Map-Requests of an ITR as bytes (RFC 9301, 5.2, 5.3 and 5.8; RFC 9437, 5)."""

from __future__ import annotations

from followme.lisp import EidRecord, EncapsulatedControlMessage, MapRequest

from .outputs import Datagram, IPAddress
from .requests import Ask
from .site import Site, host


def itr_rlocs(site: Site, peer: IPAddress) -> tuple[IPAddress, ...]:
    """Our RLOCs, one of the peer's family first."""
    return tuple(sorted(site.rlocs, key=lambda rloc: rloc.version != peer.version))


def question(site: Site, ask: Ask, nonce: int) -> Datagram | None:
    """The next Map-Request for an ask, to the map resolver whose turn it is; ``None`` where there is none."""
    if not site.resolvers:
        return None
    address, port = site.resolvers[(ask.attempt - 1) % len(site.resolvers)]
    rlocs = itr_rlocs(site, address)
    # A subscription that is refused is not answered at all: then without it.
    subscribe = ask.subscribe and ask.attempt <= 2
    request = MapRequest(
        nonce,
        rlocs,
        (EidRecord(ask.eid, notify=subscribe),),
        source_eid=None if ask.source is None else host(site.iid, ask.source),
        smr_invoked=ask.smr_invoked,
        xtr_id=site.xtr_id if subscribe else None,
        site_id=site.site_id if subscribe else 0,
    )
    # The inner header: from us to the EID asked for. Families must agree in it.
    inner = ask.eid.network.network_address
    source: IPAddress = next((rloc for rloc in rlocs if rloc.version == inner.version), rlocs[0])
    if source.version != inner.version:
        inner, source = address, rlocs[0]
    return Datagram(EncapsulatedControlMessage(source, inner, request).encode(), address, port)
