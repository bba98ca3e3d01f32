"""The book: what every account has spent, free and held, folded from the ledger."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from ledger.budgets.book import Book
from ledger.budgets.book_state import BookState
from schemas.budget_events import (
    BudgetReset,
    HoldTaken,
    LeaseExpired,
    LeaseGranted,
    LeaseReturned,
    Movement,
)
from schemas.events import LedgerEvent
from tests import sample_events as sample
from tests.sample_events import NOON

DAY = 86_400 * 1_000_000_000
SHOP = "project:shop:month@2026-09-01.0"
ANA = "user:ana:month@2026-09-01.0"


def head() -> dict[str, Any]:
    return {"event_id": "event", "time": "2026-09-21T12:00:00.000000Z", "v": 1}


def granted(holder: str, request: str, **amounts: int) -> LeaseGranted:
    return LeaseGranted(**head(), movements=(movement(holder, request, **amounts),))


def returned(holder: str, request: str, **amounts: int) -> LeaseReturned:
    return LeaseReturned(**head(), movements=(movement(holder, request, **amounts),))


def movement(holder: str, request: str, **amounts: int) -> Movement:
    names = {"shop": SHOP, "ana": ANA}
    return Movement(holder, request, {names[name]: nano for name, nano in amounts.items()})


def expired(holder: str) -> LeaseExpired:
    return LeaseExpired(**head(), holder=holder)


def reset(budget: str, epoch: int) -> BudgetReset:
    return BudgetReset(**head(), budget=budget, epoch=epoch)


def hold_taken(call_id: str, event_id: str, nano: int) -> HoldTaken:
    return HoldTaken(**{**head(), "event_id": event_id}, call_id=call_id, hold_nano=nano)


def later(seconds: int, event: LedgerEvent) -> LedgerEvent:
    """The event so many seconds later."""
    time = datetime.fromisoformat(event.time) + timedelta(seconds=seconds)
    return msgspec.structs.replace(event, time=time.isoformat())


def start(call_id: str, nano: int, holder: str = "h", *accounts: str) -> LedgerEvent:
    named = accounts or (SHOP,)
    return sample.start(call_id, accounts=named, holder=holder, hold_nano=nano)


def book_of(*events: LedgerEvent) -> Book:
    book = Book()
    fold(book, events)
    return book


def fold(book: Book, events: Iterable[LedgerEvent]) -> None:
    for seq, event in enumerate(events, book.seq + 1):
        book.fold(seq, event)


def numbers(book: Book, account: str = SHOP) -> tuple[int, int, int]:
    """Settled, free, held."""
    return book.settled(account), book.free(account), book.held(account)


def again(book: Book) -> Book:
    """The same book in another process."""
    packed = msgspec.msgpack.encode(book.snapshot())
    return Book.restore(msgspec.msgpack.decode(packed, type=BookState))


def test_a_call_takes_its_hold_out_of_its_lease_and_its_end_turns_it_into_cost() -> None:
    book = book_of(granted("h", "1", shop=100))
    assert numbers(book) == (0, 100, 0)
    fold(book, [start("a", 30)])
    assert numbers(book) == (0, 70, 30)
    fold(book, [sample.complete("a", accounts=(SHOP,), cost_nano=12)])
    assert numbers(book) == (12, 70, 0)
    assert book.leased(SHOP) == 70


def test_every_account_of_a_call_is_charged() -> None:
    book = book_of(
        granted("h", "1", shop=50, ana=20),
        start("a", 20, "h", SHOP, ANA),
        sample.complete("a", accounts=(SHOP, ANA), cost_nano=9),
    )
    assert (numbers(book), numbers(book, ANA)) == ((9, 30, 0), (9, 0, 0))
    assert set(book.accounts()) == {SHOP, ANA}


def test_money_that_comes_after_the_end_counts_and_releases_nothing() -> None:
    book = book_of(
        granted("h", "1", shop=100),
        start("a", 30),
        start("b", 30),
        sample.attempt_failed("a", accounts=(SHOP,), cost_nano=3),
        sample.lost("a", accounts=(SHOP,)),
        sample.complete("a", accounts=(SHOP,), cost_nano=5),
        sample.attempt_late("a", accounts=(SHOP,), cost_nano=-1),
    )
    assert numbers(book) == (7, 40, 30)


def test_a_start_that_comes_after_its_end_holds_nothing_and_has_used_its_lease() -> None:
    end = sample.complete("a", accounts=(SHOP,), cost_nano=12)
    early = book_of(granted("h", "1", shop=100), end, start("a", 30))
    usual = book_of(granted("h", "1", shop=100), start("a", 30), end)
    assert numbers(early) == numbers(usual) == (12, 70, 0)
    assert (early.hold_of("a"), early.open_calls) == (None, 0)


def test_an_early_end_is_remembered_by_a_successor() -> None:
    book = again(book_of(sample.complete("a", accounts=(SHOP,), cost_nano=12)))
    fold(book, [start("a", 30)])
    assert numbers(book) == (12, 0, 0)


def test_the_start_of_a_call_counts_once() -> None:
    book = book_of(granted("h", "1", shop=100), start("a", 30), start("a", 30))
    assert numbers(book) == (0, 70, 30)


def test_what_the_client_has_paid_itself_is_on_no_account() -> None:
    book = book_of(
        start("a", 30),
        sample.complete("a", accounts=(SHOP,), cost_nano=12, billed_to="client"),
    )
    assert numbers(book) == (0, 0, 0)


def test_an_unknown_cost_adds_nothing() -> None:
    book = book_of(
        sample.complete("a", accounts=(SHOP,), cost_nano=None),
        sample.complete("b", accounts=(SHOP,), cost_nano=0),
        sample.complete("c", accounts=(SHOP,), cost_nano=7),
    )
    assert book.settled(SHOP) == 7


def test_a_start_of_a_holder_that_is_not_known_holds_beside_what_is_free() -> None:
    book = book_of(granted("h", "1", shop=100), start("a", 30, "stranger"))
    assert numbers(book) == (0, 100, 30)
    assert book.holders() == {"h": 1}


def test_a_holder_has_never_less_than_nothing() -> None:
    book = book_of(granted("h", "1", shop=10), start("a", 30), returned("h", "2", shop=30))
    assert numbers(book) == (0, 0, 30)
    assert book.free_of("h") == {}


def test_an_expiry_ends_what_is_free_and_leaves_the_holds() -> None:
    book = book_of(
        granted("h", "1", shop=100, ana=50),
        granted("other", "1", shop=5),
        start("a", 30),
        expired("h"),
    )
    assert (numbers(book), numbers(book, ANA)) == ((0, 5, 30), (0, 0, 0))
    assert (book.holders(), book.is_expired("h"), book.is_expired("other")) == (
        {"other": 2},
        True,
        False,
    )
    assert again(book).is_expired("h")
    fold(book, [returned("h", "2", shop=70), sample.complete("a", accounts=(SHOP,), cost_nano=1)])
    assert numbers(book) == (1, 5, 0)


def test_a_request_is_granted_once_and_a_return_is_taken_once() -> None:
    book = book_of(granted("h", "1", shop=100), granted("h", "1", shop=100))
    assert numbers(book) == (0, 100, 0)
    book = again(book)
    fold(book, [returned("h", "1", shop=10), granted("h", "1", shop=9), returned("h", "1", shop=9)])
    assert numbers(book) == (0, 90, 0)
    assert book.granted("h", "1") == {SHOP: 100}
    assert (book.returned("h", "1"), book.returned("h", "2")) == (True, False)
    assert (book.granted("h", "2"), book.granted("other", "1")) == (None, None)


def test_the_requests_of_a_holder_are_known_for_a_minute() -> None:
    book = book_of(granted("h", "0", shop=1), returned("h", "a", shop=1))
    fold(book, [later(59, granted("h", "1", shop=1)), later(59, returned("h", "b", shop=1))])
    for now in (book, again(book)):
        assert now.granted("h", "0") == now.granted("h", "1") == {SHOP: 1}
        assert (now.returned("h", "a"), now.returned("h", "b")) == (True, True)
        fold(now, [later(61, granted("h", "2", shop=1)), later(61, returned("h", "c", shop=1))])
        assert (now.granted("h", "0"), now.returned("h", "a")) == (None, False)
        assert now.granted("h", "1") == now.granted("h", "2") == {SHOP: 1}
        assert (now.returned("h", "b"), now.returned("h", "c")) == (True, True)


def test_the_requests_of_a_holder_that_asks_without_end_have_a_bound() -> None:
    book = book_of(*(granted("h", str(number), shop=1) for number in range(16_385)))
    assert book.granted("h", "0") is None
    assert book.granted("h", "1") == book.granted("h", "16384") == {SHOP: 1}
    assert book.holders() == {"h": 16_385}


def test_requests_of_a_snapshot_without_times_are_known_and_go_first() -> None:
    book = book_of(granted("h", "0", shop=1), returned("h", "a", shop=1))
    state = book.snapshot()
    old = msgspec.structs.replace(state.holders[0], granted_at=(), returned_at=())
    book = Book.restore(msgspec.structs.replace(state, holders=(old,)))
    assert (book.granted("h", "0"), book.returned("h", "a")) == ({SHOP: 1}, True)
    fold(book, [granted("h", "1", shop=1)])
    assert book.granted("h", "0") is None


def test_an_event_that_the_ledger_has_twice_counts_once() -> None:
    once = sample.attempt_failed("a", accounts=(SHOP,), cost_nano=3)
    end = sample.complete("a", accounts=(SHOP,), cost_nano=7)
    book = book_of(granted("h", "1", shop=100), start("a", 30), once, once, end)
    assert numbers(book) == (10, 70, 0)
    fold(book, [end, once])
    assert (numbers(book), book.seq) == ((10, 70, 0), 7)
    book = again(book)
    fold(book, [end, once, sample.complete("a", accounts=(SHOP,), cost_nano=1)])
    assert numbers(book) == (11, 70, 0)


def test_a_copy_may_come_as_late_as_an_answer_is_kept() -> None:
    end = sample.complete("a", accounts=(SHOP,), cost_nano=7)
    for seconds, settled in ((780, 7), (782, 14)):
        book = book_of(end, sample.complete("b", NOON + seconds * 10**9, cost_nano=0), end)
        assert book.settled(SHOP) == settled


def test_the_same_event_id_in_two_calls_is_two_events() -> None:
    ends = (sample.complete(call, event_id="x", accounts=(SHOP,), cost_nano=7) for call in "ab")
    assert book_of(*ends).settled(SHOP) == 14


def test_an_account_that_an_event_names_twice_is_charged_once() -> None:
    book = book_of(granted("h", "1", shop=100), start("a", 30, "h", SHOP, SHOP))
    assert numbers(book) == (0, 70, 30)
    fold(book, [hold_taken("a", "x", 5)])
    assert numbers(again(book)) == numbers(book) == (0, 70, 35)
    fold(book, [sample.complete("a", accounts=(SHOP, SHOP), cost_nano=7)])
    assert numbers(book) == (7, 70, 0)


def test_a_further_hold_is_added_once_and_ends_with_its_call() -> None:
    book = book_of(start("a", 30, "h", SHOP, ANA), hold_taken("a", "x", 20))
    assert (numbers(book), numbers(book, ANA), book.hold_of("a")) == ((0, 0, 50), (0, 0, 50), 50)
    book = again(book)
    fold(book, [hold_taken("a", "x", 20)])
    assert (book.held(SHOP), book.has_taken("a", "x"), book.has_taken("a", "y")) == (
        50,
        True,
        False,
    )
    fold(book, [sample.lost("a"), hold_taken("a", "y", 20)])
    assert (numbers(book), numbers(book, ANA)) == ((0, 0, 0), (0, 0, 0))


def test_what_was_decided_is_leased_until_its_event_is_folded_and_never_twice() -> None:
    book = book_of(start("a", 30))
    lease, hold = movement("h", "1", shop=100), hold_taken("a", "x", 5)
    for _ in range(2):
        book.apply(lease)
        book.apply(hold)
    assert (book.leased(SHOP), numbers(book)) == (135, (0, 0, 30))
    assert book.is_applied("h", "1")
    assert book.granted("h", "1") is None
    assert again(book).leased(SHOP) == 30
    fold(book, [granted("h", "1", shop=100), hold])
    assert (book.leased(SHOP), numbers(book)) == (135, (0, 100, 35))
    assert not book.is_applied("h", "1")


def test_what_could_not_be_written_is_withdrawn() -> None:
    book = book_of(start("a", 30))
    lease, hold = movement("h", "1", shop=100), hold_taken("a", "x", 5)
    for decided in (lease, hold):
        book.apply(decided)
        book.withdraw(decided)
    assert book.leased(SHOP) == 30
    fold(book, [granted("h", "1", shop=100)])
    assert book.leased(SHOP) == 130


def test_what_was_folded_is_passed_over_whoever_delivers_it_again() -> None:
    events = [
        granted("h", "1", shop=100),
        start("a", 30),
        hold_taken("a", "x", 5),
        sample.complete("a", accounts=(SHOP,), cost_nano=12),
    ]
    book = book_of(*events)
    before = book.snapshot()
    for seq, event in enumerate(events, 1):
        book.fold(seq, event)
    assert book.snapshot() == before
    assert again(book).snapshot() == before


def test_a_reset_opens_the_next_epoch_and_the_older_one_never_comes_back() -> None:
    budget = "project:shop:month"
    book = book_of()
    assert (book.epoch(budget), book.next_epoch(budget)) == (0, 1)
    fold(book, [reset(budget, 1), reset(budget, 2), reset(budget, 1)])
    assert (book.epoch(budget), again(book).next_epoch(budget)) == (2, 3)
    assert book.epoch("project:other:month") == 0


def test_a_reset_of_every_id_is_one_of_each_and_each_may_be_reset_beside() -> None:
    every, ana, bob = "user:*:month", "user:ana:month", "user:bob:month"
    book = book_of(reset(ana, 1))
    assert book.next_epoch(every) == 2
    fold(book, [reset(every, 2)])
    assert [book.epoch(name) for name in (every, ana, bob, "user:ana:day")] == [2, 2, 2, 0]
    assert book.next_epoch(bob) == 3
    fold(book, [reset(bob, 3)])
    assert [book.epoch(name) for name in (every, ana, bob)] == [2, 2, 3]
    assert book.next_epoch(every) == 4


def at(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


def test_accounts_of_long_ended_periods_are_forgotten_unless_money_is_out() -> None:
    idle, held, free, total = (
        "project:idle:day@2026-09-01.0",
        "project:held:day@2026-09-01.0",
        "project:free:day@2026-09-01.0",
        "project:idle:total@all.0",
    )
    book = book_of(
        sample.complete("x", accounts=(idle, SHOP, total), cost_nano=7),
        start("a", 30, "h", held),
        LeaseGranted(**head(), movements=(Movement("h", "1", {free: 5}),)),
    )
    assert book.forget(at("2026-09-04")) == 0
    assert book.forget(at("2026-09-06")) == 1
    assert set(book.accounts()) == {SHOP, total, held, free}
    fold(
        book,
        [
            sample.complete("a", accounts=(held,), cost_nano=1),
            LeaseReturned(**head(), movements=(Movement("h", "2", {free: 5}),)),
        ],
    )
    assert book.forget(at("2026-09-06")) == 0, "once a day is enough"
    assert book.forget(at("2026-09-07")) == 2
    assert book.forget(at("2027-01-07")) == 1
    assert set(book.accounts()) == {total}


def test_a_forgotten_account_does_not_come_back_with_a_part_of_its_money() -> None:
    idle = "project:idle:day@2026-09-01.0"
    book = book_of(sample.complete("x", accounts=(idle,), cost_nano=7))
    book.forget(at("2026-09-06"))
    book = again(book)
    fold(
        book,
        [
            sample.attempt_late("x", accounts=(idle,), cost_nano=3),
            LeaseGranted(**head(), movements=(Movement("h", "1", {idle: 5}),)),
            start("a", 2, "h", idle, SHOP),
            hold_taken("a", "x", 1),
        ],
    )
    assert (numbers(book, idle), numbers(book)) == ((0, 0, 0), (0, 0, 3))
    fold(book, [sample.complete("a", accounts=(idle, SHOP), cost_nano=1)])
    assert (numbers(book, idle), numbers(book)) == ((0, 0, 0), (1, 0, 0))
    assert not book.knows(idle)


def test_epochs_before_the_last_one_are_forgotten() -> None:
    accounts = [f"project:shop:total@all.{epoch}" for epoch in range(3)]
    book = book_of(*(sample.complete("x", accounts=(one,), cost_nano=1) for one in accounts))
    fold(book, [reset("project:shop:total", 2)])
    assert book.forget(NOON) == 1
    assert list(book.accounts()) == accounts[1:]
    assert book.forget(NOON + DAY) == 0


def test_a_lease_of_an_epoch_that_is_over_counts_until_it_is_forgotten() -> None:
    """It was on its way while its budget was reset twice."""
    total = "project:shop:total@all.0"
    book = book_of(sample.rejected("x"))
    book.forget(NOON)
    fold(book, [reset("project:shop:total", 1), reset("project:shop:total", 2)])
    lease = Movement("h", "1", {total: 5})
    book = again(book)
    fold(book, [LeaseGranted(**head(), movements=(lease,))])
    assert (book.free(total), book.free_of("h")) == (5, {total: 5})


def test_a_thousand_ends_without_a_start_are_no_reason_to_forget_an_early_one() -> None:
    book = book_of(sample.complete("early", accounts=(SHOP,), cost_nano=1))
    fold(book, (sample.rejected(f"refused-{number}") for number in range(1000)))
    fold(book, [start("early", 30)])
    assert book.held(SHOP) == 0


def test_what_is_remembered_of_ends_and_expiries_is_bounded() -> None:
    book = book_of(*(sample.rejected(f"call-{number}") for number in range(5000)))
    fold(book, (expired(f"holder-{number}") for number in range(5000)))
    state = book.snapshot()
    assert (len(state.early_ends), len(state.expired)) == (4096, 4096)
    assert (state.early_ends[-1], state.expired[-1]) == ("call-4999", "holder-4999")
