"""What a provider's errors become: shapes of bodies, Retry-After, secrets."""

from datetime import UTC, datetime

import pytest
from multidict import CIMultiDict

from schemas.ids import Clock
from workers.failures import Detail, Failures, read_detail, retry_after

NOON = Clock(now_ns=lambda: int(datetime(2026, 11, 8, 12, tzinfo=UTC).timestamp()) * 10**9)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (
            b'{"error": {"message": "No.", "type": "t", "param": "p", "code": "c"}}',
            Detail("No.", "c", "p", None, "t"),
        ),
        (b'{"error": {"message": "No.", "code": 503}}', Detail("No.", "503", None, 503)),
        (b'{"error": {"message": "No.", "code": 7, "param": 1}}', Detail("No.", "7")),
        (b'{"error": {"message": null, "code": ""}}', Detail()),
        (b'{"error": "No."}', Detail("No.")),
        (b'{"object": "error", "message": "No.", "code": 404}', Detail("No.", "404", None, 404)),
        (b'{"detail": "No."}', Detail("No.")),
        (
            b'{"detail": [{"loc": ["body"], "msg": "bad"}]}',
            Detail('[{"loc":["body"],"msg":"bad"}]'),
        ),
        (b'[{"error": {"message": "No.", "code": 400}}]', Detail("No.", "400", None, 400)),
        (b"<html>Bad gateway</html>", Detail()),
        (b"", Detail()),
        (b"[]", Detail()),
        (b"null", Detail()),
        (b"17", Detail()),
        (b"\xff", Detail()),
        (b"[" * 100_000, Detail()),
    ],
)
def test_errors_are_read_in_every_known_shape(body: bytes, detail: Detail) -> None:
    assert read_detail(body) == detail


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"Retry-After-Ms": "250", "Retry-After": "3"}, 0.25),
        ({"Retry-After": "Sun, 08 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"Retry-After": "Sun, 08 Nov 2026 12:00:30"}, 30.0),
        ({"Retry-After": "Sun, 08 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": ""}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(CIMultiDict(headers), NOON) == seconds


def test_a_secret_is_removed_before_a_message_is_shortened() -> None:
    failures = Failures("acme", ("topsecretvalue", ""), NOON)
    text = "x" * 490 + "topsecretvalue"
    failure = failures.refused(400, {}, b'{"error": "%b"}' % text.encode())
    assert "topsecret" not in failure.info.message
    assert len(failure.info.message) <= 500


def test_an_exhausted_quota_is_not_worth_a_retry() -> None:
    failures = Failures("acme", (), NOON)
    body = b'{"error": {"message": "Pay first.", "code": "insufficient_quota"}}'
    failure = failures.refused(429, {}, body)
    assert (failure.info.status, failure.info.code) == (429, "insufficient_quota")
    assert not failure.retryable and failure.falls_back


@pytest.mark.parametrize(
    ("status", "shown", "code", "retryable"),
    [
        (302, 502, None, False),
        (402, 502, None, False),
        (405, 502, None, False),
        (408, 504, "timeout", True),
        (409, 502, None, True),
        (599, 502, None, True),
    ],
)
def test_statuses_outside_the_table_are_provider_errors(
    status: int, shown: int, code: str | None, retryable: bool
) -> None:
    failure = Failures("acme", (), NOON).refused(status, {}, b"")
    assert (failure.info.status, failure.info.type) == (shown, "provider_error")
    assert (failure.info.code, failure.retryable) == (code, retryable)
    assert failure.falls_back
