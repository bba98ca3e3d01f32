"""A governor's budgets without a governor: the pure decisions on a real bus, in a test's hands."""

import asyncio
import time
from itertools import count
from typing import Any

from ledger.budgets import messages
from ledger.budgets.book import Book
from ledger.budgets.granting import Grant, decide
from ledger.budgets.messages import Answer, Ask, Pulse, Recall, Return, Shortage
from ledger.budgets.names import account_id
from ledger.connection import Connection, Message
from schemas import subjects
from schemas.access import Budget
from schemas.budget_events import BudgetReset, LeaseGranted, LeaseReturned, Movement
from schemas.events import LedgerEvent


class Lessor:
    """Answers what a holder asks; `mute` hears and says nothing, `deaf` does not even hear.

    Times are real, leases never expire; `heard` has all that was asked, in order.
    """

    def __init__(self, connection: Connection, *budgets: Budget, holders: int = 1) -> None:
        self.book = Book()
        self.budgets = {budget.name: budget for budget in budgets}
        self.heard: list[Ask | Return | Pulse] = []
        self.mute = self.deaf = False
        self.strangers: set[str] = set()
        self.now_ns = time.time_ns
        self._holders = holders
        self._connection = connection
        self._answers: dict[tuple[str, str], Answer] = {}
        self._kept: list[tuple[str, Answer]] = []
        self._numbers = count(1)
        connection.subscribe(subjects.GOVERNOR_LEASE, self._on_ask)
        connection.subscribe(subjects.GOVERNOR_RETURN, self._on_return)
        connection.subscribe(subjects.GOVERNOR_PULSE, self._on_pulse)

    @property
    def asks(self) -> list[Ask]:
        return [one for one in self.heard if isinstance(one, Ask)]

    @property
    def returns(self) -> list[Return]:
        return [one for one in self.heard if isinstance(one, Return)]

    def budget_named(self, name: str) -> Budget | None:
        return self.budgets.get(name)

    def has_budget(self, name: str) -> bool:
        return name in self.budgets

    def fold(self, event: LedgerEvent) -> None:
        self.book.fold(next(self._numbers), event)

    def reset(self, name: str, label: str = "all") -> None:
        """Begin a budget anew, and have everybody drop what was leased of it."""
        epoch = self.book.epoch(name)
        self.fold(BudgetReset(event_id="", time="", v=1, budget=name, epoch=epoch + 1))
        self.recall(account_id(name, label, epoch), drop=True)

    def recall(self, *accounts: str, drop: bool = False) -> None:
        message = messages.encode(Recall(accounts, drop))
        self._connection.publish(subjects.GOVERNOR_RECALL, message)

    def _on_ask(self, message: Message) -> None:
        if self.deaf:
            return
        ask = messages.decode_ask(message.data)
        self.heard.append(ask)
        known = self._answers.get((ask.holder, ask.request))
        answer = known or self._decided(ask)
        if answer.shortage is None or known is not None:
            self._answer(message.reply, ask.holder, answer)
        else:
            self.recall(answer.shortage.account)
            loop = asyncio.get_running_loop()
            loop.call_later(0.03, lambda: self._at_last(message.reply, ask))

    def _at_last(self, reply: str, ask: Ask) -> None:
        known = self._answers.get((ask.holder, ask.request))
        answer = known or self._decided(ask)
        self._answers[ask.holder, ask.request] = answer
        self._answer(reply, ask.holder, answer)

    def _decided(self, ask: Ask) -> Answer:
        decision = decide(self.book, self, ask, self.now_ns(), self._holders)
        if isinstance(decision, Shortage):
            return Answer(shortage=decision)
        assert isinstance(decision, Grant)
        self.fold(LeaseGranted(**_new(), movements=(decision.movement,)))
        answer = self._answers[ask.holder, ask.request] = Answer(leases=decision.leases)
        return answer

    def _on_return(self, message: Message) -> None:
        if self.deaf:
            return
        given = messages.decode_return(message.data)
        self.heard.append(given)
        moved = Movement(given.holder, given.request, given.amounts)
        self.fold(LeaseReturned(**_new(), movements=(moved,)))
        self._answer(message.reply, given.holder, Answer())

    def _on_pulse(self, message: Message) -> None:
        if self.deaf:
            return
        pulse = messages.decode_pulse(message.data)
        self.heard.append(pulse)
        self._answer(message.reply, pulse.holder, Answer())

    def answer_late(self) -> None:
        """Send what was kept while mute."""
        self.mute = False
        for reply, answer in self._kept:
            self._connection.publish(reply, messages.encode(answer))
        self._kept.clear()

    def _answer(self, reply: str, holder: str, answer: Answer) -> None:
        if holder in self.strangers:
            answer = Answer(stranger=True)
        if self.mute:
            self._kept.append((reply, answer))
        elif self._connection.connected:
            self._connection.publish(reply, messages.encode(answer))


def _new() -> dict[str, Any]:
    return {"event_id": "", "time": "", "v": 1}
