"""A peer is judged by its first header."""

from __future__ import annotations

import pytest

from followme.openflow import Closed, Connection


@pytest.mark.parametrize("first", ["0400ffff00000001", "0000ffff00000001", "8000ffff00000001", "0405ffff00000001"])
def test_the_first_header_is_judged_before_the_length_that_it_claims_has_come(first: str) -> None:
    connection = Connection(0.0)
    events = connection.receive_data(bytes.fromhex(first), 0.0)
    # Only the first of them may become a HELLO.
    assert [type(event) for event in events] == ([] if first == "0400ffff00000001" else [Closed])


@pytest.mark.parametrize("version", [1, 5, 6, 0x7F])
def test_other_versions_that_there_may_be_are_negotiated(version: int) -> None:
    (*_, last) = [None, *Connection(0.0).receive_data(bytes([version, 0, 0, 8, 0, 0, 0, 1]), 0.0)]
    assert (last is None) == (version > 4)
    if last is not None:
        assert isinstance(last, Closed)
        assert "peer offers version 1" in last.reason
