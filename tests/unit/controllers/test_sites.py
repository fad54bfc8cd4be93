"""The controller's connection to a site's agent: made, lost, made again, and what is then known of paths."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from followme.config.lisp import SiteSection, check
from followme.controllers.lisp import sites
from followme.controllers.lisp.sites import Site
from followme.remote.channel import ChannelError
from followme.remote.keys import Key
from followme.remote.server import Caller, Server
from tests.until import until

from ..config.document import changed
from ..config.lisp_document import LISP

KEY = Key.random()
WATCH = {"192.0.2.2": "10.1.0.0/24"}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "AGAIN_S", 0.02)


class Agent:
    """An agent that tells of round trips and of nothing else."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.told: Any = {"192.0.2.2": 0.010, "2001:DB8::2": 0.030, "192.0.2.6": None}
        self.answers = asyncio.Event()
        self.answers.set()
        self.server: Server | None = None

    async def start(self, port: int = 0) -> int:
        self.server = await Server.start({"paths": self._paths}, {"ctl": KEY}, name="dc1", port=port)
        return self.server.port

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.close()

    async def _paths(self, params: Mapping[str, Any], caller: Caller) -> Any:
        self.asked.append(params["watch"])
        await self.answers.wait()
        return self.told


def section(port: int) -> SiteSection:
    agent = {"address": "127.0.0.1", "port": port, "key_file": "/k"}
    return check(changed((("networks", 0, "agent"), agent), of=LISP), "lisp.yaml").networks[0]


async def test_round_trips_are_asked_for_again_and_again_and_halved() -> None:
    agent = Agent()
    site = Site(section(await agent.start()), KEY, "ctl", None)
    keeping = asyncio.create_task(site.keep(0.01, WATCH))
    await until(lambda: len(agent.asked) >= 3)
    assert agent.asked[0] == WATCH
    assert site.delays == {"192.0.2.2": 0.005, "2001:db8::2": 0.015}, "and nothing where nobody knows"
    keeping.cancel()
    await site.close()
    await agent.stop()


async def test_an_agent_that_comes_back_is_connected_again() -> None:
    agent = Agent()
    port = await agent.start()
    site = Site(section(port), KEY, "ctl", None)
    keeping = asyncio.create_task(site.keep(0.01, WATCH))
    await until(lambda: site.delays)
    await agent.stop()
    await until(lambda: not site.up.is_set())
    with pytest.raises(ChannelError, match="agent of dc1: "):
        _ = site.client
    await until(lambda: not site.delays)  # old figures are no figures
    await agent.start(port)
    await until(lambda: site.up.is_set() and site.delays)
    keeping.cancel()
    await site.close()
    await agent.stop()


async def test_a_call_waits_for_a_connection_that_is_being_made() -> None:
    agent = Agent()
    port = await agent.start()
    await agent.stop()
    site = Site(section(port), KEY, "ctl", None)
    keeping = asyncio.create_task(site.keep(10.0, WATCH))
    calling = asyncio.create_task(site.call("paths", {"watch": {}}, 5.0))
    await asyncio.sleep(0.1)
    await agent.start(port)
    assert (await calling)["192.0.2.2"] == 0.010
    keeping.cancel()
    await site.close()
    await agent.stop()


async def test_a_wrong_key_is_said(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent()
    site = Site(section(await agent.start()), Key.random(), "ctl", None)
    keeping = asyncio.create_task(site.keep(0.01, WATCH))
    await until(lambda: site.trouble != "not connected yet")
    assert not site.up.is_set()
    await asyncio.sleep(0.1)
    said = [one.getMessage() for one in caplog.records if one.name.endswith("sites")]
    assert len(said) == 1, "once, not each time that it is tried"
    assert said[0].startswith("agent of dc1: ")
    assert agent.asked == []
    keeping.cancel()
    await site.close()
    await agent.stop()


async def test_an_agent_that_is_slow_keeps_its_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sites, "ASK_S", 0.05)
    agent = Agent()
    site = Site(section(await agent.start()), KEY, "ctl", None)
    keeping = asyncio.create_task(site.keep(0.01, WATCH))
    await until(lambda: site.delays)
    agent.answers.clear()
    await until(lambda: len(agent.asked) > 2 and not site.delays)
    asked = len(agent.asked)
    await until(lambda: len(agent.asked) > asked + 2)
    assert agent.server is not None
    assert (len(agent.server.connections), site.up.is_set()) == (1, True)
    said = [one.getMessage() for one in caplog.records if one.name.endswith("sites")]
    assert said == ["agent of dc1: dc1 did not answer paths within 0.05 s"]
    agent.answers.set()
    await until(lambda: site.delays)
    keeping.cancel()
    await site.close()
    await agent.stop()


@pytest.mark.parametrize("told", [{"192.0.2.2": "soon"}, {"dc2": 0.01}, {"192.0.2.2": -1.0}, [0.01], None])
async def test_an_agent_that_tells_nonsense_is_asked_again(told: object, caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent()
    sense, agent.told = agent.told, told
    site = Site(section(await agent.start()), KEY, "ctl", None)
    keeping = asyncio.create_task(site.keep(0.01, WATCH))
    await until(lambda: len(agent.asked) > 2)
    assert (site.delays, [one.getMessage()[:30] for one in caplog.records if one.name.endswith("sites")]) == (
        {}, ["agent of dc1: no round trips: "]
    )  # fmt: skip
    agent.told = sense
    await until(lambda: site.delays)
    keeping.cancel()
    await site.close()
    await agent.stop()
