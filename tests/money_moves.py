"""How the money of budgets moves in the test of the book: leases asked for, granted, lost, used
by calls. The rules of hypothesis that change a model and tell the ledger of it."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from ledger.access.configured import Configured
from ledger.access.registry import Registry
from ledger.budgets.book import Book
from ledger.budgets.granting import Grant, decide, decide_hold
from ledger.budgets.messages import Ask, HoldAsk, Shortage, Want
from ledger.budgets.names import budget_of
from schemas.access import Budget
from schemas.budget_events import (
    HoldTaken,
    LeaseGranted,
)
from schemas.events import LedgerEvent, Outcome
from tests import sample_events as sample
from tests.money_model import BUDGETS, HOLDERS, RECORDS, SOFT, ZONE, Call, Ingress, Model

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


def head(**fields: Any) -> dict[str, Any]:
    return {"event_id": "event", "time": "2026-09-21T12:00:00.000000Z", "v": 1, **fields}


def read(book: Book, ledger: list[LedgerEvent], again: int = 0) -> None:
    """Fold what a book has not read yet, and so many events before that once more."""
    begin = max(0, book.seq - again)
    for seq, event in enumerate(ledger[begin:], begin + 1):
        book.fold(seq, event)


class Moves(Model, RuleBasedStateMachine):
    """The ledger is a list; the book of the governor lags behind it, is handed over, and is told
    the same thing twice. `follower` is a book that has read everything and decides nothing."""

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        Model.__init__(self)
        self.catalog = Registry(
            Configured({}, {}, {}, {}, {one.name: one for one in RECORDS if one.id != "shop"})
        )
        self.set_limit(self.limits["project:shop:week"])
        self.ledger: list[LedgerEvent] = []
        self.book = Book()
        self.follower = Book()
        self.kept = self.book.snapshot()
        self.forgotten: set[str] = set()

    def is_quiet(self) -> bool:
        """Whether the book has all that the ledger has."""
        return self.book.seq == len(self.ledger)

    def fold(self, upto: int) -> None:
        read(self.book, self.ledger[:upto])

    @rule()
    def keep(self) -> None:
        self.kept = self.book.snapshot()

    @rule(limit=st.integers(0, 800))
    def set_limit(self, limit: int) -> None:
        """The project's limit may go below what is spent and leased already."""
        budget = Budget(scope="project", id="shop", period="week", limit_nano=limit)
        self.catalog.take(sample.stored(self.catalog.seq + 1, sample.budget_set(budget)))
        self.set_limit_of(budget)

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
