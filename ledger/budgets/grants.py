"""Leases go out and come back, many of them with one event.

All asks that wait are decided one after the other in memory; then one event has all that was
granted, and once that is in the ledger, all answers go out.
"""

import logging
from collections import deque

from ledger.budgets.desk import Desk, Waiting
from ledger.budgets.door import Reply
from ledger.budgets.granting import Grant, decide, grant_again
from ledger.budgets.liveness import Liveness
from ledger.budgets.messages import Answer, Ask, RateShortage, Return, Shortage
from ledger.publisher import Refused
from schemas.budget_events import LeaseGranted, LeaseReturned, Movement
from schemas.events import LedgerEvent, Terminal

log = logging.getLogger("nexus.governor")

# So many fit into one event, however long their names are.
_AT_ONCE = 256

_Granted = tuple[Waiting[Ask], Answer, Movement]


class Grants:
    """Asks and returns that wait for the next turn."""

    def __init__(self, desk: Desk, liveness: Liveness) -> None:
        self._desk = desk
        self._liveness = liveness
        self._asks: deque[Waiting[Ask]] = deque()
        self._late: list[Waiting[Ask]] = []
        self._returns: deque[Waiting[Return]] = deque()
        self._open: dict[tuple[str, str], Waiting[Ask]] = {}
        self._returning: dict[tuple[str, str], Waiting[Return]] = {}
        self._freed = False

    @property
    def waiting(self) -> bool:
        """Whether there is something to do now; `late` ones wait for their time."""
        return bool(self._asks or self._returns)

    @property
    def late(self) -> bool:
        return bool(self._late)

    def ask(self, ask: Ask, reply: Reply) -> None:
        """Answer at once what was answered before, and take the rest for the next turn."""
        known = self._liveness.answered(ask.holder, ask.request)
        if known is not None:
            reply(known)
            return
        key = ask.holder, ask.request
        waiting = self._open.get(key)
        if waiting is None:
            waiting = self._open[key] = Waiting(ask)
            self._asks.append(waiting)
        waiting.replies.append(reply)

    def give_back(self, returned: Return, reply: Reply) -> None:
        """Take what comes back: rates now, money with the next turn."""
        key = returned.holder, returned.request
        known = self._liveness.answered(*key)
        if known is not None:
            reply(known)
            return
        waiting = self._returning.get(key)
        if waiting is None:
            self._desk.rates.give_back(returned.holder, returned.slots, self._desk.clock.now_ns())
            waiting = self._returning[key] = Waiting(returned)
            self._returns.append(waiting)
        waiting.replies.append(reply)

    def drop(self, holder: str) -> None:
        """Nobody waits for what this holder has asked."""
        for waiting in (*self._asks, *self._late):
            if waiting.question.holder == holder:
                del self._open[holder, waiting.question.request]
        self._asks = deque(one for one in self._asks if one.question.holder != holder)
        self._late = [one for one in self._late if one.question.holder != holder]

    def hear(self, event: LedgerEvent) -> None:
        """What was folded may be what a late ask waits for."""
        if isinstance(event, LeaseReturned | Terminal):
            self._freed = True

    async def take_returns(self) -> None:
        """One event for all returns that wait. Raises leading.Deposed."""
        book = self._desk.book
        batch = [self._returns.popleft() for _ in range(min(_AT_ONCE, len(self._returns)))]
        movements = tuple(
            Movement(one.question.holder, one.question.request, one.question.amounts)
            for one in batch
            if one.question.amounts and not book.returned(one.question.holder, one.question.request)
        )
        is_stored = True
        if movements:
            event = LeaseReturned(**self._desk.new_event(), movements=movements)
            is_stored = await self._store(event)
        for one in batch:
            del self._returning[one.question.holder, one.question.request]
            if is_stored:
                self._answer(one, one.question.holder, one.question.request, Answer())

    async def decide(self) -> None:
        """One event for all that can be granted now; the others are answered, or wait for what was
        recalled. Raises leading.Deposed."""
        granted: list[_Granted] = []
        for waiting in self._batch():
            answer, movement = self._decided(waiting.question)
            if answer.shortage is not None and waiting.may_wait(
                self._desk, answer.shortage.account
            ):
                self._late.append(waiting)
            elif movement is None:
                self._close(waiting, answer)
            else:
                granted.append((waiting, answer, movement))
        if granted:
            await self._commit(granted)

    def _batch(self) -> list[Waiting[Ask]]:
        now = self._desk.clock.monotonic()
        late, self._late = self._late, []
        batch: list[Waiting[Ask]] = []
        for one in late:
            is_due = self._freed or (one.until is not None and one.until <= now)
            (batch if is_due and len(batch) < _AT_ONCE else self._late).append(one)
        self._freed = False
        while self._asks and len(batch) < _AT_ONCE:
            batch.append(self._asks.popleft())
        return batch

    def _decided(self, ask: Ask) -> tuple[Answer, Movement | None]:
        """The answer, and what has to be in the ledger before it is given."""
        desk, now_ns = self._desk, self._desk.clock.now_ns()
        rates = desk.rates.take(ask.rates, ask.holder, now_ns) if ask.rates else ()
        if isinstance(rates, RateShortage):
            return Answer(rate_shortage=rates), None
        before = desk.book.granted(ask.holder, ask.request)
        if before is not None:
            again = grant_again(desk.book, desk.catalog, ask, dict(before), now_ns, desk.zone)
            return Answer(leases=again.leases, rates=rates), None
        decided = self._money(ask, now_ns)
        if isinstance(decided, Shortage):
            unused = {lease.rate: lease.amount for lease in rates}
            desk.rates.give_back(ask.holder, unused, now_ns)
            return Answer(shortage=decided), None
        answer = Answer(leases=decided.leases, rates=rates)
        if not decided.movement.amounts:
            return answer, None
        desk.book.apply(decided.movement)
        return answer, decided.movement

    def _money(self, ask: Ask, now_ns: int) -> Grant | Shortage:
        desk = self._desk
        holders = max(1, len(self._liveness))
        return decide(desk.book, desk.catalog, ask, now_ns, holders, desk.zone)

    async def _commit(self, granted: list[_Granted]) -> None:
        movements = tuple(movement for _, _, movement in granted)
        is_stored = await self._store(LeaseGranted(**self._desk.new_event(), movements=movements))
        for waiting, answer, movement in granted:
            if is_stored:
                self._close(waiting, answer)
            else:
                self._desk.book.withdraw(movement)
                del self._open[movement.holder, movement.request]

    async def _store(self, event: LeaseGranted | LeaseReturned) -> bool:
        """False if the ledger does not take it; then nobody is answered, and asks again."""
        try:
            await self._desk.ledger.append(event)
        except Refused as error:
            log.error("leases not recorded", extra={"reason": str(error)})
            return False
        return True

    def _close(self, waiting: Waiting[Ask], answer: Answer) -> None:
        ask = waiting.question
        del self._open[ask.holder, ask.request]
        self._answer(waiting, ask.holder, ask.request, answer)

    def _answer(
        self, waiting: Waiting[Ask] | Waiting[Return], holder: str, request: str, answer: Answer
    ) -> None:
        if answer.shortage is None and answer.rate_shortage is None:
            self._liveness.remember(holder, request, answer)
        for reply in waiting.replies:
            reply(answer)
