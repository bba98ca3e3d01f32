"""Money of budgets, whatever happens in whatever order: the book and what is decided from it,
against a plain model of what ingresses really have."""

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    invariant,
    precondition,
    rule,
)

from ledger.budgets.book import Book
from ledger.budgets.book_state import BookState
from ledger.budgets.granting import overdrawn
from ledger.budgets.names import budget_of
from schemas.budget_events import (
    BudgetReset,
    LeaseExpired,
    LeaseReturned,
    Movement,
)
from tests import sample_events as sample
from tests.money_model import BUDGETS, EVERY_USER, HOLDERS, SOFT, Ingress
from tests.money_moves import Moves, head, read, which
from tests.sample_events import SECOND

HOUR = 3600 * SECOND


def told(book: Book) -> BookState:
    """All that the ledger has told a book; not when it last looked for what it may forget."""
    return msgspec.structs.replace(book.snapshot(), forgotten_ns=0, forgotten_epochs={})


class Money(Moves):
    """What comes back, what changes the terms, who governs; and what holds at any time."""

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

    # The governor reads on, forgets, and is followed by another one.

    @rule(events=st.integers(1, 10))
    def read_on(self, events: int) -> None:
        self.fold(self.book.seq + events)

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
                out = self.spent[account] + self.leased(account)
                assert out <= self.highest_limit(budget) + self.excess[account]

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
