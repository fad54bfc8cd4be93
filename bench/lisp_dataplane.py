"""Two xTRs on the kernel's data plane, against the same path without a tunnel.

client - xtr1 - core - xtr2 - server: five namespaces, three of which route; 1500 bytes of MTU at the sites and
1600 in the core. The peer is the same path with plain routes. The arm "kernel alone" is LISP-GPE without the fast
path, "GPE by queues" with it but without what it does where a device is a bare veth: as on a NIC. All arms are
measured in turn within a round, and a ratio is the median of the rounds' own ratios. The generator runs on the
first CPU and with it, in its system calls, all three routers; the receiver runs on the last. What they cost
themselves is in all arms.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.figures import Figure, Say, Skipped
from followme.system import needs, netns
from followme.system.process import Child, run
from followme.xtr import device, fastpath
from followme.xtr.fastpath import FastPath
from followme.xtr.headers import PlainHeaders
from followme.xtr.routemsg import Encap, Locator
from followme.xtr.routes import MapCacheRoutes

SERVER, PORT, INSTANCE = "10.2.0.2", 5001, 7
SIZES = (64, 512, 1400)
"""Bytes of the IP packet."""
IP_UDP = 28
ENTRIES = 100_000
LOAD_S = 10.0
UDP_RATIO, GPE_RATIO, PLAIN_RATIO, MANY_RATIO = 0.6, 0.9, 0.85, 0.95
RLOC1, RLOC2, OTHER2 = (ipaddress.IPv4Address(one) for one in ("192.0.2.1", "192.0.2.6", "198.51.100.1"))
SITE1, SITE2 = ipaddress.ip_network("10.1.0.0/24"), ipaddress.ip_network("10.2.0.0/24")
PLAIN, GPE, RFC9300, QUEUES, KERNEL = ARMS = ("plain", "LISP-GPE", "RFC 9300", "GPE by queues", "kernel alone")
UDP_S, TCP_S = 0.4, 2
CORE_MTU = 1600


@dataclass(frozen=True, slots=True)
class End:
    """An xTR, and what switches its arms."""

    rloc: ipaddress.IPv4Address
    routes: MapCacheRoutes
    headers: PlainHeaders
    fast: FastPath


@dataclass(frozen=True, slots=True)
class Bed:
    """The path."""

    names: dict[str, str]
    program: Path
    one: End
    two: End

    async def arm(self, name: str) -> None:
        """The plain routes stay with a worse metric; an arm adds the map-cache entries, headers and programs."""
        for end, other, eid in ((self.one, self.two, SITE2), (self.two, self.one, SITE1)):
            entry = Encap(eid, INSTANCE, (Locator(other.rloc),))
            if name == PLAIN:
                end.routes.delete(entry)
            else:
                end.routes.replace(entry)
            if name == RFC9300:
                await end.headers.ensure([other.rloc])
            else:
                await end.headers.remove()
            if name in (GPE, RFC9300, QUEUES):
                end.fast.attach(plain=name == RFC9300, hand_over=name != QUEUES)
            else:
                end.fast.remove()

    async def udp(self, payload: int, seconds: float, rate: float = 0) -> Stream:
        receiver = asyncio.create_task(run(
            ["taskset", "-c", str(_cpus()[-1]), self.program, "sink", SERVER, str(PORT), str(seconds + 3)],
            namespace=self.names["server"],
        ))  # fmt: skip
        await asyncio.sleep(0.1)
        sent = (await run(
            ["taskset", "-c", str(_cpus()[0]), self.program, "send", SERVER, str(PORT), str(payload), str(seconds),
             str(rate)], namespace=self.names["client"],
        )).split()  # fmt: skip
        got = (await receiver).split()
        duration = float(got[1])
        return Stream(int(sent[0]), int(got[0]), int(got[0]) / duration if duration > 0 else 0.0,
                      float(sent[2]) / max(1, int(sent[0])), int(got[2]))  # fmt: skip

    async def tcp(self) -> tuple[float, float]:
        """Of one stream, the same congestion control in all arms: gigabits that arrive a second, and a second of
        CPU time of both ends (which do the routers' work as well)."""
        server = await Child.start(["iperf3", "-s", "-1"], namespace=self.names["server"])
        try:
            await asyncio.sleep(0.2)
            text = await run(["iperf3", "-c", SERVER, "-C", "cubic", "-t", str(TCP_S), "-O", "0", "-J"],
                             namespace=self.names["client"])  # fmt: skip
        finally:
            await server.stop(grace=0.2)
        end = json.loads(text)["end"]
        cpu = end["cpu_utilization_percent"]
        gigabits = float(end["sum_received"]["bits_per_second"]) / 1e9
        return gigabits, gigabits / (cpu["host_total"] + cpu["remote_total"]) * 100


@dataclass(frozen=True, slots=True)
class Stream:
    sent: int
    received: int
    pps: float
    cpu_s: float
    late: int

    @property
    def lost(self) -> float:
        return 1 - self.received / max(1, self.sent)


@dataclass(slots=True)
class Series:
    """The values of an arm, round by round."""

    values: dict[str, list[float]] = field(default_factory=lambda: {arm: [] for arm in ARMS})

    def ratio(self, arm: str) -> float:
        return median(ours / plain for ours, plain in zip(self.values[arm], self.values[PLAIN], strict=True))


def figures(quick: bool, say: Say) -> list[Figure]:
    problems = needs.check([needs.Need.ROOT, needs.Need.NETWORKS, needs.Need.VXLAN_GPE])
    for program in ("iperf3", "gcc", "nft", "taskset"):
        if shutil.which(program) is None:
            problems.append(f"missing {program}")
    if problems:
        raise Skipped("; ".join(problems))
    return asyncio.run(_figures(quick, say))


async def _figures(quick: bool, say: Say) -> list[Figure]:
    async with _bed() as bed:
        found = await _streams(bed, 5 if quick else 15, say)
        found += await _tcp(bed, 5 if quick else 11, say)
        found += await _many(bed, 3 if quick else 7, say)
        found += await _replacing(bed, say)
    return found


async def _streams(bed: Bed, rounds: int, say: Say) -> list[Figure]:
    found = []
    for size in SIZES:
        rate, cpu, lost = Series(), Series(), 0.0
        for _ in range(rounds):
            for arm in ARMS:
                await bed.arm(arm)
                seen = await bed.udp(size - IP_UDP, UDP_S)
                rate.values[arm].append(seen.pps)
                cpu.values[arm].append(seen.cpu_s)
                lost = max(lost, seen.lost)
        say(f"UDP {size}: the worst trial of any arm lost {lost:.2%}")
        for arm in ARMS[1:]:
            what = f"UDP {size} bytes, {arm}"
            target = UDP_RATIO if arm in (GPE, RFC9300) else None
            found.append(_figure(f"{what}: received at saturation", "packet/s", rate, arm, target))
            per_cpu = f"{what}: packets a CPU second of sender and routers"
            found.append(_figure(per_cpu, "packet/s", _inverse(cpu), arm, None))
    return found


async def _tcp(bed: Bed, rounds: int, say: Say) -> list[Figure]:
    rate, per_cpu = Series(), Series()
    for _ in range(rounds):
        for arm in ARMS:
            await bed.arm(arm)
            gigabits, of_cpu = await bed.tcp()
            rate.values[arm].append(gigabits)
            per_cpu.values[arm].append(of_cpu)
    for arm in ARMS:
        say(f"TCP {arm}: {min(rate.values[arm]):.1f} to {max(rate.values[arm]):.1f} Gbit/s")
    found = []
    for arm, target in ((GPE, GPE_RATIO), (RFC9300, PLAIN_RATIO), (QUEUES, None), (KERNEL, None)):
        found.append(_figure(f"TCP, {arm}", "Gbit/s", rate, arm, target))
        found.append(_figure(f"TCP, {arm}: a CPU second of ends and routers", "Gbit", per_cpu, arm, None))
    return found


async def _many(bed: Bed, rounds: int, say: Say) -> list[Figure]:
    await bed.arm(GPE)
    first = int(ipaddress.ip_address("10.128.0.0"))
    entries = [Encap(ipaddress.IPv4Network(first + one), INSTANCE, (Locator(RLOC2),)) for one in range(ENTRIES)]
    took, ratios, few, many = [], [], [], []
    for _ in range(rounds):
        few.append((await bed.tcp())[0])
        begin = time.monotonic()
        await bed.one.routes.load(entries)
        took.append(time.monotonic() - begin)
        many.append((await bed.tcp())[0])
        ratios.append(many[-1] / few[-1])
        for entry in entries:
            bed.one.routes.delete(entry)
    say(f"{ENTRIES} entries loaded in {min(took):.2f} to {max(took):.2f} s")
    return [
        Figure(f"{ENTRIES} entries loaded", "s", median(took), None, "", None, f"<= {LOAD_S:g} s",
               median(took) <= LOAD_S),
        Figure(f"TCP with {ENTRIES} entries", "Gbit/s", median(many), median(few), "with one", median(ratios),
               f">= {MANY_RATIO}", median(ratios) >= MANY_RATIO),
    ]  # fmt: skip


async def _replacing(bed: Bed, say: Say) -> list[Figure]:
    """One EID goes to and fro between two locators while a stream of numbered packets passes."""
    await bed.arm(GPE)
    ways = [Encap(SITE2, INSTANCE, (Locator(rloc),)) for rloc in (RLOC2, OTHER2)]
    streaming = asyncio.create_task(bed.udp(484, 2.0, 10_000))
    await asyncio.sleep(0.4)
    took = []
    for number in range(1000):
        begin = time.perf_counter()
        bed.one.routes.replace(ways[(number + 1) % 2])
        took.append(time.perf_counter() - begin)
        await asyncio.sleep(0.001)
    seen = await streaming
    missing = seen.sent - seen.received
    say(f"{len(took)} replacements: longest {max(took) * 1e6:.0f} us; {seen.late} packets out of order")
    return [
        Figure("replacing the locator of an EID", "us", median(took) * 1e6, None, "", None, "< 1000 us",
               median(took) < 1e-3),
        Figure("packets lost in 1000 replacements", "", missing, seen.sent, "sent", None, "0", missing == 0),
    ]  # fmt: skip


def _figure(what: str, unit: str, series: Series, arm: str, target: float | None) -> Figure:
    ratio, ours, peer = series.ratio(arm), median(series.values[arm]), median(series.values[PLAIN])
    if target is None:
        return Figure(what, unit, ours, peer, "no tunnel", ratio)
    return Figure(what, unit, ours, peer, "no tunnel", ratio, f">= {target}", ratio >= target)


def _inverse(series: Series) -> Series:
    return Series({arm: [1 / one for one in values] for arm, values in series.values.items()})


def _cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))


@contextlib.asynccontextmanager
async def _bed() -> AsyncIterator[Bed]:
    names = {role: f"fmb{os.getpid()}{role[0]}{role[-1]}" for role in ("client", "xtr1", "core", "xtr2", "server")}
    client, xtr1, core, xtr2, server = names.values()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as closing:
        program = Path(directory) / "udp_stream"
        await run(["gcc", "-O2", "-o", program, Path(__file__).with_name("udp_stream.c")])
        try:
            for name in names.values():
                await netns.add(name)
                netns.sysctl(name, {"ipv4/ip_forward": 1})
            for left, dev1, right, dev2 in ((client, "e0", xtr1, "e0"), (xtr1, "u0", core, "k1"),
                                            (core, "k2", xtr2, "u0"), (xtr2, "e0", server, "e0")):  # fmt: skip
                mtu = CORE_MTU if core in (left, right) else 1500
                await netns.ip(None, [f"link add {dev1} netns {left} mtu {mtu} type veth "
                                      f"peer name {dev2} mtu {mtu} netns {right}"])  # fmt: skip
            for name, some in {
                client: ["e0 10.1.0.2/24"], server: ["e0 10.2.0.2/24"],
                core: ["k1 192.0.2.2/30", "k2 192.0.2.5/30"],
                xtr1: ["e0 10.1.0.1/24", "u0 192.0.2.1/30"],
                xtr2: ["e0 10.2.0.1/24", "u0 192.0.2.6/30", "lo 198.51.100.1/32"],
            }.items():  # fmt: skip
                for dev, address in (one.split() for one in some):
                    await netns.ip(name, [f"addr add {address} dev {dev}", f"link set {dev} up"])
            for name, ways in {
                client: ["default via 10.1.0.1"], server: ["default via 10.2.0.1"],
                xtr1: ["192.0.2.4/30 via 192.0.2.2", "198.51.100.1 via 192.0.2.2",
                       "10.2.0.0/24 via 192.0.2.2 metric 5000"],
                core: ["10.1.0.0/24 via 192.0.2.1", "10.2.0.0/24 via 192.0.2.6", "198.51.100.1 via 192.0.2.6"],
                xtr2: ["192.0.2.0/30 via 192.0.2.5", "10.1.0.0/24 via 192.0.2.5 metric 5000"],
            }.items():  # fmt: skip
                await netns.ip(name, [f"route add {way}" for way in ways])
            ends = []
            for name, rloc in ((xtr1, RLOC1), (xtr2, RLOC2)):
                netns.sysctl(name, {"ipv4/conf/all/rp_filter": 0, "ipv4/conf/e0/rp_filter": 0})
                tunnel = await device.ensure(namespace=name, core_mtu=CORE_MTU)
                fast = await fastpath.ensure(tunnel, lan="e0", up="u0", local_rloc=rloc)
                if fast is None:
                    raise Skipped(f"no fast path: {fastpath.problem(tunnel, lan='e0', up='u0') or 'no eBPF'}")
                closing.callback(fast.close)
                routes = closing.enter_context(contextlib.closing(MapCacheRoutes(tunnel, fastpath=fast)))
                ends.append(End(rloc, routes, PlainHeaders(tunnel, ["u0"], fastpath=fast), fast))
            yield Bed(names, program, *ends)
        finally:
            for name in names.values():
                await netns.delete(name)
