"""The config's sections of step 2: all mistakes at once, each with its key, and what would have no effect."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from followme.config.document import ConfigError
from followme.config.openflow import Config, check
from followme.placement.learned_file import save_learned
from followme.placement.learned_line import LearnedLine
from followme.placement.settings import chooser_of, policy_of

from ..config.document import RIGHT


def document(policy: str = "always", offer: object = None, **needs: object) -> dict[str, Any]:
    data = copy.deepcopy(RIGHT)
    data["policy"] = {"name": policy}
    if offer is not None:
        data["networks"][1]["offer"] = offer
    if needs:
        data["services"][0]["needs"] = needs
    return data


def loaded(data: dict[str, Any]) -> Config:
    return check(data, "fmc.yaml")


def mistakes(data: dict[str, Any]) -> list[str]:
    config = loaded(data)
    with pytest.raises(ConfigError) as caught:
        policy_of(config)
    with pytest.raises(ConfigError) as again:
        chooser_of(config)
    assert caught.value.problems == again.value.problems, "both say all"
    return caught.value.problems


def test_all_mistakes_are_said_at_once() -> None:
    data = document(offer={"server_price": [[0, 1.0], [5, 2.0]]}, weights={"latency": 0.0})
    data["policy"] = {"name": "mdp", "parameters": {"p": 2.0}}
    data["networks"][0]["offer"] = {"capacity": 1}
    found = mistakes(data)
    assert len(found) == 5
    for key in (
        "policy.parameters", "networks[1].offer: tier", "services[0].needs: all weights", "networks[0].offer",
        "services[0].needs.worth",
    ):  # fmt: skip
        assert sum(line.startswith(f"fmc.yaml: {key}") for line in found) == 1, key


@pytest.mark.parametrize(
    ("offer", "needs", "line"),
    [
        ({"locality": "FI"}, {"localities": ["FI", "DE"]},
         "services[0].needs.localities: 'DE' is offered by no data centre with a host; they offer FI"),
        (None, {"localities": ["FI"]},
         "services[0].needs.localities: 'FI' is offered by no data centre with a host; they offer nothing of the"),
        (None, {"localities": []}, "services[0].needs.localities: an empty list allows no place at all"),
        ({"service_classes": ["gold"]}, {"service_class": "silver"},
         "services[0].needs.service_class: 'silver' is"),
        ({"provider": "a"}, {"preferred": ["b"], "weights": {"preference": 1}},
         "services[0].needs.preferred: 'b' is offered by no data centre with a host; they offer a"),
        ({"provider": "a"}, {"preferred": ["a"], "weights": {"latency": 1}},
         "services[0].needs.preferred: counts by"),
        ({"provider": "a"}, {"preferred": ["a"]},
         "services[0].needs.preferred: counts by needs.weights.preference"),
        (None, {"user_class": {"latency": 2.0}}, "services[0].needs: user_class multiplies weights and worths"),
    ],
)  # fmt: skip
def test_what_would_have_no_effect_is_said(offer: object, needs: dict[str, object], line: str) -> None:
    (found,) = mistakes(document("always", offer, **needs))
    assert found.startswith(f"fmc.yaml: {line}")


def test_an_offer_where_nothing_can_run_is_said() -> None:
    data = document()
    data["networks"][0]["offer"] = {"provider": "a"}
    (found,) = mistakes(data)
    assert found == "fmc.yaml: networks[0].offer: wlan1 is an access network; only data centres offer something"
    data = document()
    data["networks"].append({**copy.deepcopy(data["networks"][1]), "name": "dc2", "datapath": 7, "offer": {},
                             "prefix": "10.9.0.0/24", "locators": "10.9.0.128/25"})  # fmt: skip
    del data["networks"][2]["host"]
    (found,) = mistakes(data)
    assert found == "fmc.yaml: networks[2].offer: dc2 has no 'host', so nothing can run there"


def test_weights_under_a_model_of_distance_need_worths() -> None:
    weights = {"latency": 1.0}
    for policy in ("threshold", "myopic", "mdp"):
        (found,) = mistakes(document(policy, weights=weights))
        assert found.startswith("fmc.yaml: services[0].needs.worth: missing")
        assert chooser_of(loaded(document(policy, weights=weights, worth={"latency": 1.0}))) is not None
    for policy in ("always", "never", "stay-or-go"):
        assert policy_of(loaded(document(policy, weights=weights))).name == policy


def test_only_the_worths_that_are_given_count() -> None:
    chooser = chooser_of(loaded(document(worth={"latency": 3.0}, user_class={"latency": 2.0})))
    assert chooser is not None
    worth = chooser.needs("desktop").worth
    assert worth is not None
    assert worth.columns == [("latency", 0, -6.0)]
    assert chooser.needs("another").worth is None


def test_an_end_is_a_moment() -> None:
    for text in ("2030-01-31T20:15:00+01:00", "2030-01-31T19:15:00Z"):
        chooser = chooser_of(loaded(document(ends_at=text)))
        assert chooser is not None
        assert chooser.needs("desktop").ends_at == 1896117300.0
    for wrong in ("2030-01-31T20:15:00", "tomorrow", 20, "2030-01-31", None):
        data = document(ends_at=wrong)
        if wrong is None:
            assert chooser_of(loaded(data)) is not None
            continue
        with pytest.raises(ConfigError, match=r"services\[0\].needs.ends_at: .*write a time with its offset"):
            loaded(data)


@pytest.mark.parametrize(
    ("policy", "offer", "needs", "line"),
    [
        ("stay-or-go", None, {"worth": {}}, "services[0].needs: worth: nothing in it counts"),
        ("stay-or-go", None, {"worth": {"latency": 0.0}}, "services[0].needs: worth: nothing in it counts"),
        ("mdp", None, {"weights": {"latency": 1.0}, "worth": {}}, "services[0].needs: worth: nothing in it counts"),
        ("always", None, {"worth": {"latency": 2.0}, "user_class": {"latency": 0.0}},
         "services[0].needs: worth: nothing in it counts"),
        ("always", None, {"worth": {"server_price": 1.7e308}},
         "services[0].needs: worth of server_price 1.7e+308 must be at most 1e+15"),
        ("always", None, {"worth": {"latency": 1e10}, "user_class": {"latency": 1e10}},
         "services[0].needs: worth of latency 1e+10 times the user class's 1e+10 must be at most 1e+15"),
        ("always", {"capacity": 3}, {"demand": 4},
         "services[0].needs.demand: 4 is more than any data centre with a host has; the largest capacity is 3"),
        ("always", None, {"demand": 1e101}, "services[0].needs: demand 1e+101 must be at most 1e+100"),
        ("always", None, {"demand": 1e-101}, "services[0].needs: demand 1e-101 must be 0 or at least 1e-100"),
        ("always", {"capacity": 0.5}, {},
         "services[0].needs.demand: 1 is more than any data centre with a host has; the largest capacity is 0.5"),
    ],
)  # fmt: skip
def test_what_would_never_move_is_refused(
    policy: str, offer: object, needs: dict[str, object], line: str
) -> None:
    found = mistakes(document(policy, offer, **needs))
    assert len(found) == 1
    assert found[0].startswith(f"fmc.yaml: {line}")


def test_what_was_learned_must_be_of_the_data_centres(tmp_path: Path) -> None:
    names = [one["name"] for one in RIGHT["networks"] if one["kind"] == "datacentre"]
    for areas, fine in (((*names, "z"), True), (tuple("abcdefg"), False)):
        count = len(areas)
        line = LearnedLine(areas, (), np.zeros((1, 3)), np.zeros((1, count), dtype=np.int64))
        save_learned(line, tmp_path / "learned.npz")
        data = document("learned")
        data["policy"]["parameters"] = {"file": str(tmp_path / "learned.npz")}
        if fine:
            assert policy_of(loaded(data)).name == "mdp-line"
        else:
            (found,) = mistakes(data)
            assert "policy.parameters.file: of the data centres with a host" in found
            assert "none is an area in it; it has 'a', 'b', 'c', 'd', 'e' and 2 more" in found
        data["services"][0]["needs"] = {"weights": {"latency": 1.0}}
        assert any("policy 'learned' knows distance only" in line for line in mistakes(data))


def test_a_mistake_in_a_list_of_prices_is_one_line() -> None:
    for tiers, line in (
        ([[0, -1]], "server_price[0][1]: -1"),
        ([[0, 1, 2]], "server_price[0]"),
        ([], "server_price: []: there must be 1 to 8 tiers, not 0"),
        ([[one, 10 - one] for one in range(9)], "there must be 1 to 8 tiers, not 9"),
    ):
        with pytest.raises(ConfigError) as caught:
            loaded(document(offer={"server_price": tiers}))
        assert len(caught.value.problems) == 1
        assert line in caught.value.problems[0]
