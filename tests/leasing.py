"""A holder of leases as a test plays it, and what the ledger alone says of the money."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from ledger.budgets import messages
from ledger.budgets.messages import (
    Answer,
    Ask,
    BudgetState,
    HoldAsk,
    Pulse,
    RateWant,
    Recall,
    Reset,
    Return,
    StateAsk,
    States,
    Want,
)
from ledger.connection import Connection, Disconnected, Message, NoResponders, RequestTimeout
from schemas import subjects
from schemas.budget_events import (
    BudgetReset,
    HoldTaken,
    LeaseExpired,
    LeaseGranted,
    LeaseReturned,
)
from schemas.events import LedgerEvent, Outcome, RequestStart, Terminal

_numbers = itertools.count()
_AWAY = (NoResponders, RequestTimeout, Disconnected)


class Tenant:
    """Asks as one holder; what it hears nothing about it asks again, by the same request."""

    def __init__(self, connection: Connection, holder: str) -> None:
        self.connection = connection
        self.holder = holder
        self.recalled: list[Recall] = []
        self.heard = asyncio.Event()
        connection.subscribe(subjects.GOVERNOR_RECALL, self._on_recall)

    def _on_recall(self, message: Message) -> None:
        recall = messages.decode_recall(message.data)
        # A reign that begins recalls no money.
        if recall.accounts:
            self.recalled.append(recall)
            self.heard.set()

    async def ask(
        self, *wants: Want, request: str = "", rates: tuple[RateWant, ...] = ()
    ) -> Answer:
        request = request or f"{self.holder}.{next(_numbers)}"
        return await self.put(subjects.GOVERNOR_LEASE, Ask(self.holder, request, wants, rates))

    async def need(self, nano: int, *budgets: str, like: int = 0) -> Answer:
        return await self.ask(*(Want(budget, nano, like) for budget in budgets))

    async def give_back(self, account: str, nano: int, request: str = "") -> Answer:
        request = request or f"{self.holder}.{next(_numbers)}"
        return await self.put(
            subjects.GOVERNOR_RETURN, Return(self.holder, request, {account: nano})
        )

    async def pulse(self) -> Answer:
        return await self.put(subjects.GOVERNOR_PULSE, Pulse(self.holder))

    async def hold(self, call_id: str, request: str, nano: int, *accounts: str) -> Answer:
        return await self.put(subjects.GOVERNOR_HOLD, HoldAsk(call_id, request, nano, accounts))

    async def reset(self, budget: str) -> BudgetState | None:
        reset = Reset(budget, f"{self.holder}.{next(_numbers)}", "somebody")
        data = await self._answer(subjects.GOVERNOR_RESET, reset)
        return msgspec.msgpack.decode(data, type=BudgetState) if data else None

    async def states(self, *budgets: str) -> States:
        return messages.decode_states(
            await self._answer(subjects.GOVERNOR_BUDGETS, StateAsk(budgets))
        )

    async def state(self, budget: str) -> BudgetState:
        return (await self.states(budget)).budgets[0]

    async def put(self, subject: str, question: msgspec.Struct) -> Answer:
        return messages.decode_answer(await self._answer(subject, question))

    async def _answer(self, subject: str, question: msgspec.Struct) -> bytes:
        async with asyncio.timeout(30):
            while True:
                try:
                    data = messages.encode(question)
                    return (await self.connection.request(subject, data, timeout=1.0)).data
                except _AWAY:
                    await asyncio.sleep(0.05)


def start_fields(holder: str, nano: int, *accounts: str) -> dict[str, Any]:
    return {"holder": holder, "hold_nano": nano, "accounts": accounts}


class Plain:
    """Sums of one account, event by event, with nothing of the book in it."""

    def __init__(self) -> None:
        self.settled: dict[str, int] = defaultdict(int)
        self.free: dict[tuple[str, str], int] = defaultdict(int)
        self.holds: dict[str, tuple[tuple[str, ...], int]] = {}
        self.highest: dict[str, int] = defaultdict(int)
        self.requests: set[tuple[str, str, str]] = set()
        self.epochs: dict[str, int] = {}

    def take(self, event: LedgerEvent) -> None:
        match event:
            case LeaseGranted() | LeaseReturned():
                sign = 1 if isinstance(event, LeaseGranted) else -1
                for one in event.movements:
                    key = type(event).__name__, one.holder, one.request
                    assert key not in self.requests, f"{key} moved money twice"
                    self.requests.add(key)
                    for account, nano in one.amounts.items():
                        self.free[one.holder, account] += sign * nano
            case LeaseExpired():
                for holder, account in list(self.free):
                    if holder == event.holder:
                        self.free[holder, account] = 0
            case RequestStart():
                self.holds[event.call_id] = event.accounts, event.hold_nano
                for account in event.accounts:
                    self.free[event.holder, account] -= event.hold_nano
            case HoldTaken():
                accounts, nano = self.holds[event.call_id]
                self.holds[event.call_id] = accounts, nano + event.hold_nano
            case Outcome():
                for account in event.accounts:
                    self.settled[account] += event.cost_nano or 0
                if isinstance(event, Terminal):
                    self.holds.pop(event.call_id, None)
            case BudgetReset():
                self.epochs[event.budget] = event.epoch
            case _:
                return
        for account in {account for _, account in self.free}:
            self.highest[account] = max(self.highest[account], self.total(account))

    def held(self, account: str) -> int:
        return sum(nano for accounts, nano in self.holds.values() if account in accounts)

    def leased(self, account: str) -> int:
        free = sum(nano for (_, name), nano in self.free.items() if name == account)
        return free + self.held(account)

    def total(self, account: str) -> int:
        return self.settled[account] + self.leased(account)


def plain(events: Iterable[LedgerEvent]) -> Plain:
    """The money as the ledger's events sum up."""
    sums = Plain()
    for event in events:
        sums.take(event)
    return sums
