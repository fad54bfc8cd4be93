"""Whatever a switch sends, in whatever pieces: its own connection may end, and nothing else happens."""

from __future__ import annotations

import asyncio
import itertools
from ipaddress import IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st

from followme.continuity.channel import Channel
from followme.continuity.ledger import Ledger
from followme.continuity.southbound import Handlers, Southbound
from followme.domain import Network, NetworkKind
from followme.openflow import (
    BarrierReply,
    EchoRequest,
    ErrorMsg,
    FeaturesReply,
    Hello,
    Match,
    MultipartReply,
    PacketIn,
    Port,
    PortStatus,
)
from followme.openflow.constants import OFPMP_PORT_DESC


class Wire(asyncio.Transport):
    """A transport into nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def write(self, data: object) -> None:
        assert not self.ended, "nothing is written to a connection that has ended"

    def abort(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default


HELLO, FEATURES = Hello().pack(1), FeaturesReply(1).pack(2)
right = st.sampled_from([
    HELLO, FEATURES, FeaturesReply(2).pack(3), EchoRequest(b"x").pack(4), BarrierReply().pack(3),
    PacketIn(0, 1, 0, 0, 0, Match(in_port=1), b"frame").pack(5), ErrorMsg(1, 2, b"\x04\x0e").pack(6),
    PortStatus(0, Port(1, bytes(6), "p")).pack(7),
    MultipartReply(OFPMP_PORT_DESC, (Port(1, bytes(6), "p"),)).pack(4),
])  # fmt: skip
header = st.builds(
    lambda kind, length, body: bytes([4, kind]) + length.to_bytes(2, "big") + b"\0\0\0\3" + body,
    st.integers(0, 255), st.integers(0, 80), st.binary(max_size=80),
)  # fmt: skip
pieces = st.lists(right | right | header | st.binary(max_size=40), max_size=8)


def network(datapath: int) -> Network:
    prefix = IPv4Network(f"10.{datapath}.0.0/24")
    return Network(f"net{datapath}", NetworkKind.ACCESS, datapath, 1, bytes(6), prefix, prefix, prefix[1], prefix)


@given(handshake=st.booleans(), said=pieces, cuts=st.lists(st.integers(0, 600), max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_bytes_in_any_pieces(handshake: bool, said: list[bytes], cuts: list[int]) -> None:
    async def run() -> None:
        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
        seen: list[PacketIn] = []
        southbound = Southbound([network(1)], Ledger(1), Handlers(lambda where, message: seen.append(message)))
        channel, wire = Channel(southbound), Wire()
        channel.connection_made(wire)
        data = (HELLO + FEATURES if handshake else b"") + b"".join(said)
        edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        for start, end in itertools.pairwise(edges):
            if not wire.ended:
                channel.data_received(data[start:end])
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert southbound.counters.faults == 0
        assert southbound.connected(1) <= (not wire.ended), "one that has ended does not count as connected"
        channel.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not southbound.connected(1)
        assert not southbound._open
        assert failures == []
        assert len(asyncio.all_tasks()) == 1, "nothing waits for a connection that has ended"

    asyncio.run(run())
