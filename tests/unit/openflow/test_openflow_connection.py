"""Histories of a connection, without a socket and with a clock of our own (OpenFlow 1.3.5, 6.3)."""

from __future__ import annotations

import pytest

from followme.openflow import (
    BarrierRequest,
    Closed,
    Connection,
    EchoReply,
    EchoRequest,
    ErrorMsg,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    GetConfigRequest,
    Hello,
    Match,
    Message,
    MultipartReply,
    NotConnected,
    OpenFlowError,
    OutputFull,
    PacketIn,
    PacketOut,
    Port,
    Ready,
    Received,
    RoundTrip,
    Side,
    State,
    TableStats,
    Unknown,
    parse,
)
from followme.openflow import constants as of

FEATURES = FeaturesReply(datapath_id=7)
PACKET_IN = PacketIn(of.OFP_NO_BUFFER, 5, of.OFPR_NO_MATCH, 0, 0, Match(in_port=3), b"frame")


def sent(connection: Connection) -> list[tuple[int, Message]]:
    """What the connection has to say, taken apart."""
    data, messages = connection.data_to_send(), []
    while data:
        length = int.from_bytes(data[2:4], "big")
        messages.append(parse(data[:length]))
        data = data[length:]
    return messages


def ready(now: float = 0.0, *, max_output_bytes: int = 1 << 20, max_multipart_bytes: int = 1 << 20) -> Connection:
    """A controller's connection behind its handshake."""
    connection = Connection(
        now,
        echo_interval=5.0,
        echo_timeout=10.0,
        max_output_bytes=max_output_bytes,
        max_multipart_bytes=max_multipart_bytes,
    )
    assert connection.receive_data(Hello().pack(1) + FEATURES.pack(2), now) == [Ready(FEATURES)]
    connection.data_to_send()
    return connection


def test_the_controller_says_hello_then_asks_who_is_there() -> None:
    connection = Connection(0.0)
    states = [connection.state]
    assert sent(connection) == [(1, Hello())]
    assert connection.receive_data(Hello().pack(9), 0.1) == []
    states.append(connection.state)
    assert sent(connection) == [(2, FeaturesRequest())]
    assert connection.receive_data(FEATURES.pack(2), 0.2) == [Ready(FEATURES)]
    states.append(connection.state)
    assert states == [State.WAIT_HELLO, State.WAIT_FEATURES, State.READY]
    assert connection.features == FEATURES


def test_both_sides_talk_to_each_other() -> None:
    controller = Connection(0.0)
    switch = Connection(0.0, side=Side.SWITCH, features=FEATURES)
    assert controller.receive_data(switch.data_to_send(), 0.0) == []
    assert switch.receive_data(controller.data_to_send(), 0.0) == [Ready(FEATURES)]
    assert controller.receive_data(switch.data_to_send(), 0.0) == [Ready(FEATURES)]
    xid = controller.send(BarrierRequest())
    assert switch.receive_data(controller.data_to_send(), 0.0) == [Received(xid, BarrierRequest())]
    switch.send(PACKET_IN, xid=77)
    assert controller.receive_data(switch.data_to_send(), 0.0) == [Received(77, PACKET_IN)]


def test_a_switch_answers_a_second_features_request_by_itself() -> None:
    switch = Connection(0.0, side=Side.SWITCH, features=FEATURES)
    request = FeaturesRequest()
    events = switch.receive_data(Hello().pack(1) + request.pack(2) + request.pack(3), 0.0)
    assert events == [Ready(FEATURES)]
    assert sent(switch)[1:] == [(2, FEATURES), (3, FEATURES)]


def test_a_switch_hears_requests_that_come_before_the_features_request() -> None:
    switch = Connection(0.0, side=Side.SWITCH, features=FEATURES)
    events = switch.receive_data(Hello().pack(1) + GetConfigRequest().pack(2), 0.0)
    assert events == [Received(2, GetConfigRequest())]


def test_a_switch_must_say_who_it_is() -> None:
    with pytest.raises(ValueError, match="a switch has features"):
        Connection(0.0, side=Side.SWITCH)


@pytest.mark.parametrize(
    "hello",
    [
        Hello(4, None),
        Hello(5, None),  # 5 without a bitmap: the lower of both versions is 4
        Hello(4, (4,)),
        Hello(6, (1, 4, 6)),
    ],
)
def test_version_4_is_agreed_on(hello: Hello) -> None:
    connection = Connection(0.0)
    assert connection.receive_data(hello.pack(1), 0.0) == []
    assert connection.state is State.WAIT_FEATURES


@pytest.mark.parametrize(
    ("hello", "offer"),
    [
        (Hello(1, None), "version 1"),
        (Hello(3, None), "version 3"),
        (Hello(6, (5, 6)), "versions 5, 6"),
        (Hello(4, ()), "versions"),
    ],
)
def test_no_common_version_is_said_to_the_peer_before_the_end(hello: Hello, offer: str) -> None:
    connection = Connection(0.0)
    connection.data_to_send()
    (closed,) = connection.receive_data(hello.pack(9), 0.0)
    assert isinstance(closed, Closed)
    assert f"peer offers {offer}" in closed.reason
    ((xid, error),) = sent(connection)
    assert xid == 9
    assert isinstance(error, ErrorMsg)
    assert error.name == "OFPET_HELLO_FAILED/OFPHFC_INCOMPATIBLE"


def test_the_first_message_must_be_a_hello() -> None:
    connection = Connection(0.0)
    (closed,) = connection.receive_data(EchoRequest().pack(1), 0.0)
    assert isinstance(closed, Closed)
    assert "must be OFPT_HELLO" in closed.reason


def test_a_peer_may_refuse_us() -> None:
    connection = Connection(0.0)
    refusal = ErrorMsg(of.OFPET_HELLO_FAILED, of.OFPHFC_EPERM, b"go away")
    events = connection.receive_data(Hello().pack(1) + refusal.pack(1), 0.0)
    assert events == [Closed("peer refused the handshake: OFPET_HELLO_FAILED/OFPHFC_EPERM go away")]


def test_what_comes_before_the_features_is_dropped_and_echoes_are_answered() -> None:
    connection = Connection(0.0)
    connection.data_to_send()
    early = Hello().pack(1) + PACKET_IN.pack(0) + EchoRequest(b"?").pack(5)
    assert connection.receive_data(early, 0.0) == []
    assert sent(connection) == [(2, FeaturesRequest()), (5, EchoReply(b"?"))]
    assert connection.receive_data(FEATURES.pack(2), 0.0) == [Ready(FEATURES)]


def test_echo_requests_are_answered_with_their_data() -> None:
    connection = ready()
    assert connection.receive_data(EchoRequest(b"abc").pack(99), 1.0) == []
    assert sent(connection) == [(99, EchoReply(b"abc"))]


def test_messages_arrive_in_order_however_they_are_cut() -> None:
    messages: list[Message] = [PACKET_IN, ErrorMsg(1, 1, b"x"), Unknown(200, b"abc"), PACKET_IN]
    stream = b"".join(message.pack(i) for i, message in enumerate(messages))
    expected = [Received(i, message) for i, message in enumerate(messages)]
    for size in (1, 7, 8, 9, 50, len(stream)):
        connection = ready()
        events = []
        for start in range(0, len(stream), size):
            events += connection.receive_data(stream[start : start + size], 0.0)
        assert events == expected


def test_a_reused_buffer_does_not_change_what_was_received() -> None:
    buffer = bytearray(PACKET_IN.pack(1))
    events = ready().receive_data(memoryview(buffer), 0.0)
    buffer[:] = bytes(len(buffer))
    assert events == [Received(1, PACKET_IN)]


def test_another_version_after_hello_ends_the_connection_and_what_came_before_is_kept() -> None:
    connection = ready()
    wrong = b"\x05" + PACKET_IN.pack(2)[1:]
    events = connection.receive_data(PACKET_IN.pack(1) + wrong + PACKET_IN.pack(3), 0.0)
    assert events == [
        Received(1, PACKET_IN),
        Closed("peer broke the protocol: OFPT_PACKET_IN at byte 0: version 0x05 is not 0x04"),
    ]
    assert connection.receive_data(PACKET_IN.pack(4), 0.0) == []


def test_a_length_shorter_than_the_header_ends_the_connection() -> None:
    (closed,) = ready().receive_data(bytes.fromhex("04 0a 0000 00000001"), 0.0)
    assert isinstance(closed, Closed)
    assert "length 0 is less than that of the header" in closed.reason


def test_the_place_of_an_error_is_counted_from_its_own_message() -> None:
    broken = bytearray(PACKET_IN.pack(2))
    broken[26:28] = b"\0\3"  # the match's length
    (_, closed) = ready().receive_data(PACKET_IN.pack(1) + broken, 0.0)
    assert isinstance(closed, Closed)
    assert "OFPT_PACKET_IN at byte 24: match length 3" in closed.reason


def test_a_second_hello_has_no_effect() -> None:
    assert ready().receive_data(Hello(1, None).pack(1), 0.0) == []


# Timers


def test_a_silent_peer_does_not_hold_the_connection_before_the_handshake() -> None:
    connection = Connection(100.0, handshake_timeout=10.0)
    assert connection.next_timer() == 110.0
    assert connection.handle_timer(109.9) == []
    assert connection.handle_timer(110.0) == [Closed("no handshake in time, in state WAIT_HELLO")]
    assert connection.next_timer() is None
    assert connection.handle_timer(200.0) == []


def test_a_hello_alone_does_not_stop_the_handshake_timer() -> None:
    connection = Connection(0.0, handshake_timeout=10.0)
    connection.receive_data(Hello().pack(1), 9.0)
    assert connection.handle_timer(10.0) == [Closed("no handshake in time, in state WAIT_FEATURES")]


def test_echoes_measure_the_round_trip() -> None:
    connection = ready(100.0)
    assert connection.next_timer() == 105.0
    assert connection.handle_timer(105.0) == []
    ((xid, request),) = sent(connection)
    assert request == EchoRequest()
    assert connection.receive_data(EchoReply().pack(xid), 105.25) == [RoundTrip(0.25)]
    assert connection.next_timer() == 110.25


def test_an_echo_that_the_caller_asked_for_is_the_callers() -> None:
    connection = ready()
    xid = connection.send(EchoRequest(b"mine"))
    assert connection.receive_data(EchoReply(b"mine").pack(xid), 1.0) == [Received(xid, EchoReply(b"mine"))]


def test_a_peer_that_answers_no_echo_and_sends_nothing_is_gone() -> None:
    connection = ready(0.0)
    connection.handle_timer(5.0)
    assert connection.next_timer() == 15.0
    assert connection.handle_timer(14.9) == []
    (closed,) = connection.handle_timer(15.0)
    assert closed == Closed("peer silent for 15.0 s, echo request unanswered")


def test_a_busy_peer_may_answer_late() -> None:
    connection = ready(0.0)
    connection.handle_timer(5.0)
    ((xid, _),) = sent(connection)
    connection.receive_data(PACKET_IN.pack(0), 14.0)
    assert connection.next_timer() == 24.0
    assert connection.receive_data(EchoReply().pack(xid), 20.0) == [RoundTrip(15.0)]


def test_the_caller_may_end_it_once() -> None:
    connection = ready()
    assert connection.close("end of file") == [Closed("end of file")]
    assert connection.close("again") == []


# Sending


def test_each_message_gets_the_next_xid() -> None:
    connection = ready()
    first = connection.send(BarrierRequest())
    assert connection.send(FlowMod()) == first + 1
    assert sent(connection) == [(first, BarrierRequest()), (first + 1, FlowMod())]


def test_behind_the_highest_xid_comes_1() -> None:
    connection = ready()
    connection._next_xid = 0xFFFFFFFF
    assert [connection.send(BarrierRequest()) for _ in range(2)] == [0xFFFFFFFF, 1]


def test_nothing_is_sent_before_hello_or_after_the_end() -> None:
    connection = Connection(0.0)
    with pytest.raises(NotConnected, match="WAIT_HELLO"):
        connection.send(BarrierRequest())
    connection.close("over")
    with pytest.raises(NotConnected, match="CLOSED"):
        connection.send(BarrierRequest())


def test_what_cannot_be_packed_is_not_queued() -> None:
    connection = ready()
    with pytest.raises(OpenFlowError, match="ip_proto needs"):
        connection.send(FlowMod(Match(ip_proto=6)))
    assert connection.data_to_send() == b""


# Bounds


def test_output_is_bounded() -> None:
    connection = ready(max_output_bytes=250)
    message = PacketOut(bytes(100), ())
    connection.send(message)
    connection.send(message)
    with pytest.raises(OutputFull, match="248 bytes wait"):
        connection.send(message)
    assert len(connection.data_to_send()) == 248
    connection.send(message)


def test_a_peer_that_asks_for_echoes_and_reads_none_is_closed() -> None:
    connection = ready(max_output_bytes=2000)
    events = connection.receive_data(EchoRequest(bytes(900)).pack(1) * 3, 0.0)
    assert events == [Closed("OFPT_ECHO_REPLY: peer does not read: 1816 bytes wait already")]


def test_an_unread_echo_request_closes() -> None:
    connection = ready(max_output_bytes=100)
    connection.send(EchoRequest(bytes(92)))
    assert connection.handle_timer(5.0) == [Closed("OFPT_ECHO_REQUEST: peer does not read: 100 bytes wait already")]


def port(number: int) -> Port:
    return Port(number, bytes(6), f"p{number}")


def test_the_parts_of_a_reply_are_joined() -> None:
    connection = ready()
    more, end = of.OFPMPF_REPLY_MORE, 0
    parts = [
        (5, MultipartReply(of.OFPMP_PORT_DESC, (port(1), port(2)), more)),
        (6, MultipartReply(of.OFPMP_GROUP, raw=b"ab", flags=more)),  # another reply in between
        (5, MultipartReply(of.OFPMP_PORT_DESC, (), more)),
        (5, MultipartReply(of.OFPMP_PORT_DESC, (port(3),), end)),
        (6, MultipartReply(of.OFPMP_GROUP, raw=b"cd", flags=end)),
    ]
    events = connection.receive_data(b"".join(part.pack(xid) for xid, part in parts), 0.0)
    assert events == [
        Received(5, MultipartReply(of.OFPMP_PORT_DESC, (port(1), port(2), port(3)))),
        Received(6, MultipartReply(of.OFPMP_GROUP, raw=b"abcd")),
    ]


def test_the_parts_of_a_reply_have_one_type() -> None:
    connection = ready()
    first = MultipartReply(of.OFPMP_PORT_DESC, (port(1),), of.OFPMPF_REPLY_MORE)
    second = MultipartReply(of.OFPMP_TABLE, (TableStats(1, 2, 3, 4),))
    (closed,) = connection.receive_data(first.pack(5) + second.pack(5), 0.0)
    assert isinstance(closed, Closed)
    assert "parts of a reply differ in type" in closed.reason


def test_a_reply_without_end_is_bounded() -> None:
    connection = ready(max_multipart_bytes=1000)
    part = MultipartReply(of.OFPMP_PORT_DESC, (port(1),), of.OFPMPF_REPLY_MORE).pack(5)
    assert connection.receive_data(part * 12, 0.0) == []
    (closed,) = connection.receive_data(part, 0.0)
    assert closed == Closed(
        "peer broke the protocol: OFPT_MULTIPART_REPLY: 1 incomplete replies hold 1040 bytes"
    )


def test_a_finished_reply_frees_its_room() -> None:
    connection = ready(max_multipart_bytes=1000)
    part = MultipartReply(of.OFPMP_PORT_DESC, (port(1),), of.OFPMPF_REPLY_MORE)
    last = MultipartReply(of.OFPMP_PORT_DESC, (), 0)
    for xid in range(5):
        events = connection.receive_data(part.pack(xid) * 10 + last.pack(xid), 0.0)
        assert events == [Received(xid, MultipartReply(of.OFPMP_PORT_DESC, (port(1),) * 10))]


def test_the_number_of_incomplete_replies_is_bounded() -> None:
    connection = ready()
    part = MultipartReply(of.OFPMP_PORT_DESC, (), of.OFPMPF_REPLY_MORE)
    assert connection.receive_data(b"".join(part.pack(xid) for xid in range(64)), 0.0) == []
    (closed,) = connection.receive_data(part.pack(64), 0.0)
    assert isinstance(closed, Closed)
    assert "65 incomplete replies" in closed.reason
