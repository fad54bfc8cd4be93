"""An instance of alpha in a process of its own: prints what becomes of its lease. Argument: server, password, name.

Prints ``held EPOCH``, then ``put N`` for each key that it was allowed to put, ``refused``, and ``lost``.
"""

from __future__ import annotations

import asyncio
import sys

from followme.federation.kv import KvError
from followme.federation.lease import Lease
from followme.federation.nats import NatsBus
from followme.federation.nats_accounts import MIB, bucket_of, lease_bucket_of
from followme.federation.nats_connection import NatsAccess
from followme.federation.nats_kv import JetStreamKeyValue


async def main(server: str, password: str, name: str) -> None:
    bus = await NatsBus.open(NatsAccess((server,), "alpha", password), "alpha", name)
    kv = await JetStreamKeyValue.open(bus.connection, bucket_of("alpha"), max_bytes=8 * MIB)
    leases = await JetStreamKeyValue.open(bus.connection, lease_bucket_of("alpha"), max_bytes=MIB)
    lease = Lease(leases, "alpha", name)
    print("waits", flush=True)
    print("held", await lease.acquire(), flush=True)
    await kv.take_over(lease.epoch)
    holding = asyncio.create_task(lease.hold())
    number = 0
    while not holding.done():
        try:
            # Without asking valid(): what the bucket does with a holder that does not know is to be seen.
            await kv.put(f"{name}.{number}", b"1")
            print("put", number, flush=True)
            number += 1
        except KvError:
            print("refused", flush=True)
            break
        await asyncio.sleep(0.02)
    await holding
    print("lost", flush=True)


asyncio.run(main(*sys.argv[1:]))
