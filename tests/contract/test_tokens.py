"""Access tokens from a scripted token server: asked for once, renewed in time, failures told."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import jwt
import pytest

from schemas.call import Timeouts
from schemas.ids import Clock
from tests.sample_events import NOON, SECOND
from tests.token_issuer import EC_KEY, RSA_KEY, private_pem
from tests.upstream import CUT, HANG, Recorded, Reply, Upstream, json_reply
from workers.failures import Failures
from workers.http import Http
from workers.providers.base import AttemptFailed
from workers.tokens import (
    GOOGLE_CLOUD,
    AccessToken,
    Source,
    client_credentials,
    service_account,
)

SECRET = "entra-secret-0123456789"
ACCOUNT = "robot@acme.iam.gserviceaccount.com"


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.slept = 0.0
        self.clock = Clock(now_ns=self._wall, monotonic=lambda: self.seconds)

    def _wall(self) -> int:
        return NOON + round((self.seconds - 1000 + self.slept) * SECOND)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def source(upstream: Upstream) -> Source:
    return client_credentials("tenant-1", "app-1", SECRET, "scope/.default", upstream.url)


@pytest.fixture
def token(source: Source, http: Http, time: Time) -> AccessToken:
    return AccessToken(source, http, Failures("acme", (SECRET,), time.clock), time.clock)


def numbered(life: int | str | None = 3600) -> Callable[[Recorded], Reply]:
    """A token server whose tokens are token-1, token-2 and so on."""
    count = 0

    def reply(_: Recorded) -> Reply:
        nonlocal count
        count += 1
        body = {"token_type": "Bearer", "access_token": f"token-{count}", "expires_in": life}
        return json_reply({k: v for k, v in body.items() if v is not None})

    return reply


def key_file(folder: Path, **changes: object) -> str:
    """The key file of a service account as Google writes it; the key itself is the tests' own."""
    said = {
        "type": "service_account",
        "project_id": "acme",
        "private_key_id": "key-1",
        "private_key": private_pem(RSA_KEY),
        "client_email": ACCOUNT,
        "token_uri": "https://oauth2.googleapis.com/token",
        **changes,
    }
    path = folder / "account.json"
    path.write_text(json.dumps(said))
    return str(path)


async def failure_of(token: AccessToken) -> AttemptFailed:
    with pytest.raises(AttemptFailed) as caught:
        await token.text()
    return caught.value


async def test_an_application_asks_with_its_secret_and_the_token_is_kept(
    token: AccessToken, upstream: Upstream
) -> None:
    upstream.script(numbered())
    assert [await token.text(), await token.text()] == ["token-1", "token-1"]
    (request,) = upstream.requests
    assert request.path == "/tenant-1/oauth2/v2.0/token"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["app-1"],
        "client_secret": [SECRET],
        "scope": ["scope/.default"],
    }


async def test_a_service_account_signs_what_it_asks_for(
    upstream: Upstream, http: Http, time: Time, tmp_path: Path
) -> None:
    upstream.script(numbered())
    path = key_file(tmp_path, token_uri=f"{upstream.url}/token")
    failures = Failures("acme", (), time.clock)
    token = AccessToken(service_account(path, time.clock), http, failures, time.clock)
    assert await token.text() == "token-1"
    (request,) = upstream.requests
    form = {name: value for name, (value,) in parse_qs(request.body.decode()).items()}
    assert request.path == "/token"
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert jwt.get_unverified_header(form["assertion"]) == {
        "alg": "RS256",
        "kid": "key-1",
        "typ": "JWT",
    }
    said = jwt.decode(
        form["assertion"],
        RSA_KEY.public_key(),
        ["RS256"],
        audience=f"{upstream.url}/token",
        options={"verify_exp": False, "verify_iat": False},
    )
    now = NOON // SECOND
    assert (said["iss"], said["scope"]) == (ACCOUNT, GOOGLE_CLOUD)
    assert (said["iat"], said["exp"]) == (now, now + 3600)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "cannot be read"),
        ("no json", "is not the JSON key of a service account"),
        ('{"type": "authorized_user"}', "is not the JSON key of a service account"),
        (json.dumps({"client_email": "a", "private_key": "not a key"}), "no RSA private key"),
        (
            json.dumps({"client_email": "a", "private_key": private_pem(EC_KEY)}),
            "no RSA private key",
        ),
    ],
)
def test_a_wrong_key_file_is_told_without_what_is_in_it(
    tmp_path: Path, content: str | None, what: str
) -> None:
    path = tmp_path / "account.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=what) as caught:
        service_account(str(path), Clock())
    assert str(path) in str(caught.value)
    assert "not a key" not in str(caught.value) and "BEGIN" not in str(caught.value)


@pytest.mark.parametrize("life", [3600, "3600"])
async def test_a_token_is_renewed_minutes_before_its_end_and_nobody_waits(
    token: AccessToken, upstream: Upstream, time: Time, life: int | str
) -> None:
    upstream.script(numbered(life))
    assert await token.text() == "token-1"
    time.seconds += 3299
    assert await token.text() == "token-1" and len(upstream.requests) == 1
    time.seconds += 2
    assert await token.text() == "token-1"
    await renewed(token, "token-2")
    assert len(upstream.requests) == 2


async def renewed(token: AccessToken, text: str) -> None:
    """Waits until the token is this one."""
    async with asyncio.timeout(5):
        while await token.text() != text:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_token_past_its_end_is_never_used(
    token: AccessToken, upstream: Upstream, time: Time
) -> None:
    upstream.script(numbered(60))
    assert await token.text() == "token-1"
    time.seconds += 60
    assert await token.text() == "token-2"


async def test_a_token_ends_while_its_machine_sleeps(
    token: AccessToken, upstream: Upstream, time: Time
) -> None:
    upstream.script(numbered())
    assert await token.text() == "token-1"
    time.slept += 3600
    assert await token.text() == "token-2"
    time.slept -= 7200
    assert await token.text() == "token-2" and len(upstream.requests) == 2


async def test_a_token_without_a_told_life_is_used_for_minutes(
    token: AccessToken, upstream: Upstream, time: Time
) -> None:
    upstream.script(numbered(None))
    assert await token.text() == "token-1"
    time.seconds += 400
    assert await token.text() == "token-1" and len(upstream.requests) == 1
    time.seconds += 200
    assert await token.text() == "token-2"


async def test_attempts_at_once_wait_for_one_fetch(token: AccessToken, upstream: Upstream) -> None:
    upstream.script(numbered())
    texts = await asyncio.gather(*(token.text() for _ in range(20)))
    assert set(texts) == {"token-1"} and len(upstream.requests) == 1


async def test_an_attempt_that_is_cancelled_leaves_the_fetch_to_the_others(
    token: AccessToken, upstream: Upstream
) -> None:
    go_on = asyncio.Event()
    reply = json_reply({"access_token": "late", "expires_in": 60})
    upstream.script(Reply(headers=reply.headers, steps=(go_on, *reply.steps)))
    first, second = (asyncio.create_task(token.text()) for _ in range(2))
    await upstream.request()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    assert await second == "late" and len(upstream.requests) == 1


async def test_closing_ends_a_fetch(token: AccessToken, upstream: Upstream) -> None:
    upstream.script(Reply(before=(HANG,)))
    waiting = asyncio.create_task(token.text())
    request = await upstream.request()
    await token.close()
    await request.gone.wait()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_refused_credentials_are_the_gateways_to_mend(
    token: AccessToken, upstream: Upstream, status: int
) -> None:
    said = {"error": "invalid_client", "error_description": f"Wrong secret {SECRET}"}
    upstream.script(json_reply(said, status))
    failures = await asyncio.gather(failure_of(token), failure_of(token))
    for failed in failures:
        assert (failed.info.status, failed.info.code) == (502, "provider_auth")
        assert failed.info.provider == "acme" and SECRET not in repr(failed.info)
        assert not failed.retryable and failed.falls_back
        assert not failed.reached and failed.cost_known
    assert failures[0] is not failures[1] and len(upstream.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        json_reply({"error": SECRET}, 500),
        json_reply({"error": "slow_down"}, 429),
        json_reply(b"<html>"),
        json_reply({}),
        json_reply({"access_token": 1}),
        json_reply({"access_token": ""}),
        json_reply({"access_token": "a\r\nX-Smuggled: 1"}),
        json_reply({"access_token": "a", "expires_in": 0}),
        json_reply({"access_token": "a", "expires_in": "nan"}),
        json_reply({"access_token": "a", "expires_in": "soon"}),
        Reply(before=(CUT,)),
        Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}),
    ],
)
async def test_a_token_server_in_trouble_is_worth_a_retry(
    token: AccessToken, upstream: Upstream, reply: Reply
) -> None:
    upstream.script(reply)
    failed = await failure_of(token)
    assert (failed.info.status, failed.info.type) == (502, "provider_error")
    assert failed.retryable and not failed.reached and failed.cost_known
    assert SECRET not in failed.info.message
    upstream.script(numbered())
    assert await token.text() == "token-1"


async def test_a_slow_token_server_is_a_timeout(
    source: Source, http: Http, upstream: Upstream
) -> None:
    upstream.script(Reply(before=(HANG,)))
    hasty = Timeouts(connect=5, total=0.2)
    token = AccessToken(source, http, Failures("acme", (), Clock()), Clock(), hasty)
    failed = await failure_of(token)
    assert (failed.info.status, failed.info.code) == (504, "timeout")
    assert failed.retryable and not failed.reached and failed.cost_known


async def test_a_failed_renewal_leaves_the_old_token_until_its_end(
    token: AccessToken, upstream: Upstream, time: Time
) -> None:
    good = json_reply({"access_token": "old", "expires_in": 3600})
    upstream.script(good, json_reply({}, 500), numbered())
    assert await token.text() == "old"
    time.seconds += 3400
    async with asyncio.timeout(5):
        while len(upstream.requests) < 3:
            assert await token.text() == "old"
            time.seconds += 0.1
            await asyncio.sleep(0.005)
    await renewed(token, "token-1")
    assert 3405 <= time.seconds - 1000 < 3600, "a failed renewal is followed by a pause"
