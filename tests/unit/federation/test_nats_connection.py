"""What nats-py does not do for us, with a client that is none."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.msg import Msg

from followme.federation.nats_connection import NatsAccess, NatsConnection


class Forgetful:
    """A client whose request takes an answer that comes in the moment of a cancellation for all that matters."""

    connected_url = None

    async def request(self, *_: object, **__: object) -> Msg | None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return None
        raise AssertionError("nobody cancelled it")


async def test_a_cancellation_is_not_lost_in_a_request() -> None:
    connection = NatsConnection(NatsAccess(("nats://192.0.2.1:4222",)), "a", "_INBOX_a")
    connection._client = Forgetful()  # type: ignore[assignment]
    task = asyncio.create_task(connection.request("fmc.b.a", b"", 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await connection.request("fmc.b.a", b"", 60)
