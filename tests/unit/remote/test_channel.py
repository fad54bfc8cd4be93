"""The channel without a network: who may speak, what is heard, and what never is."""

from __future__ import annotations

import pytest

from followme.remote.channel import (
    ALIVE_S,
    DEAD_AFTER,
    HELLO_S,
    MAX_HELLO,
    MAX_IN_FLIGHT,
    MAX_LINE,
    Answered,
    Called,
    Channel,
    ChannelError,
    Dropped,
    Emitted,
)

from .pair import KEY, OTHER, opened, pair, pass_on


def test_a_call_its_events_and_its_answer() -> None:
    client, server = opened()
    id = client.call("carry", {"machine": "vm"})
    assert pass_on(client, server) == [Called(id, "carry", {"machine": "vm"})]
    server.emit(id, {"progress": 1})
    server.emit(id, None)
    server.answer(id, [1, "ä"])
    heard = pass_on(server, client)
    assert heard == [Emitted(id, {"progress": 1}), Emitted(id, None), Answered(id, [1, "ä"], None)]
    again = client.call("carry", {})
    assert again > id
    pass_on(client, server)
    server.refuse(again, "no")
    assert pass_on(server, client) == [Answered(again, None, "no")]
    assert client.in_flight == server.in_flight == set()


def test_who_has_another_key_is_told_nothing() -> None:
    client, server = pair(client_key=OTHER)
    pass_on(client, server)
    with pytest.raises(ChannelError, match="has not the key of dc2"):
        pass_on(server, client)
    # And one who goes on all the same is not believed.
    liar, server = pair(client_key=OTHER)
    pass_on(liar, server)
    liar._said.append(server._nonce.encode())
    said = b'{"proof":"%s"}\n' % liar._proof(b"client").encode()
    with pytest.raises(ChannelError, match="who says he is dc1 has not the key"):
        server.receive_data(said, 0.0)
    assert not server.opened


def test_an_unknown_name_is_answered_like_a_wrong_key() -> None:
    client, server = pair(name="stranger")
    assert pass_on(client, server) == []
    answer = server.data_to_send()
    known, other = pair(client_key=OTHER)
    pass_on(known, other)
    assert len(answer) == len(other.data_to_send())
    with pytest.raises(ChannelError, match="does not know us"):
        client.receive_data(answer, 0.0)


def test_a_proof_cannot_be_sent_back_or_used_again() -> None:
    client, server = pair()
    hello = client.data_to_send()
    server.receive_data(hello, 0.0)
    proof = server.data_to_send()
    with pytest.raises(ChannelError):
        server.receive_data(proof, 0.0)
    client.receive_data(proof, 0.0)
    word = client.data_to_send()
    replayed = Channel("dc2", 0.0, server=None, keys={"dc1": KEY})
    replayed.receive_data(hello, 0.0)
    with pytest.raises(ChannelError, match="has not the key"):
        replayed.receive_data(word, 0.0)


def test_another_server_than_the_wanted_one() -> None:
    client = Channel("dc1", 0.0, server="dc3", keys={"dc3": KEY})
    server = Channel("dc2", 0.0, server=None, keys={"dc1": KEY})
    with pytest.raises(ChannelError, match="another server than dc2"):
        pass_on(client, server)


@pytest.mark.parametrize("change", ["forged", "repeated", "missing", "swapped", "reflected", "other session"])
def test_a_line_that_is_not_as_it_was_said_ends_the_channel(change: str) -> None:
    client, server = opened()
    for number in range(3):
        client.call("kill", {"machine": f"vm{number}"})
    first, second, third = client.data_to_send().splitlines(keepends=True)
    data = {
        "forged": first.replace(b"vm0", b"vm9"), "repeated": first + first, "missing": first + third,
        "swapped": second + first, "reflected": b"", "other session": b"",
    }[change]
    if change == "reflected":
        with pytest.raises(ChannelError):
            client.receive_data(first, 0.0)
        return
    if change == "other session":
        earlier, _ = opened()
        earlier.call("kill", {"machine": "vm0"})
        data = earlier.data_to_send()
    with pytest.raises(ChannelError):
        server.receive_data(data, 0.0)
    with pytest.raises(ChannelError, match="closed"):
        server.receive_data(second, 0.0)


def test_lines_have_bounds() -> None:
    _, server = pair()
    with pytest.raises(ChannelError, match=f"more than {MAX_HELLO} bytes"):
        server.receive_data(b"x" * (MAX_HELLO + 1), 0.0)
    client, server = opened()
    with pytest.raises(ChannelError, match="too long"):
        client.call("x", {"x": "y" * MAX_LINE})
    client.call("x", {"x": "y" * (MAX_LINE - 200)})
    assert len(pass_on(client, server)) == 1
    for _ in range(MAX_LINE // 4096):
        assert server.receive_data(b"x" * 4096, 0.0) == []
    with pytest.raises(ChannelError, match=f"more than {MAX_LINE} bytes"):
        server.receive_data(b"x", 0.0)


def test_calls_in_flight_have_a_bound_at_both_ends() -> None:
    client, server = opened()
    ids = [client.call("x", {}) for _ in range(MAX_IN_FLIGHT)]
    with pytest.raises(ChannelError, match="under way already"):
        client.call("x", {})
    assert len(pass_on(client, server)) == MAX_IN_FLIGHT
    # One that does not keep to it is cut off.
    client.in_flight.clear()
    client.call("x", {})
    greedy = client.data_to_send()
    with pytest.raises(ChannelError, match="more than 64 calls"):
        server.receive_data(greedy, 0.0)
    # A call that was dropped counts until its answer comes.
    client, server = opened()
    ids = [client.call("x", {}) for _ in range(MAX_IN_FLIGHT)]
    client.drop(ids[0])
    assert pass_on(client, server)[-1] == Dropped(ids[0])
    with pytest.raises(ChannelError, match="under way"):
        client.call("x", {})
    server.refuse(ids[0], "cancelled")
    pass_on(server, client)
    assert client.call("x", {}) > ids[-1]


def test_time_to_say_who_one_is() -> None:
    for end in pair(100.0):
        assert end.deadline == 100.0 + HELLO_S
        end.tick(100.0 + HELLO_S - 0.1)
        with pytest.raises(ChannelError, match="not said who it is"):
            end.tick(100.0 + HELLO_S)
    client, server = pair(100.0)
    server.receive_data(client.data_to_send(), 100.0 + HELLO_S - 0.1)
    with pytest.raises(ChannelError, match="not said who it is"):
        server.tick(100.0 + HELLO_S)


def test_silence() -> None:
    client, server = opened()
    assert client.deadline <= ALIVE_S
    client.tick(ALIVE_S)
    assert pass_on(client, server, ALIVE_S) == []
    assert client.deadline == 2 * ALIVE_S
    server.tick(DEAD_AFTER * ALIVE_S)
    with pytest.raises(ChannelError, match="dc2 has said nothing"):
        client.tick(DEAD_AFTER * ALIVE_S)
    with pytest.raises(ChannelError, match="dc1 has said nothing"):
        server.tick((1 + DEAD_AFTER) * ALIVE_S)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1, 2}, object()])
def test_what_is_no_json_is_not_sent(value: object) -> None:
    client, server = opened()
    client.call("x", {})
    pass_on(client, server)
    with pytest.raises(ChannelError, match="cannot be said"):
        server.answer(1, value)
    assert server.data_to_send() == b""
    server.refuse(1, "it was no JSON")
    assert pass_on(server, client) == [Answered(1, None, "it was no JSON")]


def test_an_answer_that_nobody_asked_for() -> None:
    client, server = opened()
    server.emit(7, "?")
    with pytest.raises(ChannelError, match="nobody asked"):
        pass_on(server, client)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 65, "ä", "a\n"])
def test_names(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        Channel(name, 0.0, server=None, keys={})
    with pytest.raises(ValueError, match="no key for dc9"):
        Channel("dc1", 0.0, server="dc9", keys={})
