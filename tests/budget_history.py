"""What ingresses, workers and a governor write about money, made up by chance."""

import random
from typing import Any

from schemas.budget_events import (
    BudgetReset,
    BudgetWarning,
    HoldTaken,
    LeaseExpired,
    LeaseGranted,
    LeaseReturned,
    Movement,
)
from schemas.event import Event
from schemas.events import Outcome
from schemas.ids import rfc3339
from tests import sample_events as sample
from tests.sample_events import NOON, SECOND
from tests.warehouse import new_id

EVERY = 20 * SECOND
KEPT = 780
ACCOUNTS = (
    "project:shop:month@2026-11-01.0",
    "project:shop:month@2026-11-01.1",
    "user:ana:day@2026-11-21.0",
    "user:*:day@2026-11-21.0",
    "global:total@all.1",
)
ENDS: tuple[Any, ...] = (sample.complete, sample.failed, sample.cancelled, sample.lost)
ATTEMPTS: tuple[Any, ...] = (sample.attempt_failed, sample.attempt_abandoned, sample.attempt_late)


class History:
    """What three ingresses and a governor write, an event every 20 seconds."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.events: list[Any] = []
        self.holders = ["h1", "h2", "h3"]
        self.events.append(LeaseGranted(**self.head(), movements=self.movements(*self.holders)))
        self.open: list[tuple[str, tuple[str, ...]]] = []
        self.calls = 0

    @property
    def now(self) -> int:
        return NOON + len(self.events) * EVERY

    def head(self, **fields: Any) -> dict[str, Any]:
        return {"event_id": new_id(), "time": rfc3339(self.now), "v": 1, **fields}

    def accounts(self) -> tuple[str, ...]:
        return tuple(self.chance.choices(ACCOUNTS, k=self.chance.randint(1, 4)))

    def movements(self, *holders: str) -> tuple[Movement, ...]:
        return tuple(
            Movement(
                holder, new_id(), {one: self.chance.randint(-5, 100) for one in self.accounts()}
            )
            for holder in holders or self.chance.choices(self.holders, k=self.chance.randint(1, 3))
        )

    def grow(self) -> None:
        kinds = (
            *(self.grant, self.give_back, self.start, self.start, self.start, self.early),
            *(self.end, self.end, self.attempt, self.attempt, self.hold, self.copy),
            *(self.reset, self.warn, self.expire),
        )
        event = self.chance.choice(kinds)()
        if event is not None:
            self.events.append(event)

    def grant(self) -> Event:
        return self.moved(LeaseGranted)

    def give_back(self) -> Event:
        return self.moved(LeaseReturned)

    def moved(self, kind: Any) -> Event:
        """Some of the movements just before were heard twice."""
        last = self.events[-1]
        again = last.movements if isinstance(last, kind) else ()
        event: Event = kind(**self.head(), movements=(*again, *self.movements()))
        return event

    def start(self) -> Event:
        self.calls += 1
        call, accounts = f"c{self.calls}", self.accounts()
        self.open.append((call, accounts))
        alert = self.chance.choice((None, 10, 10**6))
        return self.call(sample.start, call, accounts, hold_nano=self.chance.randint(-2, 60),
                         holder=self.chance.choice((*self.holders, "stranger")),
                         alert_nano=alert)  # fmt: skip

    def call(self, kind: Any, call: str, accounts: tuple[str, ...], **fields: Any) -> Event:
        event: Event = kind(call, self.now, event_id=new_id(), accounts=accounts, **fields)
        return event

    def money(self) -> dict[str, Any]:
        return {
            "cost_nano": self.chance.choice((None, 0, 3, 12_345, -2)),
            "billed_to": self.chance.choice(("", "", "client")),
        }

    def early(self) -> Event:
        """A refusal before the start, which may follow."""
        self.calls += 1
        call, accounts = f"c{self.calls}", self.accounts()
        self.events.append(self.call(sample.rejected, call, accounts, cost_nano=4))
        return self.call(sample.start, call, accounts, holder="h1", hold_nano=9)

    def end(self) -> Event | None:
        if not self.open:
            return None
        call, accounts = self.open.pop(self.chance.randrange(len(self.open)))
        return self.call(self.chance.choice(ENDS), call, accounts, **self.money())

    def attempt(self) -> Event | None:
        if not self.open:
            return None
        call, accounts = self.chance.choice(self.open)
        return self.call(self.chance.choice(ATTEMPTS), call, accounts, **self.money())

    def hold(self) -> Event | None:
        if not self.open:
            return None
        call, _ = self.chance.choice(self.open)
        return HoldTaken(**self.head(), call_id=call, hold_nano=self.chance.randint(-2, 30))

    def copy(self) -> Event | None:
        recent, before = self.events[-KEPT // 20 :], self.events[: -KEPT // 20]
        outcomes = [one for one in recent if isinstance(one, Outcome) and one not in before]
        return self.chance.choice(outcomes) if outcomes else None

    def reset(self) -> Event:
        budget = self.chance.choice(("project:shop:month", "user:*:day", "user:ana:day"))
        return BudgetReset(**self.head(), budget=budget, epoch=self.chance.randint(0, 3))

    def warn(self) -> Event:
        return BudgetWarning(**self.head(), account=self.chance.choice(ACCOUNTS))

    def expire(self) -> Event | None:
        if self.chance.random() < 0.7:
            return None
        gone = self.chance.randrange(len(self.holders))
        self.events.append(LeaseExpired(**self.head(), holder=self.holders[gone]))
        self.holders[gone] += "'"
        return LeaseGranted(**self.head(), movements=self.movements(self.holders[gone]))
