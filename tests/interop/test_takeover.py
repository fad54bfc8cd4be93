from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from tests.interop.instances import fleet
from tests.unit.controller.domains import VM


async def test_kill(tmp_path: Path) -> None:
    t=time.monotonic()
    async with fleet(tmp_path, single=["gamma","delta"], gated=["alpha/1","alpha/2"]) as world:
        print("up", time.monotonic()-t)
        world.converse()
        def show(what):
            print(what, round(time.monotonic()-t,2), world.sent, dict(world.lost), sum(world.upward.values()), world.brought, flush=True)
            world.lost.clear()
        await asyncio.sleep(0.5)
        show("idle")
        async def kill(domain):
            nonlocal t
            name = await world.active(domain)
            t=time.monotonic()
            await world.kill(name)
            show("killed "+name)
            return name
        a = await world.agent("dc-a")
        await a.prepare(VM, "dc-b", "m1")
        k = await kill("alpha"); kb=await kill("beta")
        world.at="dc-b"
        await a.flipped(VM,"m1"); show("flipped")
        await world.begin(k,kb)
        await world.until_said(k,"stands by"); await world.until_said(kb,"stands by")
        k2 = await kill("alpha"); kb2=await kill("beta")
        await a.released(VM, "m1"); show("released")
        await world.same_everywhere("dc-b"); show("same")
        await world.begin(k2,kb2)
        await world.until_said(k2,"stands by"); await world.until_said(kb2,"stands by")
        await world.carry_by_host("dc-c","m2"); show("m2")
        # freeze
        for domain in ("alpha",):
            name = await world.active(domain)
            t=time.monotonic()
            n=world.said(name).count("stands by")
            world.signal(name, signal.SIGSTOP)
            await asyncio.sleep(0.1)
            other = next(f"{domain}/{i}" for i in "12" if f"{domain}/{i}"!=name)
            await world.until_said(other,"is served", world.said(other).count("is served")+1)
            show("frozen, other serves")
            await world.carry_by_host("dc-a","m3"); show("m3")
            await asyncio.sleep(2)
            world.signal(name, signal.SIGCONT)
            await world.until_said(name,"stands by",n+1); show("thawed")
            await asyncio.sleep(0.5)
            print({p:len(l.refused) for s in world.switches.values() for p,l in s.lines.items()})
            print(await world.active(domain)==other)
            await world.same_everywhere("dc-a"); show("same")
        # bus cut
        name = await world.active("alpha"); other = next(f"alpha/{i}" for i in "12" if f"alpha/{i}"!=name)
        t=time.monotonic()
        n=world.said(name).count("stands by")
        world.gates[name].block()
        await world.until_said(other,"is served", world.said(other).count("is served")+1)
        show("cut, other serves")
        await world.carry_by_host("dc-b","m4"); show("m4")
        await asyncio.sleep(3)
        world.gates[name].block(on=False)
        await world.until_said(name,"stands by",n+1); show("back")
        # switch cut
        name = await world.active("alpha"); other = next(f"alpha/{i}" for i in "12" if f"alpha/{i}"!=name)
        t=time.monotonic()
        await world.switches["dc-a"].disconnect(world.ports[name])
        await world.until_said(other,"is served", world.said(other).count("is served")+1)
        show("switch cut, other serves")
        await world.carry_by_host("dc-c","m5"); show("m5")
        world.switches["dc-a"].cut.clear()
        # all restart
        for n in list(world.children): await world.kill(n)
        t=time.monotonic()
        before={n:set(s.table.entries) for n,s in world.switches.items()}
        await asyncio.sleep(0.5); show("all dead")
        await world.begin(); await world.ready(); show("all up")
        await asyncio.sleep(1)
        for n,s in world.switches.items():
            print(n, len(before[n]), before[n] ^ set(s.table.entries))
        await world.carry_by_host("dc-a","m6"); show("m6")
        await world.same_everywhere("dc-a"); show("same")
        for n in world.ports:
            txt=world.said(n)
            if "Traceback" in txt or "ERROR" in txt:
                print(n, [l for l in txt.splitlines() if "ERROR" in l][:5], txt[txt.find("Traceback"):][:3000])
