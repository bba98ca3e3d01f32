"""How budgets stand, as people see it: money in dollars, times in UTC, null where nobody knows."""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from ingress.governor_client import GovernorClient
from ledger.budgets.messages import BudgetState
from ledger.budgets.windows import window_at
from schemas.access import Budget, Period, moment
from schemas.errors import Unavailable
from schemas.money import usd


class Money(msgspec.Struct, frozen=True):
    """What stands in a budget's account. `held_usd` is what is leased to ingresses or held for open
    calls, `remaining_usd` what is left for others."""

    spent_usd: float | None = None
    held_usd: float | None = None
    remaining_usd: float | None = None


class Bounds(msgspec.Struct, frozen=True):
    """When the present period began and when the next one does; both null for `total`."""

    period_start: datetime | None
    period_end: datetime | None


class Known(msgspec.Struct, frozen=True):
    """The governor's answer: states by the name of their budget, as of a sequence of the ledger;
    nothing and None where it did not answer."""

    states: dict[str, BudgetState]
    as_of_seq: int | None

    def money(self, name: str) -> Money:
        """What stands in the account of a budget."""
        state = self.states.get(name)
        return Money() if state is None else money_of(state)


async def ask(governor: GovernorClient, names: Iterable[str] = ()) -> Known:
    """What the governor says of budgets (none named: of all); never an error."""
    try:
        found = await governor.states(tuple(names))
    except Unavailable:
        return Known({}, None)
    return Known({state.budget: state for state in found.budgets}, found.seq)


def money_of(state: BudgetState) -> Money:
    """Of one state."""
    left = state.limit_nano - state.spent_nano - state.held_nano
    return Money(usd(state.spent_nano), usd(state.held_nano), usd(max(0, left)))


def bounds(period: Period, now_ns: int, zone: str) -> Bounds:
    """Of the period that an instant is in, as the days of `zone` have it."""
    window = window_at(period, now_ns, zone)
    if window.ends_ns is None:
        return Bounds(None, None)
    return Bounds(moment(window.starts_ns), moment(window.ends_ns))


class ScopeBudget(msgspec.Struct, frozen=True, kw_only=True):
    """A budget and how it stands; `id` is null for the scope global, `resets_at` for `total`."""

    scope: str
    id: str | None
    period: Period
    limit_usd: float
    spent_usd: float | None
    held_usd: float | None
    remaining_usd: float | None
    resets_at: datetime | None
    hard_stop: bool


def of_state(state: BudgetState) -> ScopeBudget:
    """As the governor tells it."""
    return ScopeBudget(
        scope=state.scope,
        id=state.id or None,
        period=state.period,
        limit_usd=usd(state.limit_nano),
        **msgspec.structs.asdict(money_of(state)),
        resets_at=None if state.ends_ns is None else moment(state.ends_ns),
        hard_stop=state.hard,
    )


def of_budget(budget: Budget, now_ns: int, zone: str) -> ScopeBudget:
    """As far as it is known without the governor."""
    return ScopeBudget(
        scope=budget.scope,
        id=budget.id or None,
        period=budget.period,
        limit_usd=usd(budget.limit_nano),
        **msgspec.structs.asdict(Money()),
        resets_at=bounds(budget.period, now_ns, zone).period_end,
        hard_stop=budget.hard_stop,
    )
