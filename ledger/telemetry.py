"""Counts what the ledger says: a fold of events into the numbers behind the metrics.

One process folds the one ledger, so the numbers are right over any number of ingress and worker
processes, and count from the ledger's first event on: a snapshot carries them over restarts.
"""

from bisect import bisect_left

import msgspec

from schemas.budget_events import BudgetExceeded
from schemas.events import (
    KNOWN_TYPES,
    AttemptAbandoned,
    AttemptFailed,
    AttemptLate,
    LedgerEvent,
    Outcome,
    RequestCancelled,
    RequestComplete,
    RequestFailed,
    RequestLost,
    RequestRejected,
    StreamingStart,
)
from schemas.usage import TOKEN_CLASSES

Labels = tuple[str, ...]

BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
OUTCOMES = ("complete", "failed", "cancelled", "abandoned", "late")
OTHER = "other"
PARKED = "parked"
_MODELS = 200
_LONGEST_NAME = 128
_TYPE_LABELS: dict[type, Labels] = {kind: (name,) for name, kind in KNOWN_TYPES.items()}
_STATUS: dict[type, str] = {
    RequestComplete: "complete",
    RequestFailed: "failed",
    RequestCancelled: "cancelled",
    RequestRejected: "rejected",
    RequestLost: "lost",
}
_OUTCOME: dict[type, str] = {
    RequestComplete: "complete",
    RequestFailed: "failed",
    RequestCancelled: "cancelled",
    AttemptFailed: "failed",
    AttemptAbandoned: "abandoned",
    AttemptLate: "late",
}


class Counts:
    """A counter by label values that never goes down.

    A negative amount, as a correction may be, is owed and paid by the amounts that follow.
    """

    __slots__ = ("_owed", "values")

    def __init__(self) -> None:
        self.values: dict[Labels, int] = {}
        self._owed: dict[Labels, int] = {}

    def add(self, labels: Labels, amount: int = 1) -> None:
        if amount < 0 or self._owed:
            amount -= self._owed.pop(labels, 0)
            if amount < 0:
                self._owed[labels] = -amount
                amount = 0
        self.values[labels] = self.values.get(labels, 0) + amount

    def rows(self) -> list[tuple[Labels, int, int]]:
        """Label values, the count, and what is owed."""
        return [(key, count, self._owed.get(key, 0)) for key, count in self.values.items()]

    def restore(self, rows: list[tuple[Labels, int, int]]) -> None:
        self.values = {labels: count for labels, count, _ in rows}
        self._owed = {labels: owed for labels, _, owed in rows if owed}


class Durations:
    """A histogram by label values: how many fell into each bucket, and their sum in seconds."""

    __slots__ = ("buckets", "sums")

    def __init__(self) -> None:
        self.buckets: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = {}

    def observe(self, labels: Labels, milliseconds: float) -> None:
        seconds = milliseconds / 1000
        buckets = self.buckets.get(labels)
        if buckets is None:
            buckets = self.buckets[labels] = [0] * (len(BUCKETS) + 1)
            self.sums[labels] = 0.0
        buckets[bisect_left(BUCKETS, seconds)] += 1
        self.sums[labels] += seconds

    def rows(self) -> list[tuple[Labels, list[int], float]]:
        """Label values, the count of each bucket, the sum."""
        return [(key, counts, self.sums[key]) for key, counts in self.buckets.items()]

    def restore(self, rows: list[tuple[Labels, list[int], float]]) -> None:
        self.buckets = {labels: counts for labels, counts, _ in rows}
        self.sums = {labels: total for labels, _, total in rows}


class Snapshot(msgspec.Struct, frozen=True):
    """All numbers at one sequence; histograms of other buckets than ours are not taken over."""

    counts: dict[str, list[tuple[Labels, int, int]]] = {}
    durations: dict[str, list[tuple[Labels, list[int], float]]] = {}
    buckets: tuple[float, ...] = BUCKETS


class Telemetry:
    """The numbers, each by the label values that stand beside it.

    A label names at most 200 models, those that were asked first; the rest is `other`.
    """

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.events = Counts()  # type
        self.requests = Counts()  # model, provider, status
        self.tokens = Counts()  # model, provider, class
        self.cost_nano = Counts()  # model, provider
        self.unpriced = Counts()  # model, provider
        self.errors = Counts()  # type, provider
        self.attempts = Counts()  # outcome
        self.budget_exceeded = Counts()  # nothing
        self.latency = Durations()  # model, provider
        self.first_token = Durations()  # model, provider
        if snapshot is not None:
            self._restore(snapshot)
        self._models = {labels[0] for labels in (*self.requests.values, *self.cost_nano.values)}

    def fold(self, event: LedgerEvent, is_end: bool) -> None:
        """Count one event; `is_end` is false for a further end of a call that has ended already."""
        kind = type(event)
        self.events.add(_TYPE_LABELS[kind])
        if isinstance(event, StreamingStart):
            self.first_token.observe(self._pair(event), event.ttfb_ms)
        elif isinstance(event, Outcome):
            pair = self._pair(event)
            self._count_money(pair, event)
            if is_end and kind in _STATUS:
                self._count_end(pair, event)
            self._count_attempt(pair, event, _OUTCOME.get(kind) if is_end else "late")
        elif isinstance(event, BudgetExceeded):
            self.budget_exceeded.add((), event.refused)

    def park(self) -> None:
        """Count what is no event that this version knows."""
        self.events.add((PARKED,))

    def _pair(self, event: LedgerEvent) -> Labels:
        model = event.model
        if model not in self._models:
            model = model[:_LONGEST_NAME]
            if model not in self._models:
                if len(self._models) >= _MODELS:
                    return OTHER, event.provider
                self._models.add(model)
        return model, event.provider

    def _count_money(self, pair: Labels, event: Outcome) -> None:
        if event.cost_nano:
            self.cost_nano.add(pair, event.cost_nano)
        if event.usage is not None:
            for name in TOKEN_CLASSES:
                amount = getattr(event.usage, name)
                if amount:
                    self.tokens.add((*pair, name), amount)

    def _count_end(self, pair: Labels, event: Outcome) -> None:
        self.requests.add((*pair, _STATUS[type(event)]))
        if isinstance(event, RequestComplete):
            if event.latency_ms is not None:
                self.latency.observe(pair, event.latency_ms)
        elif isinstance(event, RequestFailed | RequestRejected):
            if event.error is not None:
                self.errors.add((event.error.type, event.provider))
        elif isinstance(event, RequestLost):
            self.errors.add(("server_error", event.provider))
            self.unpriced.add(pair)

    def _count_attempt(self, pair: Labels, event: Outcome, outcome: str | None) -> None:
        """A correction belongs to an attempt that was counted before; a call that was refused or
        ended before its first attempt had none."""
        corrects = isinstance(event, AttemptLate) and event.corrects
        if outcome is None or corrects or not event.attempts:
            return
        self.attempts.add((outcome,))
        if event.cost_nano is None:
            self.unpriced.add(pair)

    def snapshot(self) -> Snapshot:
        """What a successor goes on from."""
        return Snapshot(
            counts={k: v.rows() for k, v in vars(self).items() if isinstance(v, Counts)},
            durations={k: v.rows() for k, v in vars(self).items() if isinstance(v, Durations)},
        )

    def _restore(self, snapshot: Snapshot) -> None:
        for name, number in vars(self).items():
            if isinstance(number, Counts):
                number.restore(snapshot.counts.get(name, []))
            elif isinstance(number, Durations) and snapshot.buckets == BUCKETS:
                number.restore(snapshot.durations.get(name, []))
