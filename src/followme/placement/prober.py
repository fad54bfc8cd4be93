"""The papers' path monitor at work: probes between data centres and access networks, through the data plane.

Every interval each pair gets one UDP datagram in each direction: out of the source's switch by PACKET_OUT, by
way of the router like any user's packet, and up from the destination's switch by PACKET_IN. Its HMAC keeps
hosts from forging delays.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Mapping
from math import inf, nan

import numpy as np
from numpy.typing import NDArray

from followme.continuity.pipeline import PROBE_PORT, edge_mac
from followme.continuity.southbound import Southbound
from followme.domain import Network, NetworkKind
from followme.openflow import Output, PacketOut
from followme.packets import PacketError
from followme.packets.ethernet import parse_ethernet
from followme.packets.ipv4 import parse_ipv4
from followme.packets.probe import pack_probe, parse_probe, probe_at
from followme.packets.udp import parse_udp, udp_frame
from followme.placement.paths import PathMonitor

PER_TURN = 256
"""Probes sent before the event loop gets a turn: ten thousand pairs must not hold up a redirect."""
STALE_PROBES = 10
STALE_S = 5.0
"""A path is dead when that many intervals, and at least that long, have brought no probe through."""

Floats = NDArray[np.float64]
_DELAY, _LOSS, _UNTIL = range(3)


class PathProber:
    """Sends and receives the probes; ``monitor`` keeps what they say."""

    def __init__(
        self,
        networks: Mapping[str, Network],
        southbound: Southbound,
        interval_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.monitor = PathMonitor(stale_s=max(STALE_S, STALE_PROBES * interval_s))
        self.forged = 0
        self._networks = networks
        self._southbound = southbound
        self._interval_s = interval_s
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._ids = {name: number for number, name in enumerate(networks, start=1)}
        self._names = {number: name for name, number in self._ids.items()}
        of = {kind: [one.name for one in networks.values() if one.kind is kind] for kind in NetworkKind}
        self.centres = tuple(of[NetworkKind.DATACENTRE])
        """The order of what ``measured`` returns."""
        self._number = {name: number for number, name in enumerate(self.centres)}
        # (what, there and back, data centre); nothing sent yet: alive without end.
        blank = np.full((3, 2, len(self.centres)), nan)
        blank[_UNTIL] = inf
        self._columns = {name: blank.copy() for name in of[NetworkKind.ACCESS]}

    async def run(self) -> None:
        """Probe for ever."""
        pairs = [
            (one, other)
            for one, other in itertools.permutations(self._networks.values(), 2)
            if {one.kind, other.kind} == {NetworkKind.ACCESS, NetworkKind.DATACENTRE}
        ]
        for sequence in itertools.count():
            for number, (source, destination) in enumerate(pairs):
                self._send(source, destination, sequence)
                if number % PER_TURN == PER_TURN - 1:
                    await asyncio.sleep(0)
            await asyncio.sleep(self._interval_s)

    def _alike(self, one: str, other: str) -> bool:
        """Two networks of one kind: no probe goes between them."""
        return (one in self._columns) == (other in self._columns)

    def received(self, network: Network, frame: bytes) -> None:
        """A probe came up from ``network``'s switch; anything else there is counted and dropped."""
        now = self._clock()
        try:
            packet = parse_ipv4(frame, parse_ethernet(frame).payload_offset)
            probe = parse_probe(parse_udp(packet.payload).payload, self._key)
        except PacketError:
            self.forged += 1
            return
        source, destination = self._names.get(probe.source), self._names.get(probe.destination)
        if source is None or destination != network.name or self._alike(source, destination):
            self.forged += 1
            return
        took = self.monitor.received(
            source, destination, probe.sequence, probe.sent_s, now,
            self._southbound.half_round_trip(self._networks[source].datapath),
            self._southbound.half_round_trip(network.datapath),
        )  # fmt: skip
        if took:
            self._note(source, destination, now)

    def measured(self, access: str) -> tuple[Floats, Floats]:
        """(delays, losses) from ``access`` to each of ``centres``; ``ValueError`` if it is no access network.

        A delay is one way, in seconds, the mean of both directions: NaN if one of them is not known, infinite if
        one is dead, so that such a data centre is behind those that can be reached. A loss is the share of the
        last probes that were lost, in the worse direction (as of the last probe sent), NaN if none is due yet.
        """
        found = self._columns.get(access)
        if found is None:
            raise ValueError(f"{access!r} is not an access network")
        delays: Floats = (found[_DELAY, 0] + found[_DELAY, 1]) / 2.0
        delays[np.minimum(found[_UNTIL, 0], found[_UNTIL, 1]) < self._clock()] = inf
        return delays, np.fmax(found[_LOSS, 0], found[_LOSS, 1])

    def _note(self, source: str, destination: str, now: float) -> None:
        """Bring the column of one direction up to date, so that reading them all costs next to nothing."""
        one = self.monitor.estimate(source, destination, now)
        if one is None:
            return
        there = source in self._columns
        access, centre = (source, destination) if there else (destination, source)
        column = self._columns[access][:, 0 if there else 1, self._number[centre]]
        column[_DELAY] = nan if one.delay_s is None else one.delay_s
        column[_LOSS] = one.loss if one.probes else nan
        column[_UNTIL] = one.alive_until

    def _send(self, source: Network, destination: Network, sequence: int) -> None:
        if not self._southbound.connected(source.datapath):
            return
        now = self._clock()
        probe = probe_at(self._ids[source.name], self._ids[destination.name], sequence, now)
        frame = udp_frame(
            source.router_mac, edge_mac(source), source.probe_address, destination.probe_address,
            PROBE_PORT, PROBE_PORT, pack_probe(probe, self._key),
        )  # fmt: skip
        self.monitor.sent(source.name, destination.name, sequence, now)
        self._note(source.name, destination.name, now)
        self._southbound.send(source.datapath, [PacketOut(frame, (Output(source.uplink_port),))])
