"""What a provider's errors become: shapes of bodies, Retry-After, secrets."""

import json
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
        (
            b'{"error": {"message": "No.", "code": 429, "status": "RESOURCE_EXHAUSTED",'
            b' "details": [7, {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},'
            b' {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}]}}',
            Detail("No.", "429", None, 429, "", 34.07),
        ),
        (
            b'{"error": {"code": 400, "details": [{"reason": "API_KEY_INVALID"}, {"retryDelay":'
            b' "soon"}]}}',
            Detail("", "400", None, 400, "API_KEY_INVALID"),
        ),
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


OWN = "hf_Abc/dEf+ghi=jkl-MNO_pqr.9876543210"


@pytest.mark.parametrize(
    "shown",
    [
        OWN,
        f"Bearer {OWN}",
        f"({OWN})",
        f'{{"api_key":"{OWN}"}}',
        quote(OWN),
        quote(OWN, safe=""),
        "".join(f"%{byte:02x}" for byte in OWN.encode()),
        OWN.replace("/", "\\/"),
        OWN.replace("+", "\\u002b").replace("/", "\\u002F"),
        "".join(f"\\u{byte:04x}" for byte in OWN.encode()),
        f"{OWN[:6]}********{OWN[-4:]}",
        f"{OWN[:4]}...{OWN[-4:]}",
        f"{OWN[:5]}…",
        f"***{OWN[-3:]}",
        f"ending in {OWN[-4:]}",
        OWN[:20],
        OWN[-20:],
        OWN[8:24],
        f"https://provider.example/v1?key={quote(OWN)}&x=1",
    ],
)
def test_no_part_of_a_clients_key_is_shown_whole_escaped_or_masked(shown: str) -> None:
    failures = Failures("acme", (), NOON).with_client_key(OWN)
    body = json.dumps({"error": {"message": f"The key {shown} is not known."}}).encode()
    for status in (400, 401, 403, 429, 500):
        message = failures.refused(status, {}, body).info.message
        assert "[removed]" in message, message
        assert "is not known." in message
        for at in range(len(OWN) - 5):
            assert OWN[at : at + 6] not in message
        assert OWN[:4] not in message and not message.endswith(OWN[-4:])


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=200),
    st.text(max_size=60),
    st.text(max_size=60),
    st.sampled_from([str, quote, lambda key: json.dumps(key)[1:-1]]),
)
def test_a_clients_key_never_shows_whatever_it_is_made_of(
    key: str, before: str, after: str, escape: object
) -> None:
    assert callable(escape)
    failures = Failures("acme", (), NOON).with_client_key(key)
    body = json.dumps({"message": f"{before} {escape(key)} {after}"}).encode()
    message = failures.refused(500, {}, body).info.message
    assert key not in message.replace("[removed]", "")


def test_what_has_nothing_of_a_clients_key_is_told_as_it_came() -> None:
    failures = Failures("acme", (), NOON).with_client_key(OWN)
    body = b'{"error": {"message": "Too long: 9000 > 8192 tokens (\'messages\').", "code": "x"}}'
    info = failures.refused(400, {}, body).info
    assert info.message == "Too long: 9000 > 8192 tokens ('messages')."
    assert info.code == "x"


def test_a_key_that_was_masked_is_not_shown_of_the_gateways_either() -> None:
    failures = Failures("acme", (), NOON)
    body = b'{"error": "Wrong key: AIzaSy*****9xyz, or sk-abc***wxyz; ****9xyz **really**."}'
    message = failures.refused(400, {}, body).info.message
    assert message == "Wrong key: [removed], or [removed]; [removed] **really**."


def test_without_a_clients_key_the_failures_are_the_same_ones() -> None:
    failures = Failures("acme", (), NOON)
    assert failures.with_client_key("") is failures
    assert failures.refused(401, {}, b"").info.status == 502


@pytest.mark.parametrize("status", [401, 403])
def test_a_clients_own_key_that_is_refused_is_told_in_the_providers_words(status: int) -> None:
    failures = Failures("acme", (), NOON).with_client_key(OWN)
    silent = failures.refused(status, {}, b"").info
    assert silent.message == "acme refused the key that you sent for it. Check that key."
    told = failures.refused(status, {}, b'{"error": "Key expired."}')
    assert told.info.message == "acme refused the key that you sent for it: Key expired."
    assert (told.info.status, told.info.type) == (401, "authentication_error")
    assert not told.falls_back and not told.retryable


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


def test_a_request_that_was_not_read_in_time_is_free_and_says_when_to_come_back() -> None:
    body = b'{"error": {"message": "Too slow for us."}}'
    failure = Failures("acme", (), NOON).refused(408, CIMultiDict({"Retry-After": "3"}), body)
    assert failure.info.message == "acme did not read the request in time: Too slow for us."
    assert (failure.retry_after, failure.cost_known, failure.blame) == (3, True, "")


def test_a_delay_in_the_body_counts_where_no_header_tells_one() -> None:
    failures = Failures("acme", (), NOON)
    body = b'{"error": {"code": 429, "message": "Slow.", "details": [{"retryDelay": "7s"}]}}'
    failure = failures.refused(429, {}, body)
    assert (failure.retry_after, failure.info.code) == (7, "rate_limit_exceeded")
    assert failures.refused(429, CIMultiDict({"Retry-After": "3"}), body).retry_after == 3
    assert failures.told(body).retry_after == 7


def test_a_wrong_key_is_one_whatever_the_status() -> None:
    failures = Failures("acme", (), NOON)
    body = b'{"error": {"code": 400, "message": "No.", "details": [{"reason": "API_KEY_INVALID"}]}}'
    failure = failures.refused(400, {}, body)
    assert (failure.info.status, failure.info.code) == (502, "provider_auth")
    assert failures.with_client_key("AIza-0123456789").refused(400, {}, body).info.status == 401
