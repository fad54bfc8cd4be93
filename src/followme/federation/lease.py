"""Which instance of a domain is the active one: a lease on one key, written by compare-and-set.

Clocks of different machines are never compared. The holder counts its time from before its write left; another
one counts from when it first saw that write, which is later. So the holder has given up before anybody else may
begin, however the clocks are set. The clock goes on while a process is stopped or a machine sleeps.

The epoch is raised by one by each new holder. Bus and bucket refuse what has a lower one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from .kv import Conflict, Entry, KeyValue, KvError

log = logging.getLogger(__name__)

TTL_S = 1.5
KEY = "active"
MAX_EPOCH = 2**63 - 2
"""It is the switches' generation id too; theirs begin at -1 of 64 bits, and half a circle ahead is behind."""
_MARGIN = 0.1
"""Of the ttl: for clocks that do not run equally fast. The holder gives up that much earlier."""


def clock() -> float:
    """Seconds, going on while the process is stopped and while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Holder:
    """What the key says."""

    epoch: int
    instance: str
    ttl_s: float

    def encode(self) -> bytes:
        return json.dumps({"epoch": self.epoch, "instance": self.instance, "ttl_s": self.ttl_s}).encode()


def decode(value: bytes) -> Holder:
    """``ValueError`` unless it is a holder."""
    found = json.loads(value)
    if not isinstance(found, dict):
        raise ValueError("no object")
    epoch, instance, ttl_s = found.get("epoch"), found.get("instance"), found.get("ttl_s")
    if not isinstance(epoch, int) or not isinstance(instance, str) or not isinstance(ttl_s, int | float):
        raise ValueError("epoch, instance or ttl_s is missing")
    if not 1 <= epoch <= MAX_EPOCH or not 0 <= ttl_s <= 3600:
        raise ValueError(f"epoch {epoch} or ttl_s {ttl_s} is out of range")
    return Holder(epoch, instance, float(ttl_s))


class Lease:
    """One instance's part. ``acquire`` waits until it is the holder, ``hold`` renews until it no longer is.

    ``kv`` is a bucket of its own, without a writer: ``lost`` is called once for each time that it was held and
    is no longer.
    """

    def __init__(
        self, kv: KeyValue, domain: str, instance: str, ttl_s: float = TTL_S, now: Callable[[], float] = clock
    ) -> None:
        if not 0.05 <= ttl_s <= 3600:
            raise ValueError(f"a lease of {ttl_s} s: it must be 0.05 to 3600 s")
        self._kv = kv
        self._what = f"lease of {domain} for {instance}"
        self._instance = instance
        self._ttl_s = ttl_s
        self._now = now
        self._epoch = 0
        self._until = float("-inf")
        self._revision = 0
        self._seen: tuple[int, float] | None = None
        self.holder: Holder | None = None
        """Who has it, as last read."""

    @property
    def epoch(self) -> int:
        """Ours, of the last time that we held it; 0 before."""
        return self._epoch

    def valid(self) -> bool:
        """Whether we certainly hold it at this moment. Ask before each write and each answer."""
        return self._now() < self._until

    async def acquire(
        self, hesitation: Callable[[], float] = lambda: 0.0, above: Callable[[], int] = lambda: 0
    ) -> int:
        """Wait until nobody else holds it, then take it; our epoch. Errors of the bucket only make it wait.

        ``hesitation`` says how many seconds longer than others we wait now, ``above`` which epoch is over in any
        case: one that switches know of, though the bucket has lost it.
        """
        pause = self._ttl_s / 8
        while True:
            try:
                if await self._try(hesitation(), above()):
                    return self._epoch
            except KvError as error:
                log.debug("%s: %s", self._what, error)
            await asyncio.sleep(pause)

    async def _try(self, hesitation: float, above: int) -> bool:
        entry = await self._kv.get(KEY)
        now = self._now()
        self.holder = holder = _holder(entry)
        if entry is not None and holder is not None:
            if self._seen is None or self._seen[0] != entry.revision:
                self._seen = entry.revision, now
            if now < self._seen[1] + holder.ttl_s + hesitation:
                return False
        epoch = max(self._epoch, holder.epoch if holder else 0, above) + 1
        return await self._write(entry, epoch)

    async def _write(self, entry: Entry | None, epoch: int) -> bool:
        value = Holder(epoch, self._instance, self._ttl_s).encode()
        before = self._now()
        try:
            revision = await (
                self._kv.create(KEY, value) if entry is None else self._kv.update(KEY, value, entry.revision)
            )
        except Conflict:
            self._seen = None
            return False
        self._epoch, self._revision = epoch, revision
        self._until = before + self._ttl_s * (1 - _MARGIN)
        return self.valid()

    async def hold(self) -> None:
        """Renew until it is lost; returns then. ``acquire`` first."""
        pause = self._ttl_s / 4
        while self.valid():
            await asyncio.sleep(min(pause, max(0.0, self._until - self._now())))
            before = self._now()
            value = Holder(self._epoch, self._instance, self._ttl_s).encode()
            try:
                left = max(0.01, self._until - before)
                async with asyncio.timeout(left):
                    self._revision = await self._kv.update(KEY, value, self._revision)
            except Conflict:
                await self._look_again()
                continue
            except (KvError, TimeoutError) as error:
                log.debug("%s: not renewed: %s", self._what, error)
                await asyncio.sleep(min(pause / 4, max(0.0, self._until - self._now())))
                continue
            if self.valid():
                self._until = before + self._ttl_s * (1 - _MARGIN)
        log.warning("%s: lost (epoch %d)", self._what, self._epoch)

    async def _look_again(self) -> None:
        """A renewal met another revision: another holder's, or our own whose acknowledgement was lost."""
        try:
            entry = await self._kv.get(KEY)
            self.holder = _holder(entry)
        except KvError:
            return
        if entry is None or self.holder != Holder(self._epoch, self._instance, self._ttl_s):
            self._until = float("-inf")
        else:
            self._revision = entry.revision

    async def release(self) -> None:
        """Give it back, if we hold it: another one need not wait. Call it after the last write."""
        if not self.valid():
            return
        self._until = float("-inf")
        try:
            await self._kv.update(KEY, Holder(self._epoch, self._instance, 0.0).encode(), self._revision)
        except KvError as error:
            log.debug("%s: not given back: %s", self._what, error)


def _holder(entry: Entry | None) -> Holder | None:
    if entry is None or entry.value is None:
        return None
    try:
        return decode(entry.value)
    except ValueError as error:
        raise KvError(f"the lease cannot be read: {error}") from None
