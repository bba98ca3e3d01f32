"""What the governor grants out of budgets: decided from the book alone, all or nothing."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ledger.budgets.book import Book
from ledger.budgets.messages import Ask, HoldAsk, Lease, Shortage, Want
from ledger.budgets.names import account_id, budget_of, for_every_id
from ledger.budgets.windows import Window, window_at
from schemas.access import Budget
from schemas.budget_events import Movement

MOST_ACCOUNTS = 100_000
# One lease is at most this share of what is left, over all holders.
_SHARE = 8


class Catalog(Protocol):
    """Which budgets there are: `ledger.access.registry.Registry` is one."""

    def budget_named(self, name: str) -> Budget | None:
        """A budget, `user:ana:month` also by way of `user:*:month`."""
        ...

    def has_budget(self, name: str) -> bool:
        """Whether a budget of this very name is recorded."""
        ...


class Grant(NamedTuple):
    """A lease for every want whose budget exists, and what moves: `movement` has the accounts
    with an amount, and none where nothing is leased."""

    leases: tuple[Lease, ...]
    movement: Movement


def decide(
    book: Book,
    catalog: Catalog,
    ask: Ask,
    now_ns: int,
    holders: int = 1,
    zone: str = "UTC",
    most_accounts: int = MOST_ACCOUNTS,
) -> Grant | Shortage:
    """Grant all wants of an ask, or the first that there is not enough left for.

    `holders` is how many there are to share with. The book is not changed: `Book.apply` the
    movement, so that the next decision sees it. The wants of a budget that does not exist any more
    are passed over.
    """
    leases: list[Lease] = []
    amounts: dict[str, int] = {}
    for want in ask.wants:
        budget = catalog.budget_named(want.budget)
        if budget is None:
            continue
        window = window_at(budget.period, now_ns, zone)
        account = _account(book, catalog, want.budget, window, most_accounts)
        leased = book.leased(account) + amounts.get(account, 0)
        lease = _lease(book, budget, want, account, window, leased, holders)
        if isinstance(lease, Shortage):
            return lease
        leases.append(lease)
        if lease.amount:
            amounts[account] = amounts.get(account, 0) + lease.amount
    return Grant(tuple(leases), Movement(ask.holder, ask.request, amounts))


def _lease(
    book: Book,
    budget: Budget,
    want: Want,
    account: str,
    window: Window,
    leased: int,
    holders: int,
) -> Lease | Shortage:
    settled = book.settled(account)
    amount = 0
    if budget.hard_stop:
        room = max(budget.limit_nano - settled - leased, 0)
        need = max(want.need, 0)
        if need > room:
            return Shortage(
                budget=want.budget,
                account=account,
                limit_nano=budget.limit_nano,
                spent_nano=settled,
                held_nano=leased,
                needed_nano=need,
                ends_ns=window.ends_ns,
            )
        amount = max(need, min(want.like, room // (_SHARE * max(holders, 1))))
    return Lease(
        budget=want.budget,
        account=account,
        hard=budget.hard_stop,
        limit_nano=budget.limit_nano,
        spent_nano=settled,
        held_nano=leased + amount,
        amount=amount,
        ends_ns=window.ends_ns,
    )


def _account(book: Book, catalog: Catalog, name: str, window: Window, most_accounts: int) -> str:
    """The budget's account now. Ids that nobody has recorded cannot make accounts without end:
    past `most_accounts`, new ones share the account of the `*` budget itself."""
    account = account_id(name, window.label, book.epoch(name))
    if book.account_count < most_accounts or book.knows(account) or catalog.has_budget(name):
        return account
    every = for_every_id(name) or name
    return account_id(every, window.label, book.epoch(every))


def account_now(
    book: Book,
    catalog: Catalog,
    name: str,
    now_ns: int,
    zone: str = "UTC",
    most_accounts: int = MOST_ACCOUNTS,
) -> tuple[str, Window] | None:
    """The account that a budget's calls are charged to now, and its window; None for a budget that
    does not exist."""
    budget = catalog.budget_named(name)
    if budget is None:
        return None
    window = window_at(budget.period, now_ns, zone)
    return _account(book, catalog, name, window, most_accounts), window


def grant_again(
    book: Book,
    catalog: Catalog,
    ask: Ask,
    amounts: Mapping[str, int],
    now_ns: int,
    zone: str = "UTC",
    most_accounts: int = MOST_ACCOUNTS,
) -> Grant:
    """The answer to a repeated ask, from what it got (`Book.granted`). A lease of an account that
    is not the budget's any more has ended."""
    leases: list[Lease] = []
    for want in ask.wants:
        budget = catalog.budget_named(want.budget)
        if budget is None:
            continue
        window = window_at(budget.period, now_ns, zone)
        now = _account(book, catalog, want.budget, window, most_accounts)
        names = (want.budget, for_every_id(want.budget))
        account = next((one for one in amounts if budget_of(one) in names), now)
        leases.append(
            Lease(
                budget=want.budget,
                account=account,
                hard=budget.hard_stop,
                limit_nano=budget.limit_nano,
                spent_nano=book.settled(account),
                held_nano=book.leased(account),
                amount=amounts.get(account, 0),
                ends_ns=window.ends_ns if account == now else window.starts_ns,
            )
        )
    return Grant(tuple(leases), Movement(ask.holder, ask.request, dict(amounts)))


def decide_hold(
    book: Book, catalog: Catalog, ask: HoldAsk, now_ns: int, zone: str = "UTC"
) -> Shortage | None:
    """Whether a further attempt of a call may hold so much more in each of the call's accounts."""
    for account in ask.accounts:
        name = budget_of(account)
        budget = catalog.budget_named(name)
        if budget is None or not budget.hard_stop:
            continue
        settled, leased = book.settled(account), book.leased(account)
        if ask.hold_nano > max(budget.limit_nano - settled - leased, 0):
            return Shortage(
                budget=name,
                account=account,
                limit_nano=budget.limit_nano,
                spent_nano=settled,
                held_nano=leased,
                needed_nano=ask.hold_nano,
                ends_ns=window_at(budget.period, now_ns, zone).ends_ns,
            )
    return None


def overdrawn(book: Book, catalog: Catalog, account: str) -> bool:
    """Whether more is spent and leased of a hard budget than its limit, as after the limit was
    lowered: idle leases of the account are to be recalled."""
    budget = catalog.budget_named(budget_of(account))
    if budget is None or not budget.hard_stop:
        return False
    return book.settled(account) + book.leased(account) > budget.limit_nano
