"""What is counted can be seen: in the log, once in a while, if something has changed."""

from __future__ import annotations

import asyncio
import logging

import pytest
import yaml

from followme.config import openflow as config
from followme.controllers.openflow import edge
from followme.controllers.openflow.controller import Controller
from followme.openflow import Match, PacketIn
from followme.openflow.constants import OFP_NO_BUFFER, OFPR_NO_MATCH
from followme.packets import arp_request_frame
from followme.store import Store

from .world import EXAMPLE


async def test_counts_are_logged_when_they_change_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, edge.__name__)
    monkeypatch.setattr(edge, "SUMMARY_S", 0.01)
    document = yaml.safe_load(EXAMPLE.read_text())
    document["listen"] = {"port": 0}
    one = Controller(config.check(document, "example"), {}, store=Store(":memory:"))
    await one.start()
    assert one.summary() == {}
    east = one.networks["wlan-east"]

    def claim(data: bytes) -> None:
        one.watcher.packet_in(east, PacketIn(OFP_NO_BUFFER, len(data), OFPR_NO_MATCH, 0, 0, Match(in_port=5), data))

    stranger = b"\2\0\0\0\0\x66"
    claim(arp_request_frame(stranger, east.gateway, east.gateway))
    claim(b"short")
    one.prober.received(east, b"no probe")
    one.southbound.counters.failed_peers += 2
    expected = {"failed peers": 2, "refused (arp)": 1, "malformed": 1, "forged probes": 1}
    assert one.summary() == expected
    await asyncio.sleep(0.1)
    line = "counted so far: failed peers 2, refused (arp) 1, malformed 1, forged probes 1"
    assert caplog.messages.count(line) == 1, "not again while nothing changes"
    one.prober.forged += 1
    await one.close()
    assert caplog.messages[-1] == line[:-1] + "2"
