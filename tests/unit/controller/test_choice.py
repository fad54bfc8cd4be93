"""What the config says of data centres and services decides, through the controller's own objects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from followme.config import openflow as config
from followme.config.document import ConfigError
from followme.controllers.openflow.controller import Controller
from followme.domain import Decision, Placement
from followme.placement.learned import LearnedTables
from followme.placement.learned_file import save_learned
from followme.store import Store

from .world import EXAMPLE


def decided(change: Callable[[dict[str, Any]], None], user_at: str = "wlan-west") -> Decision | None:
    """The decision about the example's service, its machine at dc-east and its user at ``user_at``."""
    data = yaml.safe_load(EXAMPLE.read_text())
    change(data)
    store = Store(":memory:")
    store.put_placement(Placement("alice", user_at, 2, IPv4Address("10.4.0.130"), 2))
    store.put_node(config.check(data, "example").nodes[1])
    controller = Controller(config.check(data, "example"), {}, store=store)
    controller._restore()
    return controller.deciding.decide(controller.config.services[0])


def with_policy(name: str, **needs: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data["policy"] = {"name": name}
        data["services"][0]["needs"] = needs

    return change


async def test_an_urgent_task_goes_whatever_the_policy() -> None:
    decision = decided(with_policy("never", task="emergency"))
    assert decision is not None
    assert (decision.migrate, decision.target) == (True, "dc-west")
    assert "always go to the best" in decision.why


async def test_what_is_nearly_over_stays_whatever_the_policy() -> None:
    decision = decided(with_policy("always", ends_at=datetime.now(UTC) + timedelta(seconds=20)))
    assert decision is not None
    assert not decision.migrate
    assert "nearly over" in decision.why


async def test_data_that_may_not_leave_stays_where_it_may_be() -> None:
    def change(data: dict[str, Any]) -> None:
        with_policy("always", localities=["DE"])(data)
        data["networks"][0]["offer"] = {"locality": "DE"}
        data["networks"][1]["offer"] = {"locality": "FR"}

    decision = decided(change)
    assert decision is not None
    assert not decision.migrate


async def test_a_full_data_centre_takes_nobody() -> None:
    def change(data: dict[str, Any]) -> None:
        data["policy"] = {"name": "always"}
        data["networks"][1]["offer"] = {"capacity": 0.5}

    decision = decided(change)
    assert decision is not None
    assert not decision.migrate


async def test_weights_decide_which_is_the_best() -> None:
    def change(data: dict[str, Any]) -> None:
        with_policy("always", weights={"server_price": 1.0})(data)
        data["networks"][0]["offer"] = {"server_price": [[0, 9.0], [10, 8.0]]}
        data["networks"][1]["offer"] = {"server_price": [[0, 1.0]]}

    decision = decided(change, user_at="wlan-east")
    assert decision is not None
    assert decision.target == "dc-west"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda d: d["networks"][0].update(offer={"server_price": [[0, 1.0], [5, 2.0]]}), r"networks\[0\].offer"),
        (lambda d: d["services"][0].update(needs={"weights": {"latency": 0.0}}), r"services\[0\].needs"),
        (
            lambda d: d["services"][0].update(needs={"weights": {"latency": 1.0}, "user_class": {"speed": 2.0}}),
            r"services\[0\].needs",
        ),
        (
            lambda d: d["services"][0].update(needs={"weights": {"latency": 1.0}, "user_class": {"latency": 0.0}}),
            r"services\[0\].needs",
        ),
        (lambda d: d.update(policy={"name": "mdp", "parameters": {"thr": 1e9}}), r"policy.parameters.*thr"),
    ],
)
async def test_a_mistake_names_its_key(change: Callable[[dict[str, Any]], None], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        decided(change)


async def test_what_was_learned_of_a_user_is_looked_up_by_the_user(tmp_path: Path) -> None:
    """The example's service is called otherwise than its user: alice is followed, whom nobody knows is not."""
    gain, table_of = np.array([[[-inf, -1.0], [-1.0, -inf]], [[-inf, 2.0], [2.0, -inf]]]), np.array([1, 0])
    nothing = np.zeros(0, dtype=np.int64)
    areas = ("dc-east", "dc-west")
    for users, goes in ((("alice",), True), (("desktop",), False)):
        learned = LearnedTables(areas, users, ("stay", "go"), gain, table_of, nothing, np.zeros(0))
        save_learned(learned, tmp_path / "learned.npz")

        def change(data: dict[str, Any]) -> None:
            assert (data["services"][0]["name"], data["services"][0]["user"]) == ("desktop", "alice")
            data["policy"] = {"name": "learned", "parameters": {"file": str(tmp_path / "learned.npz")}}

        decision = decided(change)
        assert decision is not None
        assert decision.migrate is goes
