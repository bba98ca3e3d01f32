"""How an ingress gets money from the governor before it is needed, and gives back what is not.

One per process. It has leases only as long as the governor knows that it lives: what was last
answered must have been asked less than `Pace.trust` ago. After that everything free is nobody's,
and another holder begins.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from ingress.purse import Missing, Purse, Taken
from ledger.budgets import messages
from ledger.budgets.messages import Answer, Ask, Pulse, RateWant, Return, Shortage, Want
from ledger.connection import BusRefused, Connection, Disconnected, Message, NoResponders
from ledger.replies import RequestTimeout
from schemas import subjects
from schemas.access import Budget
from schemas.ids import Clock

log = logging.getLogger("nexus.budgets")

_AWAY = (Disconnected, NoResponders, RequestTimeout)
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.25
_TICK = 1.0
_LAST_WORDS = 1.0
_PATIENCES = 5


class Pace(NamedTuple):
    """Seconds: between two pulses, until an unanswered holder trusts its leases no longer, that
    one question waits, that a lease may lie idle, and that a refusal stands for the next calls."""

    pulse: float = 2.0
    trust: float = 6.0
    answer: float = 0.5
    idle: float = 5.0
    closed: float = 0.05


class GovernorAway(Exception):
    """Nobody said in time whether the money is there."""


class _Waiter:
    """A call that cannot be paid from the purse."""

    __slots__ = ("answer", "budgets", "nano")

    def __init__(self, budgets: Sequence[Budget], nano: int) -> None:
        self.budgets = budgets
        self.nano = nano
        self.answer: asyncio.Future[Taken | Shortage] = asyncio.get_running_loop().create_future()


class _Line:
    """The calls that wait for the same budgets, in order of their coming; one ask for all."""

    __slots__ = ("asking", "waiters")

    def __init__(self) -> None:
        self.waiters: list[_Waiter] = []
        self.asking = False


class _Closed(NamedTuple):
    """A shortage, as the answer to all who need `need` or more, until `until` (monotonic)."""

    shortage: Shortage
    need: int
    until: float


class LeaseClient:
    """Fills a purse; `run` beside it keeps its holder alive."""

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        pace: Pace = Pace(),  # noqa: B008
        name: str = "ingress",
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._pace = pace
        self._name = name
        self.purse = Purse(self._new_holder())
        self._alive = clock.monotonic()
        self._silent_since: float | None = None
        self._introduced = False
        self._lines: dict[tuple[str, ...], _Line] = {}
        self._closed: dict[str, _Closed] = {}
        self._topping_up = False
        self._tasks: set[asyncio.Task[None]] = set()
        connection.subscribe(subjects.GOVERNOR_RECALL, self._on_recall)

    @property
    def holder(self) -> str:
        return self.purse.holder

    @property
    def away(self) -> bool:
        """Whether the governor has been silent for as long as anybody waits for it."""
        silent = self._silent_since
        return silent is not None and self._clock.monotonic() - silent > self._pace.answer

    def may_spend(self) -> bool:
        """Whether the governor surely still counts our leases as ours."""
        return self._clock.monotonic() - self._alive < self._pace.trust

    def take(self, budgets: Sequence[Budget], nano: int) -> Taken | Missing:
        """Out of the purse, at once, if the holder may still spend."""
        if self._clock.monotonic() - self._alive >= self._pace.trust:
            self.begin_anew()
        taken = self.purse.take(budgets, nano, self._clock.now_ns())
        if self.purse.low and not self._topping_up:
            self._topping_up = True
            self._spawn(self._top_up())
        return taken

    async def obtain(
        self, budgets: Sequence[Budget], nano: int, patience: float
    ) -> Taken | Shortage:
        """The same when the purse has not enough. Raises GovernorAway after `patience` seconds,
        a few times as many while the governor answers others."""
        refused = self._refusal(budgets, nano)
        if refused is not None:
            return refused
        key = tuple([budget.name for budget in budgets])
        line = self._lines.setdefault(key, _Line())
        waiter = _Waiter(budgets, nano)
        line.waiters.append(waiter)
        self._pump(key, line)
        try:
            return await self._patiently(waiter.answer, patience)
        except BaseException:
            if waiter.answer.done() and isinstance(taken := waiter.answer.result(), Taken):
                self.purse.give_back(taken)
            waiter.answer.cancel()
            raise

    async def ask(
        self, wants: Sequence[Want] = (), rates: Sequence[RateWant] = ()
    ) -> Answer | None:
        """Ask until it is answered: a grant whose answer was lost is told by the next one. None
        when the holder ended meanwhile, and with it all that it may have been granted."""
        holder = self.holder
        ask = Ask(holder, self._clock.new_id(), tuple(wants), tuple(rates))
        return await self._ask(subjects.GOVERNOR_LEASE, messages.encode(ask), holder)

    def give(self, amounts: Mapping[str, int], slots: Mapping[str, int] | None = None) -> None:
        """Return money by account, or slots by rate; repeated until the governor has it."""
        if amounts or slots:
            self._spawn(self._return(self.holder, dict(amounts), dict(slots or {})))

    def begin_anew(self) -> None:
        """Drop all leases; who waits asks again in the name of another holder."""
        self._alive = self._clock.monotonic()
        if not self._introduced:
            return
        self._introduced = False
        old = self.holder
        self.purse.begin(self._new_holder())
        log.warning("leases dropped", extra={"holder": old, "next": self.holder})

    async def run(self) -> None:
        """Pulse, and return what lies idle; until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pulse())
            both.create_task(self._tidy())

    async def close(self) -> None:
        """Return everything, waiting a second at most. Nothing may be taken after that."""
        amounts = self.purse.empty()
        for task in self._tasks:
            task.cancel()
        if amounts and self.may_spend():
            try:
                async with asyncio.timeout(_LAST_WORDS):
                    await self._return(self.holder, amounts, {})
            except TimeoutError:
                log.warning("leases not returned", extra={"holder": self.holder})

    # Waiting callers.

    async def _patiently(
        self, answer: asyncio.Future[Taken | Shortage], patience: float
    ) -> Taken | Shortage:
        begun = self._clock.monotonic()
        left = patience
        while True:
            await asyncio.wait((answer,), timeout=left)
            if answer.done():
                return answer.result()
            now = self._clock.monotonic()
            left = min(self._alive + patience, begun + _PATIENCES * patience) - now
            if left <= 0 or self._silent_since is not None:
                raise GovernorAway

    def _pump(self, key: tuple[str, ...], line: _Line) -> None:
        """Serve who can be served, and ask for the others."""
        if line.asking:
            return
        line.waiters = [waiter for waiter in line.waiters if not self._served(waiter)]
        if line.waiters:
            line.asking = True
            self._spawn(self._ask_for(key, line))
        else:
            self._lines.pop(key, None)

    def _served(self, waiter: _Waiter) -> bool:
        if waiter.answer.done():
            return True
        result: Taken | Missing | Shortage | None = self.take(waiter.budgets, waiter.nano)
        if isinstance(result, Missing):
            result = self._refusal(waiter.budgets, waiter.nano)
        if result is not None:
            waiter.answer.set_result(result)
        return result is not None

    async def _ask_for(self, key: tuple[str, ...], line: _Line) -> None:
        """One ask for what the first of a line needs, and as much as all of them would like."""
        first, asked_ns = line.waiters[0], self._clock.now_ns()
        needs = self.purse.missing(first.budgets, first.nano, asked_ns).needs
        waiting = sum(waiter.nano for waiter in line.waiters)
        wants = self.purse.wants(needs, waiting, asked_ns)
        answer = await self.ask(wants)
        if answer is not None:
            if answer.shortage is not None:
                self._close(answer.shortage, first.nano)
                if not first.answer.done():
                    first.answer.set_result(answer.shortage)
            elif not self._put(wants, answer, asked_ns):
                await asyncio.sleep(_FIRST_PAUSE)
        line.asking = False
        self._pump(key, line)

    async def _top_up(self) -> None:
        try:
            while self.purse.low:
                asked_ns = self._clock.now_ns()
                needs = dict.fromkeys(self.purse.low, 0)
                self.purse.low.clear()
                wants = self.purse.wants(needs, 0, asked_ns)
                answer = await self.ask(wants)
                if answer is not None:
                    self._put(wants, answer, asked_ns)
        finally:
            self._topping_up = False

    def _put(self, wants: Sequence[Want], answer: Answer, asked_ns: int) -> bool:
        """Whether all that was wanted has been heard of."""
        by_name = {want.budget: want for want in wants}
        now_ns = self._clock.now_ns()
        for lease in answer.leases:
            want = by_name.pop(lease.budget, None)
            if want is not None:
                self.give(self.purse.put(want, lease, asked_ns, now_ns))
        return not by_name

    def _close(self, shortage: Shortage, need: int) -> None:
        now = self._clock.monotonic()
        before = self._closed.get(shortage.budget)
        if before is not None and now < before.until:
            need = min(need, before.need)
        self._closed[shortage.budget] = _Closed(shortage, need, now + self._pace.closed)

    def _refusal(self, budgets: Sequence[Budget], nano: int) -> Shortage | None:
        """What was just said to one that needed no more than this one."""
        if not self._closed:
            return None
        now = self._clock.monotonic()
        for budget in budgets:
            closed = self._closed.get(budget.name)
            if closed is None:
                continue
            if now >= closed.until:
                del self._closed[budget.name]
            elif nano >= closed.need:
                return msgspec.structs.replace(closed.shortage, needed_nano=nano)
        return None

    # The governor.

    async def _ask(self, subject: str, data: bytes, holder: str) -> Answer | None:
        """Send the same until it is answered, or the holder is another one."""
        self._introduced = True
        pause = _FIRST_PAUSE
        while self.holder == holder:
            sent = self._clock.monotonic()
            try:
                message = await self._connection.request(subject, data, timeout=self._pace.answer)
                answer = messages.decode_answer(message.data)
            except _AWAY:
                if self._silent_since is None:
                    self._silent_since = sent
                if not self.may_spend():
                    self.begin_anew()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            except (BusRefused, msgspec.DecodeError):
                log.exception("the governor's answer cannot be heard")
                await asyncio.sleep(self._pace.answer)
                continue
            self._silent_since = None
            if self.holder != holder:
                break
            if answer.stranger:
                self.begin_anew()
                break
            # What was heard after a pause of ours says nothing of now: the asking counts.
            self._alive = max(self._alive, sent)
            return answer
        return None

    async def _return(self, holder: str, amounts: dict[str, int], slots: dict[str, int]) -> None:
        message = Return(holder, self._clock.new_id(), amounts, slots)
        await self._ask(subjects.GOVERNOR_RETURN, messages.encode(message), holder)

    async def _pulse(self) -> None:
        while True:
            await asyncio.sleep(self._pace.pulse)
            if self._introduced:
                holder = self.holder
                await self._ask(subjects.GOVERNOR_PULSE, messages.encode(Pulse(holder)), holder)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(min(_TICK, self._pace.idle))
            if self.may_spend():
                idle_ns = int(self._pace.idle * 1e9)
                self.give(self.purse.surplus(idle_ns, self._clock.now_ns()))

    def _on_recall(self, message: Message) -> None:
        try:
            recall = messages.decode_recall(message.data)
        except msgspec.DecodeError as error:
            log.warning("recall not readable: %s", error)
            return
        if recall.drop:
            self.purse.drop(recall.accounts, self._clock.now_ns())
        else:
            self.give(self.purse.recall(recall.accounts))

    def _new_holder(self) -> str:
        return f"{self._name}-{self._clock.new_id()}"

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
