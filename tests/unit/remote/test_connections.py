"""Client and server over real sockets on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from followme.remote import server as server_module
from followme.remote.channel import ChannelError
from followme.remote.client import Client, Refused
from followme.remote.server import Caller, Server

from .pair import KEY, OTHER


class Odd(Exception):
    """One whose text the peer is told."""


class Handlers:
    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.begun = asyncio.Event()

    async def echo(self, params: Mapping[str, Any], caller: Caller) -> Any:
        return {"peer": caller.peer, **params}

    async def count(self, params: Mapping[str, Any], caller: Caller) -> str:
        for number in range(params["to"]):
            caller(number)
            await asyncio.sleep(0)
        return "done"

    async def odd(self, params: Mapping[str, Any], caller: Caller) -> None:
        raise Odd("it is Tuesday")

    async def wrong(self, params: Mapping[str, Any], caller: Caller) -> None:
        raise KeyError("a secret of ours")

    async def huge(self, params: Mapping[str, Any], caller: Caller) -> str:
        return "x" * 300_000

    async def wait(self, params: Mapping[str, Any], caller: Caller) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    def all(self) -> dict[str, Any]:
        names = ("echo", "count", "odd", "wrong", "huge", "wait")
        return {name: getattr(self, name) for name in names}


@asynccontextmanager
async def serving(host: str = "127.0.0.1", alive_s: float = 5.0) -> AsyncIterator[tuple[Server, Handlers]]:
    handlers = Handlers()
    server = await Server.start(handlers.all(), {"dc1": KEY, "ctl": OTHER}, name="dc2", host=host, errors=(Odd,),
                                alive_s=alive_s)
    try:
        yield server, handlers
    finally:
        await server.close()


async def connect(to: Server, host: str = "127.0.0.1", **more: Any) -> Client:
    return await Client.connect(host, to.port, **{"name": "dc1", "server": "dc2", "key": KEY, **more})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_calls_and_streams(host: str) -> None:
    async with serving(host) as (server, _):
        client = await connect(server, host)
        other = await connect(server, host, name="ctl", key=OTHER)
        assert await client.call("echo", {"a": [1, None]}) == {"peer": "dc1", "a": [1, None]}
        assert await other.call("echo") == {"peer": "ctl"}
        async with client.stream("count", {"to": 200}) as stream:
            assert [event async for event in stream] == list(range(200))
            assert await stream.result() == "done"
        answers = await asyncio.gather(*(client.call("echo", {"n": n}) for n in range(60)))
        assert [answer["n"] for answer in answers] == list(range(60))
        await client.close()
        await other.close()


async def test_what_the_peer_is_told_of_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (server, _):
        client = await connect(server)
        with pytest.raises(Refused, match="it is Tuesday"):
            await client.call("odd")
        with caplog.at_level(logging.CRITICAL), pytest.raises(Refused, match="the log says why") as caught:
            await client.call("wrong")
        assert "secret" not in str(caught.value)
        with pytest.raises(Refused, match="no method 'rm'"):
            await client.call("rm")
        with pytest.raises(Refused, match="too long for the channel"):
            await client.call("huge")
        assert await client.call("echo") == {"peer": "dc1"}
        await client.close()


@pytest.mark.parametrize("how", ["timeout", "leave", "close"])
async def test_a_handler_ends_with_its_caller(how: str) -> None:
    async with serving() as (server, handlers):
        client = await connect(server)
        if how == "timeout":
            with pytest.raises(ChannelError, match="did not answer wait within"):
                await client.call("wait", timeout=0.05)
        elif how == "leave":
            async with client.stream("wait"):
                await handlers.begun.wait()
        else:
            call = asyncio.create_task(client.call("wait"))
            await handlers.begun.wait()
            await client.close()
            with pytest.raises(ChannelError, match="is lost: closed by us"):
                await call
        await asyncio.wait_for(handlers.cancelled.wait(), 2.0)
        if how != "close":
            assert await client.call("echo") == {"peer": "dc1"}
            await client.close()
        with pytest.raises(ChannelError, match="is lost"):
            await client.call("echo")


async def test_a_server_that_stops_is_noticed() -> None:
    async with serving() as (server, handlers):
        client = await connect(server)
        call = asyncio.create_task(client.call("wait"))
        await handlers.begun.wait()
    await asyncio.wait_for(client.lost.wait(), 2.0)
    with pytest.raises(ChannelError, match="the connection to dc2 is lost"):
        await call


async def test_wrong_keys_names_and_addresses() -> None:
    async with serving() as (server, _):
        for more, match in (({"key": OTHER}, "has not the key of dc2"), ({"name": "dc7"}, "does not know us"),
                            ({"server": "dc3"}, "closed the connection|reset")):
            with pytest.raises(ChannelError, match=match):
                await connect(server, **more)
        port = server.port
    with pytest.raises(ChannelError, match=f"dc2 at 127.0.0.1 port {port}"):
        await Client.connect("127.0.0.1", port, name="dc1", server="dc2", key=KEY)


async def test_a_silent_peer_is_given_up_and_a_quiet_one_is_not() -> None:
    async with serving(alive_s=0.05) as (server, handlers):
        client = await connect(server, alive_s=0.05)
        call = asyncio.create_task(client.call("wait"))
        await asyncio.sleep(0.4)
        assert not client.lost.is_set()
        assert client._wire._timer is not None
        client._wire._timer.cancel()  # it hears and answers, but says nothing by itself any more
        await asyncio.wait_for(handlers.cancelled.wait(), 2.0)
        with pytest.raises(ChannelError):
            await call


async def test_strangers_and_connections_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_STRANGERS", 3)
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 5)
    async with serving() as (server, _):
        clients = [await connect(server) for _ in range(2)]
        strangers = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
        reader, _ = strangers[0]
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 2.0) == b""  # the oldest went for the fourth
        assert len(server.connections) == 5
        # Those who are known are not disturbed, and there is room again when strangers go.
        assert await clients[0].call("echo") == {"peer": "dc1"}
        for _, writer in strangers:
            writer.close()
        await asyncio.sleep(0.05)
        clients += [await connect(server) for _ in range(3)]
        with pytest.raises(ChannelError):
            await connect(server)
        assert len(server.connections) == 5
        for client in clients:
            await client.close()


async def test_strangers_that_say_nothing_lock_nobody_out(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (server, _):
        with caplog.at_level(logging.INFO):
            silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(40)]
            client = await connect(server)
            assert await client.call("echo") == {"peer": "dc1"}
            assert len(server.connections) <= server_module.MAX_STRANGERS + 1
        said = [record.message for record in caplog.records if "stranger" in record.message]
        assert said == ["refused (stranger at the control port): 127.0.0.1: too many strangers"]
        for _, writer in silent:
            writer.close()
        await client.close()


async def test_many_strangers_of_one_address_go_before_the_one_of_another() -> None:
    async with serving() as (server, _):
        loop = asyncio.get_running_loop()
        _, first = await asyncio.open_connection("127.0.0.1", server.port, local_addr=("127.0.0.2", 0))
        silent = [
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", server.port, local_addr=("127.0.0.3", 0))
            for _ in range(2 * server_module.MAX_STRANGERS)
        ]  # fmt: skip
        await asyncio.sleep(0.05)
        hosts = [connection.wire.host for connection in server.connections]
        assert hosts == ["127.0.0.2", *["127.0.0.3"] * (server_module.MAX_STRANGERS - 1)]
        for transport, _ in silent:
            transport.close()
        first.close()


async def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("followme.remote.wire.MAX_UNSENT", 100_000)
    async with serving() as (server, _):
        client = await connect(server)
        transport = client._wire._transport
        assert transport is not None
        transport.pause_reading()
        async with client.stream("count", {"to": 10_000_000}):
            async with asyncio.timeout(10.0):
                while server.connections:
                    await asyncio.sleep(0.01)
        await client.close()


async def test_events_that_nobody_takes_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("followme.remote.client.MAX_EVENTS", 10)
    async with serving() as (server, _):
        client = await connect(server)
        async with client.stream("count", {"to": 20}) as stream:
            with pytest.raises(ChannelError, match="more than 10 events"):
                await stream.result()
        assert await client.call("echo") == {"peer": "dc1"}
        await client.close()
