"""Holds of further attempts: a running call may cost more than was held for it at its start."""

import logging
from collections import deque
from typing import Any

from ledger.budgets.desk import Desk, Waiting
from ledger.budgets.door import Reply
from ledger.budgets.granting import decide_hold
from ledger.budgets.messages import Answer, HoldAsk
from ledger.log import last_sequence
from ledger.publisher import Refused
from ledger.reader import Unreadable
from schemas.budget_events import HoldTaken
from schemas.events import RequestStart

log = logging.getLogger("nexus.governor")

_CATCH_UP_WITHIN = 1.0


class FurtherHolds:
    """Asks of workers that wait for the next turn; each hold is an event of its own."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._asks: deque[Waiting[HoldAsk]] = deque()
        self._late: list[Waiting[HoldAsk]] = []
        self._open: dict[tuple[str, str], Waiting[HoldAsk]] = {}

    @property
    def waiting(self) -> bool:
        return bool(self._asks)

    @property
    def late(self) -> bool:
        return bool(self._late)

    def ask(self, ask: HoldAsk, reply: Reply) -> None:
        """Take it for the next turn."""
        key = ask.call_id, ask.request
        waiting = self._open.get(key)
        if waiting is None:
            waiting = self._open[key] = Waiting(ask)
            self._asks.append(waiting)
        waiting.replies.append(reply)

    async def decide(self) -> None:
        """Decide each ask by itself. Raises leading.Deposed."""
        batch = [*self._late, *self._asks]
        self._late = []
        self._asks.clear()
        for waiting in batch:
            answer = await self._decided(waiting.question)
            shortage = answer.shortage if answer is not None else None
            if shortage is not None and waiting.may_wait(self._desk, shortage.account):
                self._late.append(waiting)
                continue
            del self._open[waiting.question.call_id, waiting.question.request]
            for reply in waiting.replies if answer is not None else ():
                reply(answer)

    async def _decided(self, ask: HoldAsk) -> Answer | None:
        """None if the ledger does not take it: whoever asks, asks again. A call that is not open
        may hold nothing, as nothing would end that hold."""
        desk = self._desk
        start = await self._start_of(ask.call_id)
        if start is None:
            return Answer(stranger=True)
        event_id = f"{ask.call_id}.hold.{ask.request}"
        if desk.book.has_taken(ask.call_id, event_id):
            return Answer()
        shortage = decide_hold(desk.book, desk.catalog, ask, desk.clock.now_ns(), desk.zone)
        if shortage is not None:
            return Answer(shortage=shortage)
        fields = {**desk.new_event(), "event_id": event_id}
        event = HoldTaken(**fields, **_of(start), hold_nano=ask.hold_nano)
        desk.book.apply(event)
        try:
            if await desk.ledger.append(event) is None:
                desk.book.withdraw(event)
        except Refused as error:
            desk.book.withdraw(event)
            log.error("hold not recorded", extra={"reason": str(error)})
            return None
        return Answer()

    async def _start_of(self, call_id: str) -> RequestStart | None:
        """Its start is in the ledger: where the fold has none, it must have all there is first."""
        fold = self._desk.fold
        if fold.open_calls.start_of(call_id) is None:
            try:
                newest = await last_sequence(self._desk.connection)
            except Unreadable:
                return None
            await fold.reach(newest, _CATCH_UP_WITHIN)
        return fold.open_calls.start_of(call_id)


def _of(start: RequestStart) -> dict[str, Any]:
    return {
        name: getattr(start, name)
        for name in ("call_id", "key_id", "project", "team", "user", "app", "model", "provider")
    }
