"""The same counts in Open vSwitch and over NATS: packets through real tables tell who speaks to whom."""

from __future__ import annotations

import pytest

from followme.analysis import rules
from followme.lab.roles_counts import count, missing

_missing = missing()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(_missing), reason="; ".join(_missing))]


async def test_switches_hold_what_the_model_says() -> None:
    real = await count((3,), lambda text: None, switches=True, nats=True)
    model = await count((3,), lambda text: None, switches=False, nats=False)
    assert real.bus == "NATS"
    for one, other in ((real.runs[0], model.runs[0]), (real.few, model.few)):
        assert one.entries == other.entries == rules.ours(one.nodes, one.nodes, one.networks)
        assert one.move == other.move
        assert one.onward == other.onward
        assert one.telling.foreign == other.telling.foreign
