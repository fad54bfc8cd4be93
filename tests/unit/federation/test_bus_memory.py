"""The bus in one process: who has asked, and the ways in which it fails when a test wants it to."""

from __future__ import annotations

import asyncio

import pytest

from followme.federation.bus import MAX_PAYLOAD, NoAnswer, TooLarge, Unreachable, check_name
from followme.federation.memory import MemoryHub


async def _echo(sender: str, payload: bytes) -> bytes:
    return f"{sender}: ".encode() + payload


async def test_the_bus_says_who_has_asked() -> None:
    hub = MemoryHub()
    alpha, beta = hub.bus("alpha"), hub.bus("beta")
    with pytest.raises(Unreachable, match="beta"):
        await alpha.request("beta", b"?", 1)
    await beta.serve(_echo)
    assert await alpha.request("beta", b"?", 1) == b"alpha: ?"
    await beta.pause()
    with pytest.raises(Unreachable):
        await alpha.request("beta", b"?", 1)


async def test_hosts_and_their_controller() -> None:
    hub = MemoryHub()
    alpha, other, host = hub.bus("alpha"), hub.bus("beta"), hub.host_bus("alpha", "h1")
    await alpha.serve_hosts(_echo)

    async def answer(payload: bytes) -> bytes:
        return b"host " + payload

    await host.serve(answer)
    assert await host.request(b"?", 1) == b"h1: ?"
    assert await alpha.request_host("h1", b"go", 1) == b"host go"
    with pytest.raises(Unreachable):
        await other.request_host("h1", b"go", 1)
    host.cut = True
    with pytest.raises(NoAnswer):
        await host.request(b"?", 0.05)
    with pytest.raises(Unreachable):
        await alpha.request_host("h1", b"go", 0.05)
    await host.close()


async def test_parted_domains_and_lost_answers() -> None:
    hub = MemoryHub()
    alpha, beta, gamma = hub.bus("alpha"), hub.bus("beta"), hub.bus("gamma")
    for end in (alpha, beta, gamma):
        await end.serve(_echo)
    hub.part("alpha", "beta")
    with pytest.raises(NoAnswer):
        await alpha.request("beta", b"?", 0.05)
    assert await gamma.request("beta", b"?", 1) == b"gamma: ?"
    hub.join()
    assert await alpha.request("beta", b"?", 1) == b"alpha: ?"
    hub.loss = 0.5
    asked = [alpha.request("beta", b"?", 0.05) for _ in range(100)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    lost = sum(isinstance(one, NoAnswer) for one in results)
    assert 50 < lost < 95  # a quarter gets through
    assert hub.requests == 103


async def test_a_request_may_be_acted_upon_although_its_answer_is_late() -> None:
    hub = MemoryHub(delay=0.03)
    alpha, beta = hub.bus("alpha"), hub.bus("beta")
    heard: list[bytes] = []

    async def hear(sender: str, payload: bytes) -> bytes:
        heard.append(payload)
        return b""

    await beta.serve(hear)
    with pytest.raises(NoAnswer):
        await alpha.request("beta", b"?", 0.045)
    assert heard == [b"?"]


async def test_of_two_instances_the_first_answer_counts_and_a_silent_one_is_not_waited_for() -> None:
    hub = MemoryHub()
    alpha, one, two = hub.bus("alpha"), hub.bus("beta"), hub.bus("beta")

    async def silent(sender: str, payload: bytes) -> bytes:
        raise RuntimeError("no")

    await one.serve(silent)
    await two.serve(_echo)
    assert await alpha.request("beta", b"?", 1) == b"alpha: ?"
    two.cut = True
    with pytest.raises(NoAnswer):
        await alpha.request("beta", b"?", 0.05)


async def test_what_is_too_large_does_not_leave() -> None:
    hub = MemoryHub()
    alpha, beta = hub.bus("alpha"), hub.bus("beta")
    await beta.serve(_echo)
    with pytest.raises(TooLarge, match="beta"):
        await alpha.request("beta", bytes(MAX_PAYLOAD + 1), 1)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "*", ">", "x" * 33, "é"])
def test_what_cannot_name_a_domain(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        check_name(name)
