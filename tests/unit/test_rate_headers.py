"""When a rate limit is over, from the headers of each vendor."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.rate_headers import reset_after

NOON = datetime(2026, 11, 8, 12, tzinfo=UTC)
NOON_NS = int(NOON.timestamp()) * 10**9
UNIX = int(NOON.timestamp())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"X-RateLimit-Reset-Requests": "1s"}, 1.0),
        ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-reset-tokens": "2m59.56s"}, 179.56),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-reset-requests": "12"}, 12.0),
        ({"x-ratelimit-reset": str(UNIX + 7)}, 7.0),
        ({"x-ratelimit-reset": str((UNIX + 7) * 1000)}, 7.0),
        ({"x-ratelimit-reset": str(UNIX - 7)}, 0.0),
        ({"anthropic-ratelimit-tokens-reset": "2026-11-08T12:00:09Z"}, 9.0),
        ({"anthropic-ratelimit-input-tokens-reset": "2026-11-08T13:00:09+01:00"}, 9.0),
        ({"anthropic-ratelimit-tokens-reset": "2026-11-08T11:00:00Z"}, 0.0),
        ({"x-ratelimit-reset-tokens": "soon"}, None),
        ({"x-ratelimit-reset-tokens": "1s and more"}, None),
        ({"x-ratelimit-reset-tokens": ""}, None),
        ({"x-ratelimit-limit-tokens": "1s"}, None),
    ],
)
def test_headers_say_when_a_limit_is_over(headers: dict[str, str], seconds: float | None) -> None:
    assert reset_after(headers, NOON_NS) == pytest.approx(seconds)


def test_only_the_limits_that_are_exhausted_count_and_of_those_the_last() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "3s",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-08T12:00:05Z",
        "anthropic-ratelimit-tokens-remaining": "1000",
        "anthropic-ratelimit-tokens-reset": "2026-11-08T12:00:50Z",
    }
    assert reset_after(headers, NOON_NS) == 5.0


@given(st.text(max_size=40))
def test_any_text_is_a_wait_or_none(text: str) -> None:
    found = reset_after({"x-ratelimit-reset-tokens": text}, NOON_NS)
    assert found is None or found >= 0
