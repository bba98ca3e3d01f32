"""A plain model of budgets: what ingresses really have, what calls hold, what was spent."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from schemas.access import Budget
from schemas.budget_events import Movement
from tests.sample_events import NOON, SECOND

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


class Model:
    """All money by account; `decided` is what was granted and is not in the ledger yet."""

    def __init__(self) -> None:
        self.now_ns = NOON
        self.limits = {one.name: one.limit_nano for one in RECORDS}
        self.highest = dict(self.limits)
        self.decided: list[Movement] = []
        self.ingresses = [Ingress(f"h{number}") for number in range(HOLDERS)]
        self.ghosts: list[Ingress] = []
        self.calls: list[Call] = []
        self.spent: Counter[str] = Counter()
        # What no bound promised: costs above a hold or after the end, calls of silent holders.
        self.excess: Counter[str] = Counter()
        self.epochs: Counter[str] = Counter()
        self.numbers = 0

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

    def set_limit_of(self, budget: Budget) -> None:
        self.limits[budget.name] = budget.limit_nano
        self.highest[budget.name] = max(budget.limit_nano, self.highest[budget.name])

    def highest_limit(self, budget: str) -> int:
        """The highest that a budget has ever had."""
        return self.highest[EVERY_USER if budget.startswith("user:") else budget]

    def leased(self, account: str) -> int:
        """All that is out of an account, by what everybody really has."""
        return (
            sum(movement.amounts.get(account, 0) for movement in self.decided)
            + sum(one.has()[account] for one in self.ingresses)
            + self.held(account)
        )

    def held(self, account: str) -> int:
        return sum(call.held for call in self.calls if call.is_open and account in call.accounts)

    def room(self, budget: str) -> int:
        account = self.account(budget)
        return self.limit(budget) - self.spent[account] - self.leased(account)

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

    def accounts(self) -> set[str]:
        named = {account for call in self.calls for account in call.accounts}
        return named | {account for one in self.ingresses for account in one.has()}
