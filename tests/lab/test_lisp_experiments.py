"""The LISP paper's experiments on the real lab, each as short as it can be."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from followme.lab import lisp_downtime, lisp_rtt
from followme.lab.latency import Windows
from followme.lab.lisp_plan import LispLabConfig
from followme.lab.lisp_scenario import LispScenario
from followme.lab.lisp_topology import LispLab
from followme.lab.rundir import ROOT
from followme.system import needs, netns
from followme.system.process import Child, run

_missing = needs.check(needs.LISP_LAB)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(_missing), reason="; ".join(_missing))]


async def test_the_controllers_delays_act() -> None:
    delays = {frozenset({"ctl", "dc1"}): 0.100, frozenset({"ctl", "dc2"}): 0.050}
    async with LispLab(LispLabConfig(round_trips=delays)) as lab:
        for name, expected_ms in (("dc1", 100.0), ("dc2", 50.0), ("wlan1", 1.0)):
            said = await run(
                ["ping", "-c", "3", "-i", "0.2", "-q", str(lab.site(name).rloc)], namespace=lab.controller_namespace
            )
            least_ms = float(said.splitlines()[-1].split("=")[1].split("/")[0])
            assert expected_ms <= least_ms < expected_ms + 5.0


async def test_in_the_papers_order_the_controllers_distance_is_in_the_downtime_and_not_in_ours() -> None:
    case, dc2_s = lisp_downtime.CASES[0], 0.100
    async with LispScenario(lisp_downtime.setting(case.dc1_s, dc2_s)) as scenario:
        await scenario.move_client("wlan1")
        samples = await lisp_downtime.samples(scenario, case, dc2_s, 1, lambda: None)
    assert [(one.mode, one.varied) for one in samples] == [
        ("live", "target"), ("live", "source"), ("paper", "target"), ("paper", "source")
    ]  # fmt: skip
    for one in samples:
        if one.mode == "paper":  # the news goes to the controller and back: half a round trip to each end
            assert lisp_downtime.network(one) > 0.09
            assert one.lost > 50
        else:
            assert lisp_downtime.network(one) < 0.06
        # The same machine's own code in both orders.
        assert 0.0 < one.guest_cold_s < 0.3
        assert 0.0 <= one.silent_s < 0.1


async def test_the_three_parts_of_the_papers_figure_5() -> None:
    async with LispScenario(lisp_rtt.setting()) as scenario:
        found = await lisp_rtt.measure(scenario, Windows(2.0, 2.0, 3.0), lambda text: None)
    figures = found.as_json()
    for mode in lisp_rtt.MODES:
        assert 12.0 <= figures[mode]["rtt_before_ms"] < 18.0
        assert 250.0 <= figures[mode]["rtt_while_carried_ms"] < 260.0
        assert 3.0 <= figures[mode]["rtt_after_ms"] < 8.0
        assert figures[mode]["tcp_session_survived"]
        assert 0.0 < figures[mode]["guest_cold_ms"] < 300.0
    json.dumps(figures)


def run_of(pid: int) -> str | None:
    """The id of the lab that a process has."""
    for owner in ROOT.glob("*/owner"):
        if owner.read_text().strip() == str(pid):
            return owner.parent.name
    return None


def left_of(run_id: str) -> list[str]:
    return [name for name in netns.names() if run_id in name] + [str(path) for path in ROOT.glob(run_id)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_an_experiment_and_nothing_stays(number: signal.Signals, tmp_path: Path) -> None:
    plot = str(tmp_path / "s.png")
    child = await Child.start(
        [sys.executable, "-m", "followme", "reproduce", "lisp-sizes", "--quick", "--plot", plot], name="lisp-sizes"
    )
    try:
        async with asyncio.timeout(30):
            while (run_id := run_of(child.pid)) is None or len(left_of(run_id)) < 8:
                await asyncio.sleep(0.1)
        await asyncio.sleep(1.5)
        os.kill(child.pid, number)
        assert await asyncio.wait_for(child.wait(), 30) == 128 + number
    finally:
        await child.stop()
    assert "what was made is removed" in child.stderr_tail
    assert left_of(run_id) == []
