"""What everything has at hand that decides about budgets, and how long a shortage may wait."""

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ledger.access.registry import Registry
from ledger.budgets.book import Book
from ledger.budgets.door import Reply
from ledger.budgets.rates import Rates
from ledger.budgets.recalls import Recalls
from ledger.connection import Connection
from ledger.fenced import Fenced
from ledger.fold import Fold
from schemas.ids import Clock, rfc3339

RECALLED_WITHIN = 0.05

_Question = TypeVar("_Question")


@dataclass(frozen=True, slots=True)
class Desk:
    """Shared by all of a lessor's parts; `zone` is where the days of budgets begin."""

    connection: Connection
    ledger: Fenced
    fold: Fold
    catalog: Registry
    rates: Rates
    recalls: Recalls
    clock: Clock
    zone: str = "UTC"

    @property
    def book(self) -> Book:
        return self.fold.book

    def new_event(self) -> dict[str, Any]:
        """What an event of the governor begins with."""
        now = self.clock.now_ns()
        return {"event_id": self.clock.new_id(), "time": rfc3339(now), "v": 1}


@dataclass(slots=True, eq=False)
class Waiting(Generic[_Question]):
    """A question on its way to an answer; whoever repeats it meanwhile gets the same."""

    question: _Question
    replies: list[Reply] = field(default_factory=list)
    until: float | None = None

    def may_wait(self, desk: Desk, account: str) -> bool:
        """Whether a shortage is not final yet: at the first one idle leases are recalled, and for a
        moment it may be that they come."""
        now = desk.clock.monotonic()
        if self.until is None:
            self.until = now + RECALLED_WITHIN
            desk.recalls.recall((account,))
        return now < self.until
