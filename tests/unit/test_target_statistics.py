"""What an ingress knows of targets: the report for a base, live events on top, the old fading."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.attempts import Kind
from analytics.latencies import bucket
from analytics.questions.targets import HALF_LIFE, TargetFigures, TargetsReport
from ingress.target_statistics import Ended, Figures, TargetStatistics
from schemas.ids import Clock

KNOWN = ("p", "e")


class Now:
    """A clock that stands until the test moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.clock = Clock(monotonic=lambda: self.seconds)


def ended(
    seq: int,
    at: float,
    ms: float | None,
    kind: Kind = "",
    target: tuple[str, str] = KNOWN,
) -> Ended:
    at_bucket = None if ms is None else bucket(ms)
    return Ended(seq, at, target, kind, at_bucket, at_bucket)


def reported(
    as_of_seq: int, ms: float, attempts: float = 100, failures: float = 0
) -> TargetsReport:
    answered = attempts - failures
    counts = {bucket(ms): answered} if answered else {}
    figures = TargetFigures(
        *KNOWN, attempts=attempts, failures=failures, first_byte=counts, total=counts
    )
    return TargetsReport((figures,), as_of_seq)


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def statistics(now: Now) -> TargetStatistics:
    return TargetStatistics(now.clock)


def test_of_a_target_that_nobody_asked_nothing_is_known(statistics: TargetStatistics) -> None:
    assert statistics.of(*KNOWN) == Figures(None, None, None, None)


def test_without_a_report_the_live_events_are_all_there_is(
    statistics: TargetStatistics, now: Now
) -> None:
    for seq in range(1, 20):
        statistics.ended(ended(seq, now.seconds, 100.0))
    statistics.ended(ended(20, now.seconds, 5000.0))
    statistics.ended(ended(21, now.seconds, None, "timeouts"))
    found = statistics.of(*KNOWN)
    assert found.first_byte_ms == pytest.approx(100, rel=0.05)
    assert found.total_p95_ms == pytest.approx(100, rel=0.05)
    assert found.error_rate == pytest.approx(1 / 22)


def test_what_a_report_has_is_not_counted_again_and_what_it_lacks_is(
    statistics: TargetStatistics, now: Now
) -> None:
    statistics.ended(ended(4, now.seconds, 100.0))
    statistics.ended(ended(5, now.seconds, 9000.0))
    statistics.ended(ended(6, now.seconds, None, "failures"))
    statistics.report(reported(5, 200.0, attempts=3))
    statistics.ended(ended(3, now.seconds, None, "failures"))
    found = statistics.of(*KNOWN)
    assert statistics.as_of_seq == 5
    assert found.total_ms == pytest.approx(200, rel=0.05)
    assert found.total_p95_ms == pytest.approx(200, rel=0.05)
    assert found.error_rate == pytest.approx(1 / 5)


def test_a_later_report_takes_the_place_of_all_that_it_covers(
    statistics: TargetStatistics, now: Now
) -> None:
    statistics.ended(ended(1, now.seconds, 100.0, target=("other", "e")))
    statistics.report(reported(5, 200.0))
    assert len(statistics) == 1
    statistics.report(reported(9, 800.0))
    assert statistics.of(*KNOWN).total_ms == pytest.approx(800, rel=0.05)


def test_what_is_old_gives_way_to_what_is_new_and_is_forgotten_in_the_end(
    statistics: TargetStatistics, now: Now
) -> None:
    statistics.report(reported(5, 4000.0, attempts=16))
    now.seconds += 4 * HALF_LIFE
    for seq in (6, 7):
        statistics.ended(ended(seq, now.seconds, 100.0))
    assert statistics.of(*KNOWN).total_ms == pytest.approx(100, rel=0.05)
    now.seconds += 8 * HALF_LIFE
    assert statistics.of(*KNOWN) == Figures()


def test_one_old_failure_does_not_keep_everybody_away(
    statistics: TargetStatistics, now: Now
) -> None:
    statistics.ended(ended(1, now.seconds, None, "failures"))
    rates = []
    for _ in range(4):
        rates.append(statistics.of(*KNOWN).error_rate)
        now.seconds += HALF_LIFE
    assert rates == [pytest.approx(rate) for rate in (1 / 2, 1 / 3, 1 / 5, 1 / 9)]


def test_the_targets_that_are_remembered_are_bounded_and_the_oldest_go_first(
    statistics: TargetStatistics, now: Now
) -> None:
    for number in range(700):
        statistics.ended(ended(2 * number + 1, now.seconds, 50.0, target=("p", f"e{number}")))
        statistics.ended(ended(2 * number + 2, now.seconds, 50.0, target=("p", "in use")))
    assert len(statistics) == 512
    assert statistics.of("p", "in use").total_ms is not None
    assert statistics.of("p", "e0") == Figures()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.1, 60_000), st.sampled_from(("", "failures")), st.floats(0, 30)),
        min_size=1,
        max_size=40,
    ),
    st.data(),
)
def test_base_and_gap_together_say_what_all_ends_say(
    ends: list[tuple[float, Kind, float]], data: st.DataObject
) -> None:
    """Wherever the report ends, one who heard it knows the same as one who heard every end."""
    now = Now()
    heard_all, heard_some = TargetStatistics(now.clock), TargetStatistics(now.clock)
    split = data.draw(st.integers(0, len(ends)))
    for seq, (ms, kind, pause) in enumerate(ends, 1):
        now.seconds += pause
        one = ended(seq, now.seconds, None if kind else ms, kind)
        heard_all.ended(one)
        if seq > split:
            heard_some.ended(one)
    told: list[TargetFigures] = []
    weighed = [
        (2 ** (-(now.seconds - at) / HALF_LIFE), ms, kind)
        for at, (ms, kind, _) in zip(_times(ends), ends[:split], strict=False)
    ]
    if weighed:
        counts: dict[int, float] = {}
        for weight, ms, kind in weighed:
            if not kind:
                counts[bucket(ms)] = counts.get(bucket(ms), 0.0) + weight
        attempts = sum(weight for weight, _, _ in weighed)
        failures = sum(weight for weight, _, kind in weighed if kind)
        told = [TargetFigures(*KNOWN, attempts, 0, 0, 0, failures, counts, counts)]
    heard_some.report(TargetsReport(tuple(told), split))
    some, everything = heard_some.of(*KNOWN), heard_all.of(*KNOWN)
    assert some.error_rate == pytest.approx(everything.error_rate, rel=0.02)
    assert (some.total_ms is None) == (everything.total_ms is None)


def _times(ends: list[tuple[float, Kind, float]]) -> list[float]:
    times, at = [], 1000.0
    for _, _, pause in ends:
        at += pause
        times.append(at)
    return times
