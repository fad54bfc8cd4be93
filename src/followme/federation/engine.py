"""The shell around ``Federate``: stores what it writes, sends what it orders, answers what it is asked.

One turn after the other: what has come in (frames, answers, events, time) is handed to ``Federate``, what it
writes is committed as one, and when that is kept its orders leave; answers and effects follow when the switches
have the rules. So what waits while a turn is being kept is the next turn, and shares one commit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from followme.domain import Mac
from followme.store import Store

from .allowance import MALFORMED, OCTETS_EACH, ORDERS_S, Allowance
from .awaited import Awaited, Key
from .bus import Bus, BusError, NoAnswer
from .codec import MAX_ORDERS, MessageError, decode_answers, decode_orders, encode_answers, encode_orders
from .edge_network import EdgeNetwork
from .federate import Federate
from .messages import Answer, Attach, Order, Refused
from .nouns import Card, Place
from .outbox import Outbox
from .outputs import Changed
from .presence import Presence, final
from .turns import Asked, Turn, unanswered, unless

log = logging.getLogger(__name__)

MAX_WAITING = 16 * MAX_ORDERS
"""Orders of one other domain that wait for a turn, or for a node's answer; its frames beyond that are dropped, and
come again. It sends eight at a time (``outbox``)."""
REQUEST_S = 2.0
"""How long the answer to a frame may take; its orders then count as not answered."""
TURN_S = 0.05
"""How long a turn may go on taking what waits: the lease must be renewed, and the bus answered, in between."""
PREPARE_S, PHASE_S = 10.0, 30.0


class FederationError(Exception):
    """Other domains have refused it, or have not agreed in time; the text says which and why."""


class NotYet(FederationError):
    """It is under way, or this controller stops: ask again, here or at the instance that comes after."""


class LeaseLost(Exception):
    """Another instance is, or may be, the active one: this one must not act any more."""


class Engine:
    """One active instance's. ``start``, then ``wait`` until it cannot go on; ``close`` in any case.

    ``epoch`` is the lease's, ``valid`` says whether it is still held (always, without a lease). ``clock`` is
    ``Federate``'s, in seconds.
    """

    def __init__(
        self, federate: Federate, bus: Bus, store: Store, network: EdgeNetwork, epoch: int = 1,
        clock: Callable[[], float] = time.monotonic, valid: Callable[[], bool] = lambda: True,
    ) -> None:  # fmt: skip
        self.federate = federate
        federate.begin(epoch)
        self._bus, self._store, self._network = bus, store, network
        self._epoch, self._clock, self._valid = epoch, clock, valid
        self._epochs: dict[str, int] = {}
        self._allowance = Allowance(ORDERS_S, 2 * ORDERS_S)
        self._asked: deque[Asked] = deque()
        self._waiting: Counter[str] = Counter()
        self._events: deque[Callable[[float], None]] = deque()
        self._wake = asyncio.Event()
        self._outbox = Outbox(self._send)
        self._questions = Outbox(self._send)  # which do not wait behind what switches must confirm
        self._presence = Presence(bus.domain, federate, network.still_here, self._questions.put)
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None
        self._awaited = Awaited()
        self.counted: Counter[str] = Counter()
        """Frames and orders, in and out, turns, and what was dropped or malformed: for people."""

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve other domains; ``BusError`` if the bus does not let us."""
        self._running = asyncio.ensure_future(self._run())
        await self._bus.serve(self.receive)

    async def wait(self) -> None:
        """Until it cannot go on: ``StoreError`` (what was written is not kept) or ``LeaseLost``. Then ``close``
        it, and make another engine and another ``Federate`` from what the store has."""
        if self._running is not None:
            await asyncio.shield(self._running)

    def may_answer(self) -> bool:
        """Whether it certainly is the active one's, at this moment."""
        return self._valid()

    async def close(self) -> None:
        """Ask and answer nothing any more. The bus stays open, and serves nobody."""
        await self._bus.pause()
        self._outbox.close()
        self._questions.close()
        tasks = [*self._tasks, *([self._running] if self._running else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail("the controller has stopped")

    def _fail(self, why: str) -> None:
        self._awaited.fail(NotYet(why))
        unanswered(self._asked)
        self._asked.clear()

    # --- events of the own network (each takes its turn) ---------------------------------------------------

    def know(self, card: Card) -> None:
        self._event(lambda now: self.federate.know(card))

    def forget(self, identifier: IPv4Address) -> None:
        self._event(lambda now: self.federate.forget(identifier))

    def attach(self, identifier: IPv4Address, mac: Mac, network: str) -> None:
        self._event(lambda now: self.federate.attach(identifier, mac, network))

    def detached(self, identifier: IPv4Address, mac: Mac, network: str) -> None:
        self._event(lambda now: self.federate.detached(identifier, mac, network))

    def unaware(self, identifier: IPv4Address, network: str) -> None:
        self._event(lambda now: self.federate.unaware(identifier, network))

    def speaks(self, identifier: IPv4Address, network: str) -> None:
        self._event(lambda now: self.federate.speaks(identifier, network))

    def quiet(self, identifier: IPv4Address, place: Place) -> None:
        self._event(lambda now: self.federate.quiet(identifier, place))

    def _event(self, call: Callable[[float], None]) -> None:
        self._events.append(call)
        self._wake.set()

    # --- for hosts ----------------------------------------------------------------------------------------

    async def prepare(
        self, identifier: IPv4Address, network: str, migration: str, timeout: float = PREPARE_S
    ) -> None:
        """Returns when all who know the machine know where it goes: it may flip. The same again is harmless.
        ``FederationError`` if it is denied, ``NotYet`` if it is not ready within ``timeout`` seconds."""
        call = lambda now: self.federate.prepare(identifier, network, migration)  # noqa: E731
        await self._result(("ready", identifier, migration), call, timeout)

    async def flipped(self, identifier: IPv4Address, migration: str, timeout: float = PHASE_S) -> None:
        """Returns when home has accepted it. ``FederationError`` if home refuses it, ``NotYet`` if it is not heard
        of in time: it is being repeated then."""
        call = lambda now: self.federate.flipped(identifier, migration)  # noqa: E731
        await self._result(("flipped", identifier, migration), call, timeout)

    async def released(self, identifier: IPv4Address, migration: str, timeout: float = PHASE_S) -> None:
        """As ``flipped``."""
        call = lambda now: self.federate.released(identifier, migration)  # noqa: E731
        await self._result(("released", identifier, migration), call, timeout)

    async def aborted(self, identifier: IPv4Address, migration: str, timeout: float = PHASE_S) -> None:
        """As ``flipped``."""
        call = lambda now: self.federate.aborted(identifier, migration)  # noqa: E731
        await self._result(("aborted", identifier, migration), call, timeout)

    async def tell(self, identifier: IPv4Address, network: str, timeout: float = PREPARE_S) -> None:
        """Returns when ``network`` knows where the node is. ``FederationError``."""
        call = lambda now: self.federate.speaks(identifier, network)  # noqa: E731
        await self._result(("passes", identifier, network), call, timeout)

    async def _result(self, key: Key, call: Callable[[float], None], timeout: float) -> None:
        self._event(call)
        what = f"{key[0]} of {key[1]} ({key[2]})"
        reason = await self._awaited.result(key, timeout)
        if reason is None:
            raise NotYet(f"{what}: not confirmed within {timeout:g} s")
        if reason:
            raise FederationError(f"{what}: {reason}")

    # --- the bus ------------------------------------------------------------------------------------------

    async def receive(self, sender: str, payload: bytes) -> bytes:
        """Another domain's frame; its answers. ``BusError`` if it is not to be answered."""
        now = self._clock()
        if not self._allowance.has(sender, now):
            self.counted["too much"] += 1
            raise BusError(f"a frame of {sender}: it orders more than {ORDERS_S:g} a second")
        cost = len(payload) / OCTETS_EACH
        try:
            epoch, orders = decode_orders(payload)
            cost += len(orders)
        except MessageError as error:
            cost += MALFORMED
            self.counted["malformed"] += 1
            raise BusError(f"a frame of {sender}: {error}") from None
        finally:
            self._allowance.charge(sender, cost, now)
        highest = self._epochs.get(sender, 0)
        if epoch < highest:
            self.counted["old epoch"] += 1
            reason = f"epoch {epoch} of {sender} is over, {highest} has begun"
            return encode_answers(self._epoch, [Refused(reason, again=True)] * len(orders))
        self._epochs[sender] = epoch
        self._check_running(sender)
        if self._waiting[sender] + len(orders) > MAX_WAITING:
            self.counted["dropped"] += 1
            raise BusError(f"a frame of {sender}: {self._waiting[sender]} orders are waiting already")
        self.counted["orders in"] += len(orders)
        asked = Asked(sender, orders, [], asyncio.get_running_loop().create_future())
        self._waiting[sender] += len(orders)
        try:
            asked.verdicts = await self._presence.look(sender, orders)
            self._check_running(sender)
        except BaseException:
            self._waiting[sender] -= len(orders)
            raise
        if (answers := final(asked.verdicts)) is not None:
            self._waiting[sender] -= len(orders)
        else:
            self._asked.append(asked)
            self._wake.set()
            answers = await asked.answers
        if answers is None or not self._valid():
            raise BusError(f"a frame of {sender}: this instance of {self._bus.domain} has stopped")
        return encode_answers(self._epoch, answers)

    def _check_running(self, sender: str) -> None:
        if self._running is None or self._running.done():
            raise BusError(f"a frame of {sender}: this instance of {self._bus.domain} has stopped")

    async def has_left(self, identifier: IPv4Address, domain: str) -> bool:
        """Whether the domain that has this node of ours says that it does not answer there any more."""
        return await self._presence.has_left(domain, identifier)

    async def _look_first(self, order: Attach) -> None:
        """Its home is here, and it shows up here; but another has it, who is asked first."""
        (verdict,) = await self._presence.look(self._bus.domain, [order])

        def decide(now: float) -> None:
            answer = self._presence.receive(self._bus.domain, order, verdict, now)
            self.federate.answered(self._bus.domain, order, answer, now)

        self._event(decide)

    async def _send(self, to: str, orders: Sequence[Order]) -> None:
        """One frame, and what comes back; called by the outbox."""
        answers: Sequence[Answer | None] = [None] * len(orders)
        self.counted["frames out"] += 1
        self.counted["orders out"] += len(orders)
        try:
            self._check_lease()
            frame = encode_orders(self._epoch, orders)
            epoch, found = decode_answers(await self._bus.request(to, frame, REQUEST_S))
            if epoch < self._epochs.get(to, 0):
                raise NoAnswer(f"epoch {epoch} of {to} is over")
            if len(found) != len(orders):
                raise MessageError(f"{len(found)} answers of {to} to {len(orders)} orders")
            self._epochs[to] = epoch
            answers = found
        except (BusError, MessageError, ValueError) as error:  # ValueError: what is no domain's name
            self.counted["frames not answered"] += 1
            log.debug("%s", error)
        except LeaseLost:
            return
        self._presence.answered(to, orders, answers)
        self._event(lambda now: self._answered(to, list(zip(orders, answers, strict=True)), now))

    def _answered(self, to: str, pairs: Sequence[tuple[Order, Answer | None]], now: float) -> None:
        for order, answer in pairs:
            self.federate.answered(to, order, answer, now)

    def _check_lease(self) -> None:
        if not self._valid():
            raise LeaseLost(f"epoch {self._epoch} of {self._bus.domain} is over")

    # --- turns --------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while True:
                await self._until_something()
                self._check_lease()
                turn = Turn([], [], [])
                try:
                    orders = self._turn(turn)
                    await self._store.replicated()
                    self._check_lease()
                except BaseException:
                    turn.unanswered()
                    raise
                for to, order in orders:
                    self._outbox.put(to, order)
                if turn.asked or turn.own or turn.effects:
                    task = self._start(self._finish(turn))
                    task.add_done_callback(turn.unanswered)  # also if it is cancelled before it begins
                await asyncio.sleep(0)  # it reads the views now, before another turn changes them
        except Exception as error:
            log.warning("the engine of %s stops: %s", self._bus.domain, error)
            self._fail(f"the controller stops: {error}")
            raise

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _until_something(self) -> None:
        if not self._asked and not self._events:
            self._wake.clear()
            at = self.federate.next_timer()
            try:  # not wait_for: before Python 3.12 it may lose a cancellation
                async with asyncio.timeout(None if at is None else max(0.0, at - self._clock())):
                    await self._wake.wait()
            except TimeoutError:
                return

    def _turn(self, turn: Turn) -> list[tuple[str, Order]]:
        """Hand over all that waits, and commit what is to be kept; the orders to others. ``StoreError``."""
        now = self._clock()
        self.counted["turns"] += 1
        enough = time.monotonic() + TURN_S
        while self._events or self._asked:
            if self._events:
                self._events.popleft()(now)
            if self._asked:
                asked = self._asked.popleft()
                self._waiting[asked.sender] -= len(asked.orders)
                answers: list[Answer] = []
                turn.asked.append((asked, answers))
                for order, verdict in zip(asked.orders, asked.verdicts, strict=True):
                    answers.append(self._presence.receive(asked.sender, order, verdict, now))
            if time.monotonic() > enough:
                break
        at = self.federate.next_timer()
        if at is not None and at <= now:
            self.federate.timer(now)
        orders: list[tuple[str, Order]] = []
        with self._store.batch():
            while True:
                out = self.federate.take()
                if out.writes:
                    self._store.put_facts(out.writes)
                turn.effects += out.effects
                own = [order for to, order in out.orders if to == self._bus.domain]
                orders += [(to, order) for to, order in out.orders if to != self._bus.domain]
                if not own:
                    break
                for order in own:
                    if isinstance(order, Attach) and self.federate.doubted(self._bus.domain, order):
                        self._start(self._look_first(order))
                    else:
                        turn.own.append((order, self.federate.receive(self._bus.domain, order, now)))
        return orders

    async def _finish(self, turn: Turn) -> None:
        """Switches, then effects and answers."""
        changed = {effect.identifier for effect in turn.effects if isinstance(effect, Changed)}
        wrong: Mapping[IPv4Address, Refused] = {}
        if changed:
            try:
                wrong = await self._network.apply(changed)
            except Exception as error:
                log.exception("the switches of %s", self._bus.domain)
                wrong = dict.fromkeys(changed, Refused(str(error) or type(error).__name__, again=True))
        for effect in turn.effects:
            if not isinstance(effect, Changed):
                self._awaited.settle(effect)
                try:
                    self._network.effect(effect)
                except Exception:  # it concerns one node; the answers concern others
                    self.counted["effects failed"] += 1
                    log.exception("%s of %s", type(effect).__name__, effect.identifier)
        if turn.own:
            pairs = [(order, unless(wrong, order, answer)) for order, answer in turn.own]
            self._event(lambda now: self._answered(self._bus.domain, pairs, now))
        for asked, answers in turn.asked:
            if not asked.answers.done():
                pairs_of = zip(asked.orders, answers, strict=True)
                asked.answers.set_result([unless(wrong, order, answer) for order, answer in pairs_of])
