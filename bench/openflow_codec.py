"""The OpenFlow codec against os-ken's, on the three messages that a table miss costs.

Both do the same work in the same run: rounds of ours and theirs take turns, so that a slow phase of the
machine hits both, and the medians are compared. Nothing is asserted.

    python -m bench.openflow_codec
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from statistics import median
from time import perf_counter
from typing import Any

from os_ken.ofproto import ofproto_parser, ofproto_protocol
from os_ken.ofproto import ofproto_v1_3_parser as osken

from bench.figures import Figure, Say
from followme.openflow import (
    ApplyActions,
    Connection,
    FeaturesReply,
    FlowMod,
    Hello,
    Match,
    Output,
    PacketIn,
    PacketOut,
    Received,
    set_ipv4_dst,
)
from followme.openflow import constants as of

ROUNDS = 15
CALLS = 2000
DATAPATH = ofproto_protocol.ProtocolDesc(version=4)
USER, SERVICE, LOCATOR = (IPv4Address(text) for text in ("10.1.0.5", "10.2.0.5", "10.3.0.5"))
FRAME = bytes(98)
PACKET_IN = PacketIn(of.OFP_NO_BUFFER, len(FRAME), of.OFPR_NO_MATCH, 0, 0, Match(in_port=3), FRAME).pack(1)


@dataclass(frozen=True, slots=True)
class FrozenPacketIn:
    """What ``PacketIn`` would be as a frozen dataclass."""

    buffer_id: int
    total_len: int
    reason: int
    table_id: int
    cookie: int
    match: Match
    data: bytes


def controller() -> Connection:
    connection = Connection(0.0, max_output_bytes=1 << 30)
    connection.receive_data(Hello().pack(1) + FeaturesReply(7).pack(2), 0.0)
    connection.data_to_send()
    return connection


def our_packet_ins(connection: Connection) -> Callable[[int], None]:
    def run(calls: int) -> None:
        connection.receive_data(PACKET_IN * calls, 0.0)

    return run


def their_packet_ins(calls: int) -> None:
    data, offset = PACKET_IN * calls, 0
    while offset < len(data):
        version, kind, length, xid = ofproto_parser.header(data[offset : offset + 8])
        ofproto_parser.msg(DATAPATH, version, kind, length, xid, data[offset : offset + length])
        offset += length


def our_flow_mod() -> FlowMod:
    return FlowMod(
        Match(in_port=3, eth_type=0x0800, ipv4_src=USER, ipv4_dst=SERVICE),
        (ApplyActions((set_ipv4_dst(LOCATOR), Output(4))),),
        idle_timeout=10,
    )


def our_flow_mods(calls: int) -> None:
    for xid in range(calls):
        our_flow_mod().pack(xid)


def their_flow_mods(calls: int) -> None:
    for xid in range(calls):
        actions = [osken.OFPActionSetField(ipv4_dst="10.3.0.5"), osken.OFPActionOutput(4, 0xFFFF)]
        message = osken.OFPFlowMod(
            DATAPATH,
            idle_timeout=10,
            match=osken.OFPMatch(in_port=3, eth_type=0x0800, ipv4_src="10.1.0.5", ipv4_dst="10.2.0.5"),
            instructions=[osken.OFPInstructionActions(of.OFPIT_APPLY_ACTIONS, actions)],
        )
        serialize(message, xid)


def our_packet_outs(calls: int) -> None:
    for xid in range(calls):
        PacketOut(FRAME, (Output(4),), 3).pack(xid)


def their_packet_outs(calls: int) -> None:
    for xid in range(calls):
        actions = [osken.OFPActionOutput(4, 0xFFFF)]
        serialize(osken.OFPPacketOut(DATAPATH, of.OFP_NO_BUFFER, 3, actions, FRAME), xid)


def serialize(message: Any, xid: int) -> None:
    message.set_xid(xid)
    message.serialize()


def our_answers(connection: Connection) -> Callable[[int], None]:
    """A whole controller's turn: read PACKET_INs, answer each with a FLOW_MOD and a PACKET_OUT."""

    def run(calls: int) -> None:
        for event in connection.receive_data(PACKET_IN * calls, 0.0):
            if isinstance(event, Received) and isinstance(event.message, PacketIn):
                connection.send(our_flow_mod())
                connection.send(PacketOut(event.message.data, (Output(4),), event.message.in_port or 0))
        connection.data_to_send()

    return run


def records(calls: int) -> None:
    match = Match(in_port=3)
    for _ in range(calls):
        PacketIn(1, 2, 3, 4, 5, match, FRAME)


def frozen(calls: int) -> None:
    match = Match(in_port=3)
    for _ in range(calls):
        FrozenPacketIn(1, 2, 3, 4, 5, match, FRAME)


def medians(*runs: Callable[[int], None]) -> list[float]:
    """Seconds for one call of each, by rounds that take turns."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, seconds in zip(runs, times, strict=True):
            start = perf_counter()
            run(CALLS)
            seconds.append((perf_counter() - start) / CALLS)
    return [median(seconds) for seconds in times]


def pairs() -> list[tuple[str, Callable[[int], None], Callable[[int], None], str]]:
    return [
        ("receive PACKET_IN", our_packet_ins(controller()), their_packet_ins, "os-ken"),
        ("build and pack FLOW_MOD", our_flow_mods, their_flow_mods, "os-ken"),
        ("build and pack PACKET_OUT", our_packet_outs, their_packet_outs, "os-ken"),
        ("make a PacketIn object", records, frozen, "frozen dataclass"),
    ]


def figures(quick: bool, say: Say) -> list[Figure]:
    """For the runner (``python -m bench``): microseconds of one call."""
    found = []
    for what, ours, theirs, peer in pairs():
        our_time, their_time = medians(ours, theirs)
        found.append(Figure(what, "µs", our_time * 1e6, their_time * 1e6, peer, their_time / our_time))
    return found


def main() -> None:
    for what, ours, theirs, peer in pairs():
        our_time, their_time = medians(ours, theirs)
        ratio = their_time / our_time
        print(f"{what:26} {our_time * 1e6:7.2f} µs, {peer} {their_time * 1e6:7.2f} µs: {ratio:5.1f} times as fast")
    (turn,) = medians(our_answers(controller()))
    print(f"PACKET_IN answered by FLOW_MOD and PACKET_OUT: {turn * 1e6:.2f} µs, {1 / turn:,.0f} a second")


if __name__ == "__main__":
    main()
