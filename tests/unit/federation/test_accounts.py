"""What each user of a domain's account may say."""

from __future__ import annotations

import json
from typing import Any

from followme.federation.nats_accounts import Member, generate_logins, write_configuration


def permissions() -> dict[str, dict[str, Any]]:
    logins = generate_logins({"alpha": ("h1", "h2"), "beta": ()})
    document = json.loads(write_configuration(Member("one", "127.0.0.1:4222"), logins))
    users = [user for account in document["accounts"].values() for user in account["users"]]
    return {user["user"]: user["permissions"] for user in users if "permissions" in user}


def test_a_controller_answers_only_where_answers_go() -> None:
    found = permissions()["alpha"]
    # With it a server of 2.9 keeps each message of a bucket that is followed for a minute, and goes through all of
    # them with each that comes: a bucket of a million keys could not be read.
    assert "allow_responses" not in found
    inboxes = {subject for subject in found["publish"] if "INBOX" in subject or subject.startswith("_R_")}
    assert inboxes == {"_R_.>", "_INBOX_alpha_HOST_h1.>", "_INBOX_alpha_HOST_h2.>"}
    assert not [subject for subject in found["publish"] if subject.startswith("fmc.") and "beta" in subject]


def test_a_host_answers_once() -> None:
    found = permissions()["alpha.h1"]
    assert found["publish"] == ["fmc.alpha.host.h1"]
    assert found["allow_responses"]["max"] == 1
