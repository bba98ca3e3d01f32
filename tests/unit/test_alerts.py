"""Who is to be told that a call cost more than was wished: by what the whole call cost."""

from typing import Any

from ledger.budgets.alerts import Alerts, Told
from ledger.open_calls import OpenCalls
from schemas.budget_events import CostAlert
from schemas.events import LedgerEvent
from tests import sample_events as sample


class Watching:
    """The alerts beside the open calls, as the governor folds them, handed over at every step."""

    def __init__(self) -> None:
        self.alerts = Alerts(Told())
        self.open_calls = OpenCalls()
        self.seq = 0

    def fold(self, *events: LedgerEvent) -> dict[str, int]:
        """What every call costs whose alert is due now."""
        for event in events:
            self.seq += 1
            start = self.open_calls.start_of(event.call_id)
            self.open_calls.fold(self.seq, event)
            self.alerts.fold(event, start)
            self.alerts = Alerts(self.alerts.snapshot())
        return {one.call_id: one.cost_nano for one in self.alerts.costly.values()}


def start(call_id: str, **fields: Any) -> LedgerEvent:
    return sample.start(call_id, alert_nano=100, tracking_id="t", **fields)


def alert(call_id: str) -> LedgerEvent:
    return CostAlert(event_id="x", time="2026-09-21T12:00:00.000000Z", v=1, call_id=call_id)


def test_failed_attempts_count_to_the_cost_of_their_call() -> None:
    watching = Watching()
    attempts = (sample.attempt_failed("a", cost_nano=60), sample.attempt_abandoned("a"))
    assert watching.fold(start("a"), *attempts) == {}
    assert watching.fold(sample.complete("a", cost_nano=41)) == {"a": 101}
    (costly,) = watching.alerts.costly.values()
    assert (costly.key_id, costly.model, costly.tracking_id) == ("key_a", "gpt-4o", "t")
    assert watching.fold(alert("a")) == {}


def test_an_end_of_unknown_cost_leaves_what_its_attempts_cost() -> None:
    watching = Watching()
    attempt = sample.attempt_failed("a", cost_nano=101)
    assert watching.fold(start("a"), attempt, sample.lost("a")) == {"a": 101}


def test_exactly_the_threshold_is_not_above_it() -> None:
    watching = Watching()
    attempt = sample.attempt_failed("a", cost_nano=60)
    assert watching.fold(start("a"), attempt, sample.complete("a", cost_nano=40)) == {}


def test_an_attempt_that_ends_late_counts_too() -> None:
    watching = Watching()
    assert watching.fold(start("a"), sample.complete("a", cost_nano=90)) == {}
    assert watching.fold(sample.attempt_late("a", cost_nano=11)) == {"a": 101}
    assert watching.fold(sample.attempt_late("a", cost_nano=-50)) == {}
    assert watching.fold(sample.attempt_late("a", cost_nano=900)) == {"a": 951}
    assert watching.fold(alert("a"), sample.attempt_late("a", cost_nano=900)) == {}


def test_a_call_whose_client_named_no_threshold_is_not_watched() -> None:
    watching = Watching()
    assert watching.fold(sample.start("a"), sample.complete("a", cost_nano=10**12)) == {}
    assert watching.alerts.snapshot() == Told()


def test_calls_that_ended_cheap_are_forgotten_in_the_end() -> None:
    watching = Watching()
    for number in range(1_001):
        watching.fold(start(f"c{number}"), sample.complete(f"c{number}", cost_nano=100))
    late = [sample.attempt_late(f"c{number}", cost_nano=1) for number in (0, 1, 1_000)]
    assert watching.fold(*late) == {"c1": 101, "c1000": 101}
