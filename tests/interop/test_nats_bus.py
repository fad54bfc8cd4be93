"""The bus over a real nats-server: who may say what, and what happens when the server is away."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.interop.nats_lab import nats, needs_nats, until
from tests.unit.federation.bus_contract import served_before_and_after_a_pause

from followme.federation.bus import MAX_PAYLOAD, BusError, NoAnswer, TooLarge, Unreachable
from followme.federation.nats import REQUESTS_S, NatsBus
from followme.federation.nats_accounts import Login, bucket_of

pytestmark = needs_nats


async def _echo(sender: str, payload: bytes) -> bytes:
    return f"{sender}: ".encode() + payload


async def _answers(bus: NatsBus, to: str) -> bool:
    try:
        return bool(await bus.request(to, b"?", 0.5))
    except BusError:
        return False


async def test_the_bus_says_who_has_asked(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        alpha, beta = await lab.bus("alpha"), await lab.bus("beta")
        await beta.serve(_echo)
        await until(lambda: _answers(alpha, "beta"))
        assert await alpha.request("beta", b"hello", 1) == b"alpha: hello"
        many = await asyncio.gather(*(alpha.request("beta", b"%d" % one, 2) for one in range(200)))
        assert many == [b"alpha: %d" % one for one in range(200)]


async def test_hosts_and_their_controller_ask_each_other(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        alpha, host = await lab.bus("alpha"), await lab.host("alpha", "h1")
        await alpha.serve_hosts(_echo)

        async def answer(payload: bytes) -> bytes:
            return b"host " + payload

        await host.serve(answer)
        await host.connection.flush()
        await alpha.connection.flush()
        assert await host.request(b"moved", 1) == b"h1: moved"
        assert await alpha.request_host("h1", b"go", 1) == b"host go"
        with pytest.raises(Unreachable, match="nobody serves"):
            await alpha.request_host("h2", b"go", 1)


async def test_nobody_speaks_in_another_ones_name(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        alpha, gamma = await lab.bus("alpha"), await lab.bus("gamma")
        heard: list[str] = []

        async def hear(sender: str, payload: bytes) -> bytes:
            heard.append(sender)
            return b""

        await gamma.serve(hear)
        await until(lambda: _heard(alpha, heard))
        heard.clear()
        forger = NatsBus(alpha.connection, "beta")  # alpha's user, beta's name
        with pytest.raises(NoAnswer, match="ermission"):
            await forger.request("gamma", b"?", 0.5)
        assert heard == []


async def _heard(bus: NatsBus, heard: list[str]) -> bool:
    await _answers(bus, "gamma")
    return bool(heard)


@pytest.mark.parametrize("subject", ["fmc.beta.*", "fmc.>", "$KV.>", "_INBOX_beta.>", "fmc.alpha.agent.h1", ">"])
async def test_nobody_listens_where_it_must_not(tmp_path: Path, subject: str) -> None:
    async with nats(tmp_path) as lab:
        alpha, beta, gamma = await lab.bus("alpha"), await lab.bus("beta"), await lab.bus("gamma")
        stolen: list[str] = []

        async def steal(message: object) -> None:
            stolen.append(str(message))

        await alpha.connection.subscribe(subject, steal)
        await beta.serve(_echo)
        await until(lambda: _answers(gamma, "beta"))
        kv = await lab.bucket("beta")
        await kv.take_over(1)
        await kv.put("secret", b"x")
        assert stolen == []


async def test_no_one_reads_or_writes_another_ones_bucket(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        kv = await lab.bucket("beta")
        await kv.take_over(1)
        await kv.put("secret", b"x")
        alpha = await lab.bus("alpha")
        stream = f"KV_{bucket_of('beta')}"
        for call, body in (
            (f"STREAM.MSG.GET.{stream}", {"last_by_subj": f"$KV.{bucket_of('beta')}.secret"}),
            (f"STREAM.INFO.{stream}", {}),
            (f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": {}}),
            (f"STREAM.DELETE.{stream}", {}),
            (f"STREAM.PURGE.{stream}", {}),
        ):
            with pytest.raises(BusError):
                await alpha.connection.request(f"$JS.API.{call}", json.dumps(body).encode(), 0.3)
        with pytest.raises(BusError):
            await alpha.connection.request(f"$KV.{bucket_of('beta')}.secret", b"y", 0.3)
        entry = await kv.get("secret")
        assert entry is not None
        assert entry.value == b"x"


async def test_one_that_floods_takes_from_itself_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with nats(tmp_path) as lab:
        alpha, beta, gamma = await lab.bus("alpha"), await lab.bus("beta"), await lab.bus("gamma")
        heard: Counter[str] = Counter()

        async def hear(sender: str, payload: bytes) -> bytes:
            heard[sender] += 1
            if payload == b"bad":
                raise BusError(f"a frame of {sender}: nonsense")
            return payload

        await beta.serve(hear)
        await until(lambda: _answers(alpha, "beta"))
        begin = time.monotonic()
        for _ in range(60):
            for _ in range(250):
                await gamma.connection.publish("fmc.beta.gamma", b"bad")
            assert await alpha.request("beta", b"good", 2) == b"good"
        most = 2 * REQUESTS_S + REQUESTS_S * (time.monotonic() - begin)
        assert 0 < heard["gamma"] <= most + 1
        assert heard["gamma"] + beta.dropped <= 60 * 250
        if most < 10_000:  # unless this machine is very slow
            assert beta.dropped > 0
        assert len(caplog.messages) < 10, "a line for each reason, not for each request"


async def test_a_domain_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        (server,) = lab.servers
        limits = json.loads((server.directory / "nats.conf").read_text())["accounts"]["FMC_beta"]["limits"]
        most = limits["max_connections"]
        await asyncio.gather(*(lab.bus("beta", str(number)) for number in range(most)))
        with pytest.raises(Unreachable, match="onnections"):
            await NatsBus.open(lab.access(lab.logins["beta"].controller), "beta", "one-more", timeout=1)
        await lab.bus("alpha")


async def test_a_host_is_nothing_but_a_host(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        kv = await lab.bucket("alpha")
        await kv.take_over(1)
        await kv.put("secret", b"x")
        alpha, beta, host = await lab.bus("alpha", "2"), await lab.bus("beta"), await lab.host("alpha", "h1")
        await beta.serve(_echo)
        await alpha.serve_hosts(_echo)
        await until(lambda: _answers(alpha, "beta"))
        get = f"$JS.API.STREAM.MSG.GET.KV_{bucket_of('alpha')}"
        for subject in ("fmc.beta.alpha", "fmc.alpha.host.h2", get, f"$KV.{bucket_of('alpha')}.secret"):
            with pytest.raises(BusError):
                await host.connection.request(subject, b"{}", 0.3)
        entry = await kv.get("secret")
        assert entry is not None
        assert entry.value == b"x"


async def test_a_wrong_password_is_told_with_the_server(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        access = lab.access(Login("alpha", "wrong"))
        with pytest.raises(Unreachable, match=rf"{lab.servers[0].member.listen}.*uthorization"):
            await NatsBus.open(access, "alpha", "1", timeout=1)
        assert "wrong" not in repr(access)


async def test_configuration_is_for_its_owner_only(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        assert (lab.servers[0].directory / "nats.conf").stat().st_mode & 0o777 == 0o600


async def test_what_is_too_large_does_not_leave(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        alpha, beta = await lab.bus("alpha"), await lab.bus("beta")
        await beta.serve(_echo)
        await until(lambda: _answers(alpha, "beta"))
        with pytest.raises(TooLarge):
            await alpha.request("beta", bytes(MAX_PAYLOAD + 1), 1)
        assert len(await alpha.request("beta", bytes(MAX_PAYLOAD - 100), 5)) == MAX_PAYLOAD - 93


@pytest.mark.parametrize("away", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_server_that_was_away_is_found_again(tmp_path: Path, away: signal.Signals) -> None:
    async with nats(tmp_path) as lab:
        alpha, beta = await lab.bus("alpha"), await lab.bus("beta")
        await beta.serve(_echo)
        await until(lambda: _answers(alpha, "beta"))
        (server,) = lab.servers
        if away == signal.SIGKILL:
            await server.kill()
        else:
            server.send_signal(away)
        begin = time.monotonic()
        while time.monotonic() < begin + 5:  # longer than it takes to notice a server that is silent
            with pytest.raises(BusError, match=server.member.listen):
                await alpha.request("beta", b"?", 0.2)
            await asyncio.sleep(0.05)
        if away == signal.SIGKILL:
            await server.start()
        else:
            server.send_signal(signal.SIGCONT)
        begin = time.monotonic()
        await until(lambda: _answers(alpha, "beta"))
        assert time.monotonic() - begin < 5


async def test_a_server_that_forgets_us_and_lets_us_in_again(tmp_path: Path) -> None:
    """Its users are gone when it comes back, so it says no; later they are there again."""
    async with nats(tmp_path) as lab:
        alpha, beta = await lab.bus("alpha"), await lab.bus("beta")
        await beta.serve(_echo)
        await until(lambda: _answers(alpha, "beta"))
        (server,) = lab.servers
        path = server.directory / "nats.conf"
        right = path.read_text()
        await server.kill()
        server.configure(right.replace(lab.logins["alpha"].controller.password, "another"))
        await server.start()
        with pytest.raises(BusError, match=r"away|answer"):
            await alpha.request("beta", b"?", 0.5)
        await server.kill()
        server.configure(right)
        await server.start()
        await until(lambda: _answers(alpha, "beta"))


async def test_what_is_being_served_ends_when_the_bus_is_paused(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        alpha, beta = await lab.bus("alpha"), await lab.bus("beta")
        assert await served_before_and_after_a_pause(alpha, beta) == (True, False)
