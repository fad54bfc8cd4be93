"""Whether a host has a machine: the question, its answers, and a controller that asks."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from followme.federation.custody import (
    Custodians,
    Custody,
    Has,
    decode_answer,
    decode_question,
    encode_question,
    is_question,
)
from followme.federation.edge_network import NotKnown
from followme.federation.memory import MemoryHub

VM, MAC = IPv4Address("10.1.0.5"), b"\2\0\0\0\0\1"


@pytest.mark.parametrize("mac", [MAC, b""])
def test_a_question_comes_as_it_was_asked(mac: bytes) -> None:
    question = encode_question(VM, mac)
    assert is_question(question)
    assert decode_question(question) == (VM, mac)


@pytest.mark.parametrize("payload", [
    b"", b"[]", b'["carry",1,2]', b'["has",1]', b'["has","x",""]', b'["has",true,""]', b'["has",-1,""]',
    b'["has",4294967296,""]', b'["has",1,"zz0000000000"]', b'["has",1,"02"]', b'["has",' + b"[" * 4000,
    b'["has",' + b" " * 5000,
])  # fmt: skip
@pytest.mark.parametrize("decode", [decode_question, decode_answer])
def test_what_is_no_question_or_answer_is_refused(payload: bytes, decode: Callable[[bytes], object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(payload)


def test_an_answer_is_for_people_to_read() -> None:
    assert decode_answer(Custody("yes", "vm\n\x1b[31m" + "x" * 999).encode()).text == "vm??[31m" + "x" * 192


async def _custodians(**answers: Has | bytes) -> Custodians:
    hub = MemoryHub()
    for host, has in answers.items():

        async def answer(payload: bytes, has: Has | bytes = has) -> bytes:
            assert decode_question(payload) == (VM, MAC)
            return has if isinstance(has, bytes) else Custody(has, "words").encode()

        await hub.host_bus("alpha", host).serve(answer)
    return Custodians(hub.bus("alpha").request_host, {"n1": "h1", "n2": "h2", "n3": None})


async def test_the_networks_host_is_asked() -> None:
    custodians = await _custodians(h1="yes", h2="no")
    assert [await custodians.has(VM, MAC, network) for network in ("n1", "n2", "n3", "n9")] == [
        True, False, False, False]  # fmt: skip
    assert await custodians.has(VM, MAC), "any host"


@pytest.mark.parametrize(("answers", "says"), [
    ({}, "host h1: its agent does not say"), ({"h1": b"what"}, "host h1: its agent does not say"),
    ({"h1": "unsettled"}, "host h1: words"),
])  # fmt: skip
async def test_without_an_answer_nothing_is_known(answers: dict[str, Has | bytes], says: str) -> None:
    custodians = await _custodians(**answers)
    for network in ("n1", None):
        with pytest.raises(NotKnown, match=says):
            await custodians.has(VM, MAC, network)


async def test_who_says_that_it_has_it_is_enough() -> None:
    assert await (await _custodians(h2="yes")).has(VM, MAC)
