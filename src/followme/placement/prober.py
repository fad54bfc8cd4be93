"""The papers' path monitor at work: probes between data centres and access networks, through the data plane.

Every interval each pair gets one UDP datagram in each direction: out of the source's switch by PACKET_OUT, by
way of the router like any user's packet, and up from the destination's switch by PACKET_IN. Its HMAC keeps
hosts from forging delays.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping
from math import inf

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
        if source is None or destination != network.name:
            self.forged += 1
            return
        self.monitor.received(
            source, destination, probe.sequence, probe.sent_s, now,
            self._southbound.half_round_trip(self._networks[source].datapath),
            self._southbound.half_round_trip(network.datapath),
        )  # fmt: skip

    def delays(self) -> dict[tuple[str, str], float | None]:
        """(access network, data centre) -> one-way delay in seconds: the mean of both directions.

        Infinite if one of them is dead: ``LocationMapper.rank`` puts such a data centre behind those that can
        be reached. A pair of which nothing is known yet is not there.
        """
        now = self._clock()
        measured, dead = self.monitor.delays(now), self.monitor.dead(now)
        delays: dict[tuple[str, str], float | None] = {}
        for there, back in self._both_ways():
            if there in dead or back in dead:
                delays[there] = inf
            elif there in measured and back in measured:
                delays[there] = (measured[there] + measured[back]) / 2
        return delays

    def losses(self) -> dict[tuple[str, str], float]:
        """(access network, data centre) -> the share of the last probes that were lost, in the worse direction."""
        now = self._clock()
        losses: dict[tuple[str, str], float] = {}
        for ways in self._both_ways():
            found = [one for way in ways if (one := self.monitor.estimate(*way, now)) and one.probes]
            if found:
                losses[ways[0]] = max(one.loss for one in found)
        return losses

    def _both_ways(self) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
        """Each pair as (access network, data centre), and the other way round."""
        kinds = {kind: [one.name for one in self._networks.values() if one.kind is kind] for kind in NetworkKind}
        for access, centre in itertools.product(kinds[NetworkKind.ACCESS], kinds[NetworkKind.DATACENTRE]):
            yield (access, centre), (centre, access)

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
        self._southbound.send(source.datapath, [PacketOut(frame, (Output(source.uplink_port),))])
