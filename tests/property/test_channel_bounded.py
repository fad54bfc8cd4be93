"""Whatever comes over a channel: it is what was said, in its order, or the channel's own error."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from followme.remote.channel import Answered, Called, Channel, ChannelError, Emitted, Event, Opened
from followme.remote.keys import Key

KEY = Key(b"0123456789abcdef0123456789abcdef")
TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5,
)
KEYS = st.sampled_from(["followme", "from", "to", "nonce", "proof", "call", "id", "params", "drop", "alive",
                        "event", "result", "error"])
SAID = st.dictionaries(KEYS, JSON, max_size=4).map(lambda value: json.dumps(value).encode())
ODD = st.sampled_from([b"[" * 500, b"9" * 500, b'{"id":1e999}', b'{"id":NaN}', b'{"a":"\\ud800"}', b"{}", b"\xff"])
LINE = st.binary(max_size=100) | SAID | ODD


def client() -> Channel:
    return Channel("dc1", 0.0, server="dc2", keys={"dc2": KEY})


def server() -> Channel:
    return Channel("dc2", 0.0, server=None, keys={"dc1": KEY})


def opened() -> tuple[Channel, Channel]:
    ours, theirs = client(), server()
    theirs.receive_data(ours.data_to_send(), 0.0)
    assert ours.receive_data(theirs.data_to_send(), 0.0) == [Opened("dc2")]
    assert theirs.receive_data(ours.data_to_send(), 0.0) == [Opened("dc1")]
    return ours, theirs


def hear(channel: Channel, data: bytes) -> list[Event]:
    try:
        return channel.receive_data(data, 0.0)
    except ChannelError:
        return []


@given(st.lists(LINE, max_size=4), st.booleans())
def test_a_stranger_never_gets_in_and_breaks_nothing(lines: list[bytes], at_client: bool) -> None:
    channel = client() if at_client else server()
    assert hear(channel, b"\n".join([*lines, b""])) == []
    assert not channel.opened


@given(LINE, st.booleans())
def test_a_peer_with_the_key_may_say_anything_and_breaks_nothing(body: bytes, at_client: bool) -> None:
    ours, theirs = opened()
    speaker, listener = (theirs, ours) if at_client else (ours, theirs)
    body = body.replace(b"\n", b" ")
    mac = speaker._sender.mac(b"line", b"0", body).hex().encode()
    for event in hear(listener, b"0 " + mac + b" " + body + b"\n"):
        assert isinstance(event, Called) != at_client


@given(st.lists(st.dictionaries(TEXT, JSON, max_size=2), min_size=1, max_size=4), st.data())
def test_what_is_said_is_heard_however_it_is_cut(said: list[dict[str, object]], data: st.DataObject) -> None:
    ours, theirs = opened()
    for params in said:
        ours.call("x", params)
    stream = ours.data_to_send()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    heard: list[Event] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        heard += theirs.receive_data(stream[start:end], 0.0)
    assert heard == [Called(number, "x", params) for number, params in enumerate(said, 1)]
    for number, params in enumerate(said, 1):
        theirs.emit(number, params)
        theirs.answer(number, params)
    expected: list[Event] = []
    for number, params in enumerate(said, 1):
        expected += [Emitted(number, params), Answered(number, params, None)]
    assert ours.receive_data(theirs.data_to_send(), 0.0) == expected


@given(st.integers(1, 5), st.data())
def test_who_stands_between_can_only_cut_it_short(count: int, data: st.DataObject) -> None:
    """Lines changed, left out, repeated and exchanged: what is heard is a beginning of what was said."""
    ours, theirs = opened()
    for number in range(count):
        ours.call("x", {"n": number})
    stream = ours.data_to_send()
    lines = stream.splitlines(keepends=True)
    how = data.draw(st.sampled_from(["change", "order"]))
    if how == "change":
        where = data.draw(st.integers(0, len(stream) - 1))
        changed = bytearray(stream)
        changed[where] ^= data.draw(st.integers(1, 255))
        sent = bytes(changed)
    else:
        sent = b"".join(data.draw(st.lists(st.sampled_from(lines), max_size=7)))
    heard: list[Event] = []
    for position in range(len(sent)):
        try:
            heard += theirs.receive_data(sent[position : position + 1], 0.0)
        except ChannelError:
            break
    assert heard == [Called(number, "x", {"n": number - 1}) for number in range(1, len(heard) + 1)]
    if how == "change":
        assert len(heard) < count
