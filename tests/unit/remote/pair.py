"""Two ends of a channel, without a network between them."""

from __future__ import annotations

from followme.remote.channel import Channel, Event, Opened
from followme.remote.keys import Key

KEY = Key(b"0123456789abcdef0123456789abcdef")
OTHER = Key(b"fedcba9876543210fedcba9876543210")


def pair(now: float = 0.0, *, client_key: Key = KEY, name: str = "dc1") -> tuple[Channel, Channel]:
    """(client, server), neither has heard of the other."""
    client = Channel(name, now, server="dc2", keys={"dc2": client_key})
    return client, Channel("dc2", now, server=None, keys={"dc1": KEY, "ctl": OTHER})


def opened(now: float = 0.0) -> tuple[Channel, Channel]:
    """(client, server) that know each other."""
    client, server = pair(now)
    assert server.receive_data(client.data_to_send(), now) == []
    assert client.receive_data(server.data_to_send(), now) == [Opened("dc2")]
    assert server.receive_data(client.data_to_send(), now) == [Opened("dc1")]
    return client, server


def pass_on(sender: Channel, receiver: Channel, now: float = 0.0) -> list[Event]:
    return receiver.receive_data(sender.data_to_send(), now)
