"""The purse of an ingress: what may be taken at once, what is missing, what goes back."""

import pytest

from ingress.purse import SECOND, Missing, Purse, Taken
from ledger.budgets.messages import Lease, Want
from schemas.access import Budget, BudgetScope
from tests.sample_events import NOON

MONTH = "2026-09-01"
ENDS = NOON + 3600 * SECOND
SHOP = "project:shop:month"
SHOP_ACCOUNT = f"{SHOP}@{MONTH}.0"


def budget(scope: BudgetScope = "project", id: str = "shop", hard: bool = True) -> Budget:
    return Budget(scope=scope, id=id, period="month", limit_nano=10_000, hard_stop=hard)


def lease(
    amount: int = 0,
    *,
    name: str = SHOP,
    account: str = "",
    hard: bool = True,
    ends_ns: int | None = ENDS,
) -> Lease:
    return Lease(
        budget=name,
        account=account or f"{name}@{MONTH}.0",
        hard=hard,
        limit_nano=10_000,
        spent_nano=0,
        held_nano=amount,
        amount=amount,
        ends_ns=ends_ns,
    )


def put(purse: Purse, granted: Lease, need: int = 0, like: int = 0, now: int = NOON) -> object:
    return purse.put(Want(granted.budget, need, like), granted, now, now)


def purse_with(*leases: Lease) -> Purse:
    purse = Purse("h1")
    for granted in leases:
        put(purse, granted)
    return purse


def test_a_call_takes_its_hold_from_every_hard_budget() -> None:
    purse = purse_with(lease(100), lease(80, name="global:month"))
    taken = purse.take((budget(), budget("global", "")), 60, NOON)
    assert taken == Taken(
        (SHOP_ACCOUNT, f"global:month@{MONTH}.0"),
        "h1",
        60,
        (SHOP_ACCOUNT, f"global:month@{MONTH}.0"),
    )
    assert (purse.free(SHOP), purse.free("global:month")) == (40, 20)


def test_what_one_budget_lacks_is_taken_from_none() -> None:
    purse = purse_with(lease(100), lease(50, name="global:month"))
    both = (budget(), budget("global", ""))
    assert purse.take(both, 60, NOON) == Missing({"global:month": 60})
    assert purse.take((*both, budget("team", "retail", hard=False)), 60, NOON) == Missing(
        {"global:month": 60, "team:retail:month": 0}
    )
    assert (purse.free(SHOP), purse.free("global:month")) == (100, 50)


def test_a_soft_budget_only_names_its_account() -> None:
    purse = purse_with(lease(hard=False))
    assert purse.take((budget(hard=False),), 60, NOON) == Taken((SHOP_ACCOUNT,), "", 60)


def test_the_governor_decides_whether_a_budget_is_hard() -> None:
    purse = purse_with(lease(hard=False))
    assert isinstance(purse.take((budget(),), 60, NOON), Taken)
    assert purse.take((budget(),), 60, NOON + 2 * SECOND) == Missing({SHOP: 60})
    purse = purse_with(lease(50))
    assert purse.take((budget(hard=False),), 60, NOON) == Missing({SHOP: 60})


def test_a_call_that_costs_nothing_passes_an_empty_budget() -> None:
    purse = purse_with(lease(0))
    assert isinstance(purse.take((budget(),), 0, NOON), Taken)
    assert purse.take((budget(),), 1, NOON) == Missing({SHOP: 1})


def test_a_lease_ends_with_its_period_and_the_rest_of_it_is_returned() -> None:
    purse = purse_with(lease(100))
    assert isinstance(purse.take((budget(),), 10, ENDS - 1), Taken)
    assert purse.take((budget(),), 10, ENDS) == Missing({SHOP: 10})
    following = lease(40, account=f"{SHOP}@2026-10-01.0", ends_ns=None)
    assert put(purse, following, now=ENDS) == {SHOP_ACCOUNT: 90}
    taken = purse.take((budget(),), 40, ENDS)
    assert isinstance(taken, Taken)
    assert taken.accounts == (f"{SHOP}@2026-10-01.0",)


def test_a_lease_of_an_ended_period_is_returned_even_if_nothing_follows() -> None:
    purse = purse_with(lease(100))
    assert purse.surplus(5 * SECOND, ENDS - 1) == {SHOP_ACCOUNT: 100}
    purse = purse_with(lease(100))
    assert purse.surplus(10_000 * SECOND, ENDS) == {SHOP_ACCOUNT: 100}


def test_a_late_grant_of_an_earlier_account_goes_back() -> None:
    purse = purse_with(lease(40, account=f"{SHOP}@{MONTH}.1"))
    assert put(purse, lease(70)) == {SHOP_ACCOUNT: 70}
    assert purse.free(SHOP) == 40


def test_what_was_reset_is_gone_and_what_was_asked_before_it_too() -> None:
    purse = purse_with(lease(100))
    purse.drop((SHOP_ACCOUNT,), NOON + 5)
    assert purse.take((budget(),), 10, NOON + 6) == Missing({SHOP: 10})
    assert put(purse, lease(70), now=NOON + 4) == {}
    assert purse.free(SHOP) == 0
    assert purse.known_account(SHOP, NOON + 6) is None
    assert purse.known_epoch(SHOP) == 1
    put(purse, lease(30, account=f"{SHOP}@{MONTH}.1"), now=NOON + 7)
    assert isinstance(purse.take((budget(),), 30, NOON + 8), Taken)


def test_a_reset_for_every_id_closes_the_accounts_of_each() -> None:
    name = "user:ana:month"
    purse = purse_with(lease(100, name=name), lease(50))
    purse.drop((f"user:*:month@{MONTH}.0",), NOON)
    assert purse.free(name) == 0
    assert purse.known_epoch(name) == 1
    assert purse.free(SHOP) == 50


def test_ids_without_number_share_an_account() -> None:
    shared = f"user:*:month@{MONTH}.0"
    purse = purse_with(
        lease(30, name="user:ana:month", account=shared),
        lease(20, name="user:bob:month", account=shared),
    )
    taken = purse.take((budget("user", "bob"),), 15, NOON)
    assert isinstance(taken, Taken)
    assert taken.leased == (shared,)
    purse.give_back(taken)
    assert purse.recall((shared,)) == {shared: 50}


def test_what_is_given_back_can_be_taken_again() -> None:
    purse = purse_with(lease(100))
    taken = purse.take((budget(),), 100, NOON)
    assert isinstance(taken, Taken)
    purse.give_back(taken)
    assert purse.free(SHOP) == 100


def test_what_another_holder_had_is_not_given_back() -> None:
    purse = purse_with(lease(100))
    taken = purse.take((budget(),), 60, NOON)
    assert isinstance(taken, Taken)
    purse.begin("h2")
    assert purse.take((budget(),), 10, NOON) == Missing({SHOP: 10})
    purse.give_back(taken)
    assert purse.free(SHOP) == 0
    assert purse.known_account(SHOP, NOON) == SHOP_ACCOUNT


def test_a_recall_takes_all_that_is_free_in_its_accounts_only() -> None:
    purse = purse_with(lease(100), lease(50, name="global:month"))
    assert purse.recall((SHOP_ACCOUNT, "project:other:month@all.0")) == {SHOP_ACCOUNT: 100}
    assert (purse.free(SHOP), purse.free("global:month")) == (0, 50)
    assert purse.empty() == {f"global:month@{MONTH}.0": 50}


def test_more_is_asked_for_once_half_of_a_grant_is_gone() -> None:
    purse = purse_with(lease(100))
    purse.take((budget(),), 50, NOON)
    assert not purse.low
    purse.take((budget(),), 1, NOON)
    assert purse.low == {SHOP}
    purse.low.clear()
    purse.take((budget(),), 1, NOON)
    assert not purse.low


def test_what_is_liked_follows_the_recent_use() -> None:
    purse = purse_with(lease(100_000))
    for step in range(1000):
        purse.take((budget(),), 10, NOON + step * SECOND // 500)
    [want] = purse.wants({SHOP: 0}, 0, NOON + 2 * SECOND)
    assert want.like == pytest.approx(2500, rel=0.05)
    [later] = purse.wants({SHOP: 0}, 0, NOON + 20 * SECOND)
    assert later.like == 250


def test_what_waits_is_liked_too() -> None:
    [want] = Purse("h1").wants({SHOP: 10}, 300, NOON)
    assert want == Want(SHOP, 10, 300)


def test_after_a_grant_of_no_more_than_the_need_no_more_is_asked_for_a_second() -> None:
    purse = Purse("h1")
    put(purse, lease(10), need=10, like=20)
    assert purse.wants({SHOP: 10}, 300, NOON + SECOND - 1) == (Want(SHOP, 10, 10),)
    assert purse.wants({SHOP: 10}, 300, NOON + SECOND) == (Want(SHOP, 10, 300),)
    purse.take((budget(),), 10, NOON)
    assert not purse.low


def test_idle_money_is_returned_and_busy_money_stays() -> None:
    purse = purse_with(lease(100_000), lease(500, name="global:month"))
    for step in range(500):
        purse.take((budget(),), 10, NOON + step * SECOND // 50)
    assert purse.surplus(5 * SECOND, NOON + 10 * SECOND) == {f"global:month@{MONTH}.0": 500}
    returned = purse.surplus(5 * SECOND, NOON + 16 * SECOND)
    assert returned == {SHOP_ACCOUNT: 95_000}
    assert purse.free(SHOP) == 0


def test_names_that_nobody_used_for_a_minute_are_forgotten() -> None:
    purse = purse_with(lease(hard=False))
    purse.surplus(5 * SECOND, NOON + 60 * SECOND)
    assert purse.known_account(SHOP, NOON) == SHOP_ACCOUNT
    purse.surplus(5 * SECOND, NOON + 61 * SECOND)
    assert purse.known_account(SHOP, NOON) is None
