from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from followme.continuity.ledger import Ledger
from followme.continuity.pipeline import base_rules
from followme.continuity.southbound import Handlers, Southbound

from .switch import DC1, DC2, Bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    ledger = Ledger(epoch=100)
    ledger.set("base", {one.datapath: base_rules(one) for one in (DC1, DC2)})
    bench = Bench(Southbound((DC1, DC2), ledger, Handlers(packet_in=lambda network, message: None)))
    yield await bench.start()
    await bench.southbound.close()
