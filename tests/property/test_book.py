"""Money of budgets, whatever happens in whatever order: the book and what is decided from it,
against a plain model of what ingresses really have."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ledger.access.configured import Configured
from ledger.access.registry import Registry
from ledger.budgets.book import Book
from ledger.budgets.book_state import BookState
from ledger.budgets.granting import Grant, decide, decide_hold, overdrawn
from ledger.budgets.messages import Ask, HoldAsk, Shortage, Want
from ledger.budgets.names import budget_of
from schemas.access import Budget
from schemas.budget_events import (
    BudgetReset,
    HoldTaken,
    LeaseExpired,
    LeaseGranted,
    LeaseReturned,
    Movement,
)
from schemas.events import LedgerEvent, Outcome
from tests import sample_events as sample
from tests.sample_events import NOON, SECOND

HOUR = 3600 * SECOND
ZONE = "Europe/Berlin"
EVERY_USER = "user:*:day"
RECORDS = (
    Budget(scope="global", period="month", limit_nano=1000),
    Budget(scope="project", id="shop", period="week", limit_nano=400),
    Budget(scope="team", id="t", period="total", limit_nano=2000),
    Budget(scope="user", id="*", period="day", limit_nano=300),
    Budget(scope="key", id="k", period="month", limit_nano=100, hard_stop=False),
)
SOFT = "key:k:month"
BUDGETS = (
    "global:month",
    "project:shop:week",
    "team:t:total",
    "user:ana:day",
    "user:bob:day",
    SOFT,
)
HOLDERS = 3

nano = st.integers(0, 150)
which = st.integers(0, 1_000)
some_budgets = st.lists(st.sampled_from(BUDGETS), min_size=1, max_size=4, unique=True)
ends = st.sampled_from(
    (sample.complete, sample.failed, sample.cancelled, sample.rejected, sample.lost)
)
EARLY = (None, None, None, sample.complete, sample.rejected)
attempts = st.sampled_from(
    (sample.attempt_failed, sample.attempt_abandoned, sample.attempt_late, sample.complete)
)


@dataclass
class Ingress:
    """What one holder really has, by account; `unheard` were granted, the answer got lost."""

    name: str
    purse: Counter[str] = field(default_factory=Counter)
    unheard: dict[str, dict[str, int]] = field(default_factory=dict)
    is_expired: bool = False

    def has(self) -> Counter[str]:
        return sum((Counter(amounts) for amounts in self.unheard.values()), Counter(self.purse))


@dataclass
class Call:
    """One call: what it holds in each of its accounts."""

    id: str
    accounts: tuple[str, ...]
    held: int
    is_open: bool = True


def head(**fields: Any) -> dict[str, Any]:
    return {"event_id": "event", "time": "2026-09-21T12:00:00.000000Z", "v": 1, **fields}


def told(book: Book) -> BookState:
    """All that the ledger has told a book; not when it last looked for what it may forget."""
    return msgspec.structs.replace(book.snapshot(), forgotten_ns=0, forgotten_epochs={})


def read(book: Book, ledger: list[LedgerEvent], again: int = 0) -> None:
    """Fold what a book has not read yet, and so many events before that once more."""
    begin = max(0, book.seq - again)
    for seq, event in enumerate(ledger[begin:], begin + 1):
        book.fold(seq, event)


class Money(RuleBasedStateMachine):
    """The ledger is a list; the book of the governor lags behind it, is handed over, and is told
    the same thing twice. `follower` is a book that has read everything and decides nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = NOON
        self.catalog = Registry(
            Configured({}, {}, {}, {}, {one.name: one for one in RECORDS if one.id != "shop"})
        )
        self.limits = {one.name: one.limit_nano for one in RECORDS}
        self.highest = dict(self.limits)
        self.set_limit(self.limits["project:shop:week"])
        self.ledger: list[LedgerEvent] = []
        self.book = Book()
        self.follower = Book()
        self.kept = self.book.snapshot()
        self.decided: list[Movement] = []
        self.ingresses = [Ingress(f"h{number}") for number in range(HOLDERS)]
        self.ghosts: list[Ingress] = []
        self.calls: list[Call] = []
        self.spent: Counter[str] = Counter()
        # What no bound promised: costs above a hold or after the end, calls of silent holders.
        self.excess: Counter[str] = Counter()
        self.epochs: Counter[str] = Counter()
        self.forgotten: set[str] = set()
        self.numbers = 0

    # The plain model.

    def number(self) -> str:
        self.numbers += 1
        return str(self.numbers)

    def account(self, budget: str) -> str:
        """The account of a budget now."""
        day = datetime.fromtimestamp(self.now_ns // SECOND, ZoneInfo(ZONE)).date()
        first: dict[str, date] = {
            "day": day,
            "week": day - timedelta(days=day.weekday()),
            "month": day.replace(day=1),
        }
        period = budget.split(":")[-1]
        label = first[period].isoformat() if period in first else "all"
        return f"{budget}@{label}.{self.epochs[budget]}"

    def limit(self, budget: str) -> int:
        return self.limits[EVERY_USER if budget.startswith("user:") else budget]

    def leased(self, account: str) -> int:
        """All that is out of an account, by what everybody really has."""
        return (
            sum(movement.amounts.get(account, 0) for movement in self.decided)
            + sum(one.has()[account] for one in self.ingresses)
            + self.held(account)
        )

    def held(self, account: str) -> int:
        return sum(call.held for call in self.calls if call.is_open and account in call.accounts)

    def charge(self, call: Call, event: Any, bound: int) -> None:
        """Count the cost of an event, and what of it nobody had held."""
        for account in call.accounts:
            if event.billed_to == "client":
                continue
            if event.cost_nano is not None:
                self.spent[account] += event.cost_nano
                self.excess[account] += max(0, event.cost_nano - bound)

    def open_calls(self) -> list[Call]:
        return [call for call in self.calls if call.is_open]

    def is_quiet(self) -> bool:
        """Whether the book has all that the ledger has."""
        return self.book.seq == len(self.ledger)

    # Asking, granting, and what may happen to an answer.

    @initialize(need=nano, like=st.integers(0, 400))
    def begin_with_leases(self, need: int, like: int) -> None:
        for who in range(HOLDERS):
            self.obtain(who, list(BUDGETS), need, like)

    @rule(who=which, wanted=some_budgets, need=nano, like=st.integers(0, 400))
    def obtain(self, who: int, wanted: list[str], need: int, like: int) -> None:
        """As `ask`, and the answer is there at once."""
        self.ask(who, wanted, need, like)
        self.commit(is_heard=True, is_written_twice=False)

    @rule(who=which, wanted=some_budgets, need=nano, like=st.integers(0, 400))
    def ask(self, who: int, wanted: list[str], need: int, like: int) -> None:
        holder = self.ingresses[who % HOLDERS]
        ask = Ask(holder.name, self.number(), tuple(Want(one, need, like) for one in wanted))
        result = decide(self.book, self.catalog, ask, self.now_ns, HOLDERS, ZONE)
        if self.is_quiet():
            self.agrees(result, wanted, need, like)
        if isinstance(result, Shortage):
            assert result.limit_nano - result.spent_nano - result.held_nano < result.needed_nano
            return
        assert [lease.account for lease in result.leases] == [self.account(one) for one in wanted]
        self.book.apply(result.movement)
        self.decided.append(result.movement)
        for lease in result.leases:
            assert lease.amount == result.movement.amounts.get(lease.account, 0)
            if lease.hard:
                assert need <= lease.amount <= max(need, like)
                if lease.amount:
                    total = self.book.settled(lease.account) + self.book.leased(lease.account)
                    assert total <= self.limit(lease.budget)
                    assert lease.amount in (need, like) or 8 * HOLDERS * lease.amount <= (
                        self.limit(lease.budget)
                    )

    def agrees(self, result: Grant | Shortage, wanted: list[str], need: int, like: int) -> None:
        """A refusal names the first budget that really has too little left, and only that; a lease
        is its share of what really is left."""
        amounts: list[int] = []
        for budget in wanted:
            room = max(self.room(budget), 0)
            if budget != SOFT and need > room:
                assert isinstance(result, Shortage)
                assert (result.budget, result.account) == (budget, self.account(budget))
                left = result.limit_nano - result.spent_nano - result.held_nano
                assert left == self.room(budget)
                return
            share = room // (8 * HOLDERS)
            amounts.append(0 if budget == SOFT else max(need, min(like, share)))
        assert isinstance(result, Grant)
        assert [lease.amount for lease in result.leases] == amounts

    def room(self, budget: str) -> int:
        account = self.account(budget)
        return self.limit(budget) - self.spent[account] - self.leased(account)

    @rule(who=which, budget=st.sampled_from(BUDGETS[:-1]))
    def ask_for_the_last_nano(self, who: int, budget: str) -> None:
        """All that is left may be had, and nothing beyond it."""
        self.fold(len(self.ledger))
        room = max(self.room(budget), 0)
        holder = self.ingresses[who % HOLDERS].name
        for need in (room + 1, room):
            ask = Ask(holder, "1", (Want(budget, need),))
            result = decide(self.book, self.catalog, ask, self.now_ns, HOLDERS, ZONE)
            assert isinstance(result, Grant) == (need == room)

    @precondition(lambda self: self.decided)
    @rule(is_heard=st.booleans(), is_written_twice=st.booleans())
    def commit(self, is_heard: bool, is_written_twice: bool) -> None:
        event = LeaseGranted(**head(), movements=tuple(self.decided))
        self.ledger += [event, event] if is_written_twice else [event]
        for movement in self.decided:
            holder = next(one for one in self.ingresses if one.name == movement.holder)
            if is_heard:
                holder.purse.update(movement.amounts)
            else:
                holder.unheard[movement.request] = movement.amounts
        self.decided = []

    @precondition(lambda self: self.decided)
    @rule()
    def fail_to_commit(self) -> None:
        for movement in self.decided:
            self.book.withdraw(movement)
        self.decided = []

    @precondition(lambda self: any(one.unheard for one in self.ingresses))
    @rule()
    def ask_again(self) -> None:
        """What got lost is asked for by the same request: it is granted once only."""
        self.fold(len(self.ledger))
        for holder in self.ingresses:
            for request, amounts in holder.unheard.items():
                assert self.book.granted(holder.name, request) == amounts
                assert not self.book.is_applied(holder.name, request)
                holder.purse.update(amounts)
            holder.unheard = {}

    # Calls.

    @rule(who=which, wanted=some_budgets, share=st.integers(1, 4), early=st.sampled_from(EARLY))
    def start(self, who: int, wanted: list[str], share: int, early: Any) -> None:
        """A call takes its hold out of the purse; its end may be in the ledger before its start."""
        self.begin(self.ingresses[who % HOLDERS], wanted, share, early)

    @precondition(lambda self: self.ghosts)
    @rule(who=which, wanted=some_budgets)
    def start_of_a_silent_holder(self, who: int, wanted: list[str]) -> None:
        """It woke up and did not know yet."""
        call = self.begin(self.ghosts[who % len(self.ghosts)], wanted, 1, None)
        if call is not None:
            self.excess.update(dict.fromkeys(call.accounts, call.held))

    def begin(self, holder: Ingress, wanted: list[str], share: int, early: Any) -> Call | None:
        hard = {budget_of(one): one for one, has in sorted(holder.purse.items()) if has > 0}
        if not hard:
            return None
        accounts = tuple(hard[one] for one in wanted if one in hard) or tuple(hard.values())
        hold = max(1, min(holder.purse[one] for one in accounts) // share)
        holder.purse.subtract(dict.fromkeys(accounts, hold))
        accounts += (self.account(SOFT),) if SOFT in wanted else ()
        call = Call(f"call-{self.number()}", accounts, hold, is_open=early is None)
        self.calls.append(call)
        if early is not None:
            end = early(call.id, accounts=accounts, cost_nano=hold // 2)
            self.charge(call, end, hold)
            self.ledger.append(end)
            self.fold(len(self.ledger))
            self.keep()
        start = sample.start(call.id, accounts=accounts, holder=holder.name, hold_nano=hold)
        self.ledger.append(start)
        return call

    @precondition(lambda self: self.open_calls())
    @rule(call=which, more=st.integers(1, 60), is_ended=st.booleans())
    def hold_more(self, call: int, more: int, is_ended: bool) -> None:
        """A further attempt; its event may be written after the end of its call."""
        self.fold(len(self.ledger))
        chosen = self.open_calls()[call % len(self.open_calls())]
        assert self.book.hold_of(chosen.id) == chosen.held
        ask = HoldAsk(chosen.id, "1", more, chosen.accounts)
        if decide_hold(self.book, self.catalog, ask, self.now_ns, ZONE) is not None:
            return
        event = HoldTaken(**head(event_id=self.number()), call_id=chosen.id, hold_nano=more)
        self.book.apply(event)
        for account in chosen.accounts:
            total = self.book.settled(account) + self.book.leased(account)
            assert budget_of(account) == SOFT or total <= self.limit(budget_of(account))
        if is_ended:
            self.ledger.append(sample.lost(chosen.id))
            chosen.is_open = False
        else:
            chosen.held += more
        self.ledger += [event, event]
        self.fold(len(self.ledger))

    @precondition(lambda self: self.open_calls())
    @rule(call=which, end=ends, cost=st.none() | nano, by=st.sampled_from(("", "", "client")))
    def end(self, call: int, end: Any, cost: int | None, by: str) -> None:
        chosen = self.open_calls()[call % len(self.open_calls())]
        event = end(chosen.id, accounts=chosen.accounts, cost_nano=cost, billed_to=by)
        self.charge(chosen, event, chosen.held)
        self.ledger.append(event)
        chosen.is_open = False

    @precondition(lambda self: self.calls)
    @rule(call=which, kind=attempts, cost=st.none() | st.integers(-20, 60))
    def cost_beside(self, call: int, kind: Any, cost: int | None) -> None:
        """A failed attempt of an open call, or a late one or a second end of one that ended."""
        chosen = self.calls[call % len(self.calls)]
        if chosen.is_open and kind is sample.complete:
            return
        event = kind(chosen.id, accounts=chosen.accounts, cost_nano=cost)
        self.charge(chosen, event, 0)
        self.ledger.append(event)

    @precondition(lambda self: any(isinstance(one, Outcome) for one in self.ledger))
    @rule(which=which)
    def write_again(self, which: int) -> None:
        """A worker that found an end wrote it once more; the ledger had forgotten its id."""
        outcomes = [one for one in self.ledger if isinstance(one, Outcome)]
        self.ledger.append(outcomes[which % len(outcomes)])

    # What comes back.

    @rule(who=which, share=st.integers(1, 3), is_written_twice=st.booleans())
    def give_back(self, who: int, share: int, is_written_twice: bool) -> None:
        holder = self.ingresses[who % HOLDERS]
        self.returns(holder, {one: has // share for one, has in holder.purse.items()})
        if is_written_twice:
            self.ledger.append(self.ledger[-1])

    def returns(self, holder: Ingress, amounts: dict[str, int]) -> None:
        holder.purse.subtract(amounts)
        movement = Movement(holder.name, self.number(), amounts)
        self.ledger.append(LeaseReturned(**head(), movements=(movement,)))

    @precondition(lambda self: not self.decided)
    @rule(who=which)
    def expire(self, who: int) -> None:
        """A holder fell silent; it begins anew under another name."""
        ghost = self.ingresses[who % HOLDERS]
        self.ledger.append(LeaseExpired(**head(), holder=ghost.name))
        self.ghosts = [*self.ghosts[-2:], ghost]
        self.ingresses[who % HOLDERS] = Ingress(f"{ghost.name}'")

    @rule(budget=st.sampled_from(BUDGETS[:-1]))
    def recall(self, budget: str) -> None:
        account = self.account(budget)
        for holder in self.ingresses:
            self.returns(holder, {account: holder.purse[account]})
        self.fold(len(self.ledger))
        unheard = sum(one.has()[account] for one in self.ingresses)
        assert self.book.free(account) == unheard

    # What changes the terms.

    @rule(budget=st.sampled_from((*BUDGETS, EVERY_USER)))
    def reset(self, budget: str) -> None:
        self.fold(len(self.ledger))
        users = [one for one in BUDGETS if one.startswith("user:")]
        begun = [*users, EVERY_USER] if budget == EVERY_USER else [budget]
        epoch = max(self.epochs[one] for one in begun) + 1
        assert self.book.next_epoch(budget) == epoch
        self.ledger.append(BudgetReset(**head(), budget=budget, epoch=epoch))
        self.fold(len(self.ledger))
        self.epochs.update({one: epoch - self.epochs[one] for one in begun})

    @rule(hours=st.sampled_from((1, 2, 3, 7, 24, 100, 800)))
    def time_passes(self, hours: int) -> None:
        self.now_ns += hours * HOUR

    @rule(limit=st.integers(0, 800))
    def set_limit(self, limit: int) -> None:
        """The project's limit may go below what is spent and leased already."""
        budget = Budget(scope="project", id="shop", period="week", limit_nano=limit)
        self.catalog.take(sample.stored(self.catalog.seq + 1, sample.budget_set(budget)))
        self.limits[budget.name] = limit
        self.highest[budget.name] = max(limit, self.highest[budget.name])

    # The governor reads on, forgets, and is followed by another one.

    @rule(events=st.integers(1, 10))
    def read_on(self, events: int) -> None:
        self.fold(self.book.seq + events)

    def fold(self, upto: int) -> None:
        read(self.book, self.ledger[:upto])

    @rule()
    def keep(self) -> None:
        self.kept = self.book.snapshot()

    @rule(back=st.integers(0, 30), is_from_keep=st.booleans())
    def takeover(self, back: int, is_from_keep: bool) -> None:
        """A successor restores what was kept and reads from a while before that; what was decided
        and not written has never been."""
        state = self.kept if is_from_keep else self.book.snapshot()
        packed = msgspec.msgpack.encode(state)
        successor = Book.restore(msgspec.msgpack.decode(packed, type=BookState))
        assert successor.snapshot() == state
        read(successor, self.ledger, again=back)
        self.fold(len(self.ledger))
        read(self.follower, self.ledger)
        if not self.forgotten:
            assert told(successor) == told(self.book) == told(self.follower)
        self.decided = []
        self.book = successor
        self.forgotten -= set(successor.accounts())

    @precondition(lambda self: not self.decided)
    @rule()
    def forget(self) -> None:
        self.fold(len(self.ledger))
        before = set(self.book.accounts())
        self.book.forget(self.now_ns)
        gone = before - set(self.book.accounts())
        assert not gone & {self.account(budget) for budget in BUDGETS}
        assert not any(self.leased(account) for account in gone)
        self.forgotten |= gone

    # What holds at any time.

    @invariant()
    def nothing_is_overspent(self) -> None:
        for account in self.accounts():
            budget = budget_of(account)
            if budget != SOFT:
                highest = self.highest[EVERY_USER if budget.startswith("user:") else budget]
                out = self.spent[account] + self.leased(account)
                assert out <= highest + self.excess[account]

    @invariant()
    def a_book_agrees_with_the_model_once_it_has_read_everything(self) -> None:
        read(self.follower, self.ledger)
        self.agrees_with_the_model(self.follower, self.accounts())
        if self.is_quiet():
            kept = self.accounts() - self.forgotten
            self.agrees_with_the_model(self.book, kept)
            for account in kept:
                assert self.book.leased(account) == self.leased(account)

    def agrees_with_the_model(self, book: Book, accounts: set[str]) -> None:
        for account in accounts:
            out = sum(one.has()[account] for one in self.ingresses)
            assert book.settled(account) == self.spent[account]
            assert book.held(account) == self.held(account)
            assert book.free(account) == out
            if budget_of(account) != SOFT:
                total = self.spent[account] + book.leased(account)
                is_over = total > self.limit(budget_of(account))
                assert overdrawn(book, self.catalog, account) == is_over
        for holder in self.ingresses:
            has = {account: nano for account, nano in holder.has().items() if nano}
            assert book.free_of(holder.name) == has
        assert book.open_calls == len(self.open_calls())

    def accounts(self) -> set[str]:
        named = {account for call in self.calls for account in call.accounts}
        return named | {account for one in self.ingresses for account in one.has()}

    def teardown(self) -> None:
        """After all ends and returns nothing is left but what was spent."""
        self.fail_to_commit()
        self.fold(len(self.ledger))
        for call in self.open_calls():
            self.ledger.append(sample.lost(call.id))
            call.is_open = False
        for holder in self.ingresses:
            self.returns(holder, dict(holder.has()))
        self.fold(len(self.ledger))
        for account in self.accounts() - self.forgotten:
            assert self.book.settled(account) == self.spent[account]
            assert self.book.leased(account) == 0
        state = self.book.snapshot()
        assert not state.calls
        assert not any(holder.free for holder in state.holders)


Money.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestMoney = Money.TestCase
