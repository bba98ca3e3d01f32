"""How an ingress gets money from the governor before it is needed, and gives back what is not.

One per process. It has leases only as long as the governor knows that it lives: what was last
answered must have been asked less than `Pace.trust` ago. After that everything free is nobody's,
and another holder begins.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from ingress.purse import Missing, Purse, Taken
from ledger.budgets import messages
from ledger.budgets.messages import Answer, Ask, Pulse, RateWant, Return, Want
from ledger.connection import (
    BusRefused,
    Connection,
    Disconnected,
    Message,
    NoResponders,
    RequestTimeout,
)
from schemas import subjects
from schemas.access import Budget
from schemas.ids import Clock

log = logging.getLogger("nexus.budgets")

_AWAY = (Disconnected, NoResponders, RequestTimeout)
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.25
_TICK = 1.0
_LAST_WORDS = 1.0
_DROPPED_TOLD = 16


class Pace(NamedTuple):
    """Seconds: between two pulses, until an unanswered holder trusts its leases no longer, that
    one question waits, that a lease may lie idle, and that a refusal stands for the next calls."""

    pulse: float = 2.0
    trust: float = 6.0
    answer: float = 0.5
    idle: float = 5.0
    closed: float = 0.05


class LeaseClient:
    """Fills a purse; `run` beside it keeps its holder alive.

    `alive` is the monotonic time at which was asked what the governor answered last; `reign` is
    whose time it is, as far as anybody told.
    """

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        pace: Pace = Pace(),  # noqa: B008
    ) -> None:
        self.pace = pace
        self.purse = Purse(clock.new_id())
        self.alive = clock.monotonic()
        self.reign = 0
        self._connection = connection
        self._clock = clock
        self._retired: dict[str, float] = {}
        self._silent_since: float | None = None
        self._introduced = False
        self._dropped: tuple[str, ...] = ()
        self._has_news = asyncio.Event()
        self._topping_up = False
        self._tasks: set[asyncio.Task[None]] = set()
        connection.subscribe(subjects.GOVERNOR_RECALL, self._on_recall)

    @property
    def holder(self) -> str:
        return self.purse.holder

    @property
    def silent(self) -> bool:
        """Whether the last question has no answer yet, although it was put more than once."""
        return self._silent_since is not None

    @property
    def away(self) -> bool:
        """Whether that has been so for a while."""
        silent = self._silent_since
        return silent is not None and self._clock.monotonic() - silent > self.pace.answer

    def may_spend(self, holder: str) -> bool:
        """Whether the governor surely still counts the leases of a holder as its own."""
        alive = self.alive if holder == self.holder else self._retired.get(holder)
        return alive is not None and self._clock.monotonic() - alive < self.pace.trust

    def take(self, budgets: Sequence[Budget], nano: int) -> Taken | Missing:
        """Out of the purse, at once, if the holder may still spend."""
        if self._clock.monotonic() - self.alive >= self.pace.trust:
            self.begin_anew()
        taken = self.purse.take(budgets, nano, self._clock.now_ns())
        if self.purse.low and not self._topping_up:
            self._topping_up = True
            self._spawn(self._top_up())
        return taken

    async def ask(
        self, wants: Sequence[Want] = (), rates: Sequence[RateWant] = ()
    ) -> Answer | None:
        """Ask until it is answered: a grant whose answer was lost is told by the next one. None
        when the holder ended meanwhile, and with it all that it may have been granted."""
        holder = self.holder
        ask = messages.encode(Ask(holder, self._clock.new_id(), tuple(wants), tuple(rates)))
        goes_on = partial(self._is_holder, holder)
        return await self._exchange(subjects.GOVERNOR_LEASE, ask, holder, goes_on)

    def put(self, wants: Sequence[Want], answer: Answer, asked_ns: int) -> bool:
        """Fill the purse with what was granted; whether all that was wanted was heard of."""
        by_name = {want.budget: want for want in wants}
        now_ns = self._clock.now_ns()
        for lease in answer.leases:
            want = by_name.pop(lease.budget, None)
            if want is not None:
                self.give(self.purse.put(want, lease, asked_ns, now_ns))
        return not by_name

    def give(self, amounts: Mapping[str, int], slots: Mapping[str, int] | None = None) -> None:
        """Return money by account, or slots by rate; repeated until the governor has it."""
        if amounts or slots:
            self._spawn(self._return(self.holder, dict(amounts), dict(slots or {})))

    def begin_anew(self) -> None:
        """Drop all leases; who waits asks again in the name of another holder, and the governor is
        told that nobody uses the old ones."""
        old = self.holder
        if self._rename():
            self._dropped = (*self._dropped, old)[-_DROPPED_TOLD:]
            self._has_news.set()
            log.warning("leases dropped", extra={"holder": old, "next": self.holder})

    def retire(self, holder: str) -> None:
        """Nobody knows what a holder has left, as a call of it may be in the ledger or not: return
        what is free and go on as another. The rest ends when the governor hears no more of it; what
        was taken up to now may still be spent."""
        if holder == self.holder:
            self.give(self.purse.empty())
            now = self._clock.monotonic()
            self._retired = {
                old: alive for old, alive in self._retired.items() if now - alive < self.pace.trust
            }
            self._retired[holder] = self.alive
            if self._rename():
                log.warning("holder retired", extra={"holder": holder, "next": self.holder})

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
        if amounts and self.may_spend(self.holder):
            try:
                async with asyncio.timeout(_LAST_WORDS):
                    await self._return(self.holder, amounts, {})
            except TimeoutError:
                log.warning("leases not returned", extra={"holder": self.holder})

    async def _exchange(
        self, subject: str, data: bytes, holder: str, goes_on: Callable[[], bool]
    ) -> Answer | None:
        """Send the same until it is answered, as long as there is a reason to."""
        self._introduced = True
        pause = _FIRST_PAUSE
        while goes_on():
            sent = self._clock.monotonic()
            try:
                message = await self._connection.request(subject, data, timeout=self.pace.answer)
                answer = messages.decode_answer(message.data)
            except _AWAY:
                if self._silent_since is None:
                    self._silent_since = sent
                if not self.may_spend(self.holder):
                    self.begin_anew()
            except (BusRefused, msgspec.DecodeError):
                log.exception("the governor's answer cannot be heard")
            else:
                self._silent_since = None
                return self._accepted(answer, holder, sent)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return None

    def _accepted(self, answer: Answer, holder: str, sent: float) -> Answer | None:
        """What an answer says of the holder: after a pause of ours it may be old, so that the time
        of the question counts."""
        self.reign = answer.reign or self.reign
        if holder != self.holder:
            return None
        if answer.stranger:
            self.begin_anew()
            return None
        self.alive = max(self.alive, sent)
        return answer

    async def _top_up(self) -> None:
        try:
            while self.purse.low:
                asked_ns = self._clock.now_ns()
                needs = dict.fromkeys(self.purse.low, 0)
                self.purse.low.clear()
                wants = self.purse.wants(needs, 0, asked_ns)
                answer = await self.ask(wants)
                if answer is not None:
                    self.put(wants, answer, asked_ns)
        finally:
            self._topping_up = False

    async def _return(self, holder: str, amounts: dict[str, int], slots: dict[str, int]) -> None:
        """What a holder does not get rid of while it is trusted ends with it."""
        returned = messages.encode(Return(holder, self._clock.new_id(), amounts, slots))
        until = self._clock.monotonic() + self.pace.trust

        def goes_on() -> bool:
            return self._is_holder(holder) or self._clock.monotonic() < until

        await self._exchange(subjects.GOVERNOR_RETURN, returned, holder, goes_on)

    async def _pulse(self) -> None:
        """Without leases there is nothing to keep alive, but a silent governor is waited for."""
        while True:
            await self._until_due()
            if self._introduced or self.silent or self._dropped:
                holder, dropped = self.holder, self._dropped
                pulse = messages.encode(Pulse(holder, dropped))
                goes_on = partial(self._is_holder, holder)
                if await self._exchange(subjects.GOVERNOR_PULSE, pulse, holder, goes_on):
                    self._dropped = tuple(one for one in self._dropped if one not in dropped)

    async def _until_due(self) -> None:
        try:
            async with asyncio.timeout(self.pace.pulse):
                await self._has_news.wait()
        except TimeoutError:
            return
        self._has_news.clear()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(min(_TICK, self.pace.idle))
            if self.may_spend(self.holder):
                idle_ns = int(self.pace.idle * 1e9)
                self.give(self.purse.surplus(idle_ns, self._clock.now_ns()))

    def _on_recall(self, message: Message) -> None:
        try:
            recall = messages.decode_recall(message.data)
        except msgspec.DecodeError as error:
            log.warning("recall not readable: %s", error)
            return
        self.reign = recall.reign or self.reign
        if recall.drop:
            self.purse.drop(recall.accounts, self._clock.now_ns())
        else:
            self.give(self.purse.recall(recall.accounts))

    def _rename(self) -> bool:
        """Go on under another name; not where nobody has heard of this one yet."""
        self.alive = self._clock.monotonic()
        is_known, self._introduced = self._introduced, False
        if is_known:
            self.purse.begin(self._clock.new_id())
        return is_known

    def _is_holder(self, holder: str) -> bool:
        return self.holder == holder

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
