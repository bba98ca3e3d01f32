"""How often and when a target is asked again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from schemas.ids import Clock
from workers.failures import Failures
from workers.providers.base import AttemptFailed
from workers.retry import LONGEST_WAIT, backoff, fits, tries

FAILURES = Failures("openai", (), Clock())


def refused(status: int, **headers: str) -> AttemptFailed:
    return FAILURES.refused(status, CIMultiDict(headers), b"")


def test_a_failing_target_is_tried_three_times_and_the_network_is_retried_three_times() -> None:
    assert tries(network=False) == 3
    assert tries(network=True) == 4


@given(st.integers(1, 10), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_anything_up_to_a_bound_that_doubles(attempt: int, chance: float) -> None:
    assert 0 <= backoff(attempt, None, chance) < min(5.0, 0.2 * 2 ** (attempt - 1)) + 1e-9


@given(st.floats(0, 100), st.floats(0, 1, exclude_max=True))
def test_nobody_is_asked_before_the_time_it_named(named: float, chance: float) -> None:
    assert backoff(1, named, chance) >= named


@pytest.mark.parametrize(
    ("wait", "left", "expected"),
    [(1.0, 2.0, True), (2.0, 2.0, False), (LONGEST_WAIT, 600.0, False), (19.9, 600.0, True)],
)
def test_a_wait_fits_before_the_deadline_and_a_bound(
    wait: float, left: float, expected: bool
) -> None:
    assert fits(wait, left) is expected


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset-requests": "7s"}, 7.0),
        ({"x-ratelimit-reset-requests": "7s", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "250", "retry-after": "2"}, 0.25),
    ],
)
def test_retry_after_goes_before_the_headers_of_rate_limits(
    headers: dict[str, str], seconds: float
) -> None:
    assert refused(429, **headers).retry_after == seconds


def test_the_limits_in_the_headers_of_a_failure_say_nothing_of_a_wait() -> None:
    assert refused(500, **{"x-ratelimit-reset-requests": "7s"}).retry_after is None


@pytest.mark.parametrize(
    ("failed", "blame"),
    [
        (refused(500), "target"),
        (refused(503), "target"),
        (refused(529), "target"),
        (FAILURES.told(b'{"error": {"message": "overloaded"}}'), "target"),
        (FAILURES.timed_out("did not begin its answer"), "target"),
        (FAILURES.broken("broke off in the middle of its answer"), "target"),
        (FAILURES.broken("could not be reached", reached=False, network=True), "provider"),
        (FAILURES.timed_out("could not be connected to", network=True), "provider"),
        (refused(401), "provider"),
        (refused(403), "provider"),
        (FAILURES.with_client_key("sk-of-a-client").refused(401, {}, b""), ""),
        (refused(400), ""),
        (refused(404), ""),
        (refused(408), ""),
        (refused(409), ""),
        (refused(429), ""),
        (FAILURES.unsendable("No."), ""),
    ],
)
def test_a_failure_is_blamed_on_a_target_its_whole_provider_or_nobody(
    failed: AttemptFailed, blame: str
) -> None:
    assert failed.blame == blame
