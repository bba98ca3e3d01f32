"""What is granted out of budgets: all or nothing, never more than there is, by every number."""

from typing import Any

import pytest

from ledger.access.configured import Configured
from ledger.access.registry import Registry
from ledger.budgets.book import Book
from ledger.budgets.granting import (
    Grant,
    account_now,
    decide,
    decide_hold,
    grant_again,
    overdrawn,
)
from ledger.budgets.messages import Ask, HoldAsk, Lease, Shortage, Want
from ledger.budgets.names import account_id, bounded, budget_of, for_every_id, parts_of, period_of
from ledger.budgets.windows import window_at
from schemas.access import Budget
from schemas.budget_events import BudgetReset, LeaseGranted, Movement
from schemas.call import Tenant
from tests import sample_events as sample
from tests.sample_events import NOON

MONTH = "2026-09-01"
ENDS = window_at("month", NOON, "UTC").ends_ns
SHOP = f"project:shop:month@{MONTH}.0"


def budget(scope: Any = "project", id: str = "shop", period: Any = "month", **more: Any) -> Budget:
    return Budget(**{"scope": scope, "id": id, "period": period, "limit_nano": 1000, **more})


def registry(*budgets: Budget) -> Registry:
    return Registry(Configured({}, {}, {}, {}, {one.name: one for one in budgets}))


def ask(*wants: Want, request: str = "1") -> Ask:
    return Ask("h", request, wants)


def want(need: int, like: int = 0, name: str = "project:shop:month") -> Want:
    return Want(name, need, like)


def book_with(settled: int = 0, free: int = 0, account: str = SHOP) -> Book:
    book = Book()
    book.fold(1, sample.complete("old", accounts=(account,), cost_nano=settled))
    book.fold(2, lease_event("other", "1", {account: free}))
    return book


def lease_event(holder: str, request: str, amounts: dict[str, int]) -> LeaseGranted:
    return LeaseGranted(event_id="e", time="", v=1, movements=(Movement(holder, request, amounts),))


def amount(book: Book, need: int, like: int, holders: int = 1, **more: Any) -> int | None:
    """What is granted out of a budget of 1000; None for a shortage."""
    result = decide(book, registry(budget(**more)), ask(want(need, like)), NOON, holders)
    return result.leases[0].amount if isinstance(result, Grant) else None


def test_a_lease_says_in_which_account_it_is_and_how_that_stands() -> None:
    book = book_with(settled=100, free=200)
    result = decide(book, registry(budget()), ask(want(30)), NOON)
    lease = Lease(
        budget="project:shop:month",
        account=SHOP,
        hard=True,
        limit_nano=1000,
        spent_nano=100,
        held_nano=230,
        amount=30,
        ends_ns=ENDS,
    )
    assert result == Grant((lease,), Movement("h", "1", {SHOP: 30}))
    assert book.leased(SHOP) == 200, "a decision changes nothing by itself"


def test_a_shortage_has_every_number_of_the_decision() -> None:
    result = decide(book_with(100, 200), registry(budget()), ask(want(701, 900)), NOON)
    assert result == Shortage(
        budget="project:shop:month",
        account=SHOP,
        limit_nano=1000,
        spent_nano=100,
        held_nano=200,
        needed_nano=701,
        ends_ns=ENDS,
    )


@pytest.mark.parametrize(
    ("free", "need", "like", "holders", "granted"),
    [
        (0, 10, 0, 1, 10),
        (0, 10, 50, 1, 50),
        (0, 10, 500, 1, 125),  # An eighth of 1000.
        (0, 10, 500, 4, 31),  # One of four holders.
        (0, 10, 500, 0, 125),
        (200, 10, 500, 1, 100),  # An eighth of 800.
        (960, 10, 500, 1, 10),  # Near the limit it is one call.
        (960, 40, 500, 1, 40),
        (960, 41, 500, 1, None),
        (0, 1000, 0, 4, 1000),
        (1000, 0, 500, 1, 0),
        (1000, 1, 0, 1, None),
        (0, 0, 500, 1, 125),
        (0, -5, -7, 1, 0),
    ],
)
def test_a_lease_is_at_least_what_is_needed_and_at_most_a_share_of_what_is_left(
    free: int, need: int, like: int, holders: int, granted: int | None
) -> None:
    assert amount(book_with(free=free), need, like, holders) == granted


def test_a_call_that_costs_nothing_needs_nothing_of_a_budget_that_is_overdrawn() -> None:
    book = book_with(settled=2000)
    assert amount(book, need=0, like=100) == 0
    assert amount(book, need=1, like=100) is None
    assert amount(Book(), need=0, like=0, limit_nano=0) == 0
    assert amount(Book(), need=1, like=0, limit_nano=0) is None


def test_a_soft_budget_names_its_account_and_refuses_nothing() -> None:
    book = book_with(settled=2000)
    result = decide(book, registry(budget(hard_stop=False)), ask(want(30, 90)), NOON)
    assert isinstance(result, Grant)
    [lease] = result.leases
    assert (lease.account, lease.hard, lease.amount, lease.spent_nano) == (SHOP, False, 0, 2000)
    assert result.movement.amounts == {}


def test_all_wants_are_granted_or_none_and_the_first_shortage_is_told() -> None:
    ample, scarce, empty = (budget(id=id) for id in ("ample", "scarce", "empty"))
    catalog = registry(ample, scarce, empty)
    book = book_with(settled=995, account=f"{scarce.name}@{MONTH}.0")
    book.fold(3, sample.complete("x", accounts=(f"{empty.name}@{MONTH}.0",), cost_nano=1000))
    wants = [want(10, name=one.name) for one in (ample, scarce, empty)]
    result = decide(book, catalog, ask(*wants), NOON)
    assert isinstance(result, Shortage)
    assert (result.budget, result.spent_nano, result.needed_nano) == (scarce.name, 995, 10)
    granted = decide(book, catalog, ask(want(10, name=ample.name), want(5, name=scarce.name)), NOON)
    assert isinstance(granted, Grant)
    assert granted.movement.amounts == {
        f"{ample.name}@{MONTH}.0": 10,
        f"{scarce.name}@{MONTH}.0": 5,
    }


def test_two_wants_of_one_account_cannot_have_the_same_money() -> None:
    catalog = registry(budget())
    assert isinstance(decide(Book(), catalog, ask(want(600), want(500)), NOON), Shortage)
    result = decide(Book(), catalog, ask(want(600), want(400)), NOON)
    assert isinstance(result, Grant)
    assert result.movement.amounts == {SHOP: 1000}


def test_what_was_granted_a_moment_ago_is_not_granted_again() -> None:
    book, catalog = Book(), registry(budget())
    first = decide(book, catalog, ask(want(600)), NOON)
    assert isinstance(first, Grant)
    book.apply(first.movement)
    second = ask(want(600), request="2")
    assert isinstance(decide(book, catalog, second, NOON), Shortage)
    book.withdraw(first.movement)
    assert isinstance(decide(book, catalog, second, NOON), Grant)


def test_a_budget_that_is_gone_is_neither_leased_nor_named() -> None:
    result = decide(Book(), registry(budget()), ask(want(1, name="team:x:day"), want(2)), NOON)
    assert isinstance(result, Grant)
    assert [lease.budget for lease in result.leases] == ["project:shop:month"]


def test_the_account_is_that_of_the_period_in_the_zone_and_of_the_epoch() -> None:
    book, catalog = Book(), registry(budget(period="day"))
    book.fold(1, BudgetReset(event_id="e", time="", v=1, budget="project:shop:day", epoch=3))
    late = 1_790_000_000_000_000_000 + 9 * 3600 * 1_000_000_000
    found = [
        account_now(book, catalog, "project:shop:day", late, zone) for zone in ("UTC", "Asia/Tokyo")
    ]
    assert [one and one[0] for one in found] == [
        "project:shop:day@2026-09-21.3",
        "project:shop:day@2026-09-22.3",
    ]
    assert account_now(book, catalog, "project:other:day", late) is None


def test_a_new_period_has_the_whole_limit_again() -> None:
    book = book_with(settled=1000)
    assert ENDS is not None
    catalog = registry(budget())
    assert isinstance(decide(book, catalog, ask(want(1)), ENDS - 1), Shortage)
    assert isinstance(decide(book, catalog, ask(want(1000)), ENDS), Grant)


def test_a_limit_below_what_is_spent_and_leased_grants_nothing_and_asks_for_a_recall() -> None:
    book = book_with(settled=100, free=200)
    assert not overdrawn(book, registry(budget(limit_nano=300)), SHOP)
    assert overdrawn(book, registry(budget(limit_nano=299)), SHOP)
    assert not overdrawn(book, registry(budget(limit_nano=299, hard_stop=False)), SHOP)
    assert not overdrawn(book, registry(), SHOP)
    assert amount(book, 1, 0, limit_nano=299) is None


def test_a_further_attempt_holds_only_what_is_there() -> None:
    soft = budget("team", "t", hard_stop=False)
    catalog, book = registry(budget(), soft), book_with(settled=100, free=200)
    accounts = (f"team:t:month@{MONTH}.0", SHOP, f"user:gone:month@{MONTH}.0")
    assert decide_hold(book, catalog, HoldAsk("a", "1", 700, accounts), NOON) is None
    assert decide_hold(book, catalog, HoldAsk("a", "1", 701, accounts), NOON) == Shortage(
        budget="project:shop:month",
        account=SHOP,
        limit_nano=1000,
        spent_nano=100,
        held_nano=200,
        needed_nano=701,
        ends_ns=ENDS,
    )


def test_a_repeated_ask_is_answered_with_what_it_got() -> None:
    book, catalog = Book(), registry(budget(), budget("team", "t", hard_stop=False))
    question = ask(want(30), want(30, name="team:t:month"), want(1, name="user:gone:day"))
    first = decide(book, catalog, question, NOON)
    assert isinstance(first, Grant)
    book.fold(1, lease_event("h", "1", first.movement.amounts))
    got = book.granted("h", "1")
    assert got is not None
    assert grant_again(book, catalog, question, got, NOON) == first
    assert ENDS is not None
    [after, _] = grant_again(book, catalog, question, got, ENDS).leases
    assert (after.account, after.amount, after.ends_ns) == (SHOP, 30, ENDS), "it has ended"


@pytest.fixture
def catalog() -> Registry:
    return registry(
        budget("global", ""),
        budget("user", "*", limit_nano=50),
        budget("user", "*", "day", limit_nano=5),
        budget("user", "ana", limit_nano=70),
        budget("key", "*", hard_stop=False),
    )


def test_every_id_has_an_account_of_its_own_under_a_budget_for_all(catalog: Registry) -> None:
    result = decide(
        Book(),
        catalog,
        ask(want(50, name="user:bob:month"), want(70, name="user:ana:month")),
        NOON,
    )
    assert isinstance(result, Grant)
    assert result.movement.amounts == {
        f"user:bob:month@{MONTH}.0": 50,
        f"user:ana:month@{MONTH}.0": 70,
    }


def test_ids_that_nobody_recorded_share_an_account_past_the_most(catalog: Registry) -> None:
    book = book_with(settled=1, account=f"user:bob:month@{MONTH}.0")
    names = ["user:bob:month", "user:eve:month", "user:ana:month", "user:zoe:month"]

    def accounts(most: int) -> list[str]:
        found = (account_now(book, catalog, name, NOON, most_accounts=most) for name in names)
        return [budget_of(one[0]) for one in found if one]

    assert accounts(most=2) == names
    assert accounts(most=1) == [
        "user:bob:month",
        "user:*:month",
        "user:ana:month",
        "user:*:month",
    ]
    question = ask(want(30, name="user:eve:month"), want(30, name="user:zoe:month"))
    shared = decide(book, catalog, question, NOON, most_accounts=1)
    assert isinstance(shared, Shortage)
    assert (shared.budget, shared.limit_nano, shared.held_nano) == ("user:zoe:month", 50, 30)
    question = ask(want(30, name="user:eve:month"))
    result = decide(book, catalog, question, NOON, most_accounts=1)
    assert isinstance(result, Grant)
    amounts = result.movement.amounts
    assert amounts == {f"user:*:month@{MONTH}.0": 30}
    [lease] = grant_again(book, catalog, question, amounts, NOON, most_accounts=1).leases
    assert (lease.amount, lease.ends_ns) == (30, ENDS)


def names_for(registry: Registry, **tenant: str) -> list[tuple[str, int]]:
    return [(one.name, one.limit_nano) for one in registry.budgets_for(Tenant(**tenant))]


def test_a_call_is_charged_to_all_budgets_that_apply_to_it(catalog: Registry) -> None:
    assert names_for(catalog) == [("global:month", 1000)]
    assert names_for(catalog, user="ana", key_id="k", team="t", project="p") == [
        ("global:month", 1000),
        ("user:ana:month", 70),
        ("user:ana:day", 5),
        ("key:k:month", 1000),
    ]
    assert names_for(catalog, user="bob")[1:] == [("user:bob:day", 5), ("user:bob:month", 50)]
    assert names_for(catalog, user="*")[1:] == [("user:*:day", 5), ("user:*:month", 50)]


def test_a_budget_is_found_by_its_name_and_by_way_of_that_for_all(catalog: Registry) -> None:
    for name in (
        "user:ana:month",
        "user:bob:month",
        "user:a:b:month",
        "global:month",
        "user:*:day",
    ):
        found = catalog.budget_named(name)
        assert found is not None
        assert found.name == name
    assert catalog.budget_named("user:ana:week") is None
    assert catalog.budget_named("global:day") is None
    assert [catalog.has_budget(f"user:{id}:month") for id in ("ana", "bob", "*")] == [
        True,
        False,
        True,
    ]


def test_the_index_follows_what_is_set_and_removed() -> None:
    found = registry(budget(limit_nano=1))
    for event in (
        sample.budget_set(budget(limit_nano=2)),
        sample.budget_set(budget(period="day", limit_nano=3)),
        sample.budget_set(budget("team", "*", limit_nano=4)),
    ):
        found.take(sample.stored(found.seq + 1, event))
    shop = {"project": "shop", "team": "t"}
    assert names_for(found, **shop) == [
        ("team:t:month", 4),
        ("project:shop:day", 3),
        ("project:shop:month", 1),
    ]
    fresh = registry(budget(limit_nano=1))
    for entry in found.entries():
        fresh.restore(entry)
    other = registry(budget(limit_nano=1))
    other.become(fresh)
    assert names_for(other, **shop) == names_for(found, **shop)
    for name in ("project:shop:month", "project:shop:day", "team:*:month", "team:x:month"):
        found.take(sample.stored(found.seq + 1, sample.budget_removed(name)))
    assert names_for(found, **shop) == [("project:shop:month", 1)]


def test_an_id_that_is_too_long_is_hashed() -> None:
    found, long = registry(budget("user", "*")), "x" * 129
    [name] = [one.name for one in found.budgets_for(Tenant(user=long))]
    assert name == f"user:{bounded(long)}:month"
    assert len(name) < 90
    assert bounded(long) != bounded(long + "x")
    assert bounded("x" * 128) == "x" * 128
    assert bounded("\ud800" * 200).startswith("=h")


@pytest.mark.parametrize("id", ["shop", "a:b", "a@b.example", "*", "auth0|17", "x@2026-01-01.0"])
def test_an_account_name_tells_its_parts(id: str) -> None:
    name = budget(id=id).name
    account = account_id(name, MONTH, 12)
    assert parts_of(account) == (name, MONTH, 12)
    assert (budget_of(account), period_of(name)) == (name, "month")
    assert for_every_id(name) == "project:*:month"


def test_what_is_no_account_name_has_no_parts() -> None:
    assert [parts_of(text) for text in ("", "x", "x@y", "x@y.z", "x.1")] == [None] * 5
    assert for_every_id("global:day") is None
