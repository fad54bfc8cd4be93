"""The connection under any input, cut anywhere: events or Closed, never an exception, within its bounds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from followme.openflow import (
    BarrierReply,
    Closed,
    Connection,
    EchoReply,
    EchoRequest,
    ErrorMsg,
    Event,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    Hello,
    Match,
    Message,
    MultipartReply,
    PacketIn,
    PacketOut,
    Port,
    Side,
    Unknown,
)
from followme.openflow import constants as of

FEATURES = FeaturesReply(7)
MESSAGES: list[Message] = [
    Hello(),
    Hello(1, None),
    FEATURES,
    FeaturesRequest(),
    EchoRequest(b"abc"),
    EchoReply(),
    ErrorMsg(1, 1, b"abc"),
    BarrierReply(),
    PacketIn(1, 2, 0, 4, 5, Match(in_port=3), b"frame"),
    PacketIn(1, 2, 0, 4, 5, Match(in_port=3, eth_type=0x0800, ip_proto=17), bytes(100)),
    PacketOut(b"frame", ()),
    FlowMod(Match(in_port=3)),
    MultipartReply(of.OFPMP_PORT_DESC, (Port(1, bytes(6), "p1"),), of.OFPMPF_REPLY_MORE),
    MultipartReply(of.OFPMP_PORT_DESC, (Port(2, bytes(6), "p2"),)),
    MultipartReply(of.OFPMP_GROUP, raw=b"abc", flags=of.OFPMPF_REPLY_MORE),
    Unknown(200, b"abc"),
]
LIMIT = 2000

sides = st.sampled_from(Side)
packed = st.builds(lambda message, xid: message.pack(xid), st.sampled_from(MESSAGES), st.integers(1, 4))
streams = st.lists(packed | packed | packed | st.binary(max_size=20), max_size=12).map(b"".join)


def new(side: Side) -> Connection:
    return Connection(
        0.0,
        side=side,
        features=FEATURES if side is Side.SWITCH else None,
        max_output_bytes=LIMIT,
        max_multipart_bytes=500,
    )


def feed(connection: Connection, chunks: list[bytes]) -> tuple[list[Event], bytes]:
    events: list[Event] = []
    for chunk in chunks:
        events += connection.receive_data(chunk, 1.0)
    return events, connection.data_to_send()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def handshake(side: Side) -> bytes:
    """What the peer of ``side`` sends until Ready."""
    return Hello().pack(1) + (FeaturesRequest() if side is Side.SWITCH else FEATURES).pack(2)


@given(sides, st.booleans(), streams, st.lists(st.integers(0, 2000), max_size=20))
def test_where_a_stream_is_cut_changes_nothing(
    side: Side, agreed: bool, stream: bytes, places: list[int]
) -> None:
    if agreed:
        stream = handshake(side) + stream
    whole = feed(new(side), [stream])
    assert feed(new(side), cut(stream, places)) == whole
    assert feed(new(side), [stream[i : i + 1] for i in range(len(stream))]) == whole


@given(
    sides, st.booleans(), st.lists(streams | st.binary(max_size=200), max_size=6), st.lists(st.floats(0, 30))
)
@settings(max_examples=200)
def test_any_history_gives_events_until_closed_within_the_bounds(
    side: Side, agreed: bool, chunks: list[bytes], waits: list[float]
) -> None:
    connection = new(side)
    events: list[Event] = connection.receive_data(handshake(side) if agreed else b"", 0.0)
    now = 0.0
    for number, chunk in enumerate(chunks):
        events += connection.receive_data(chunk, now)
        now += waits[number] if number < len(waits) else 0.0
        events += connection.handle_timer(now)
    closed = [event for event in events if isinstance(event, Closed)]
    assert closed in ([], events[-1:])
    assert (connection.next_timer() is None) == bool(closed)
    assert len(connection.data_to_send()) <= LIMIT
