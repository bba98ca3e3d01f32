"""Credentials that are not ours to know: of providers, or while the key store is away."""

from typing import Any

import pytest

from ingress.auth import Headers
from ledger.access.configured import id_of
from schemas.access import moment
from schemas.config import KeyConfig
from schemas.errors import Unavailable
from tests import sample_events as sample
from tests.ingress_doors import Known
from tests.key_door import ADMIN, KEY, OTHER, PLAIN, Door, bearer, changed, text_of
from tests.sample_events import NOON

AWAY = [Known(loaded=False, fresh=False), Known(loaded=True, fresh=False)]


@pytest.mark.parametrize("feed", AWAY)
async def test_while_the_key_store_is_away_an_unknown_key_may_be_good(feed: Known) -> None:
    door = Door(feed)
    error = await door.refuse(bearer(KEY))
    assert isinstance(error, Unavailable)
    assert (error.info.status, error.info.code) == (503, "key_store_away")
    assert error.info.headers() == {"Retry-After": "1"}
    for never in ("whatever", changed(KEY, 9), "nx-"):
        assert (await door.refuse(bearer(never))).info.status == 401


@pytest.mark.parametrize("feed", AWAY)
async def test_while_the_key_store_is_away_what_is_known_serves(feed: Known) -> None:
    door = Door(feed)
    revoked_key = door.has(OTHER, "key_b")
    door.hear(sample.key_revoked(revoked_key))
    door.has(KEY)
    assert (await door.enter(KEY)).tenant.key_id == "key_a"
    assert (await door.enter(PLAIN)).tenant.key_id == id_of(PLAIN)
    assert (await door.enter(ADMIN)).admin
    assert (await door.refuse(bearer(OTHER))).info.code == "key_revoked"
    sent = [*bearer(text_of(3)), (b"x-nexus-token", PLAIN.encode())]
    assert (await door.keys.authenticate(sent)).kind == "key"


PASSES: dict[str, Any] = {"target_url": "https://api.example.com/v1"}


async def test_with_a_target_url_a_provider_key_is_let_through() -> None:
    door = Door(**PASSES)
    first, second = await door.enter("sk-first-client"), await door.enter("sk-second-client")
    assert (first.kind, first.admin, first.models) == ("client", False, ())
    digest = door.secret.digest(b"sk-first-client").hex()
    assert first.tenant.key_id == f"client_{digest[:12]}"
    assert first.tenant.key_id != second.tenant.key_id
    assert await Door(secret=(), **PASSES).enter("sk-first-client")
    by_api_key = await door.keys.authenticate([(b"x-api-key", b"sk-first-client")])
    assert by_api_key == first
    assert door.keys.stands(first)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([(b"x-nexus-token", b"sk-of-some-client")], "only our own belong there"),
        (bearer("sk-abcd"), "too short"),
        (bearer("sk-" + "x" * 510), "too long"),
        (bearer("sk-some thing"), "a space"),
        (bearer("sk-söme-thing"), "not ASCII"),
        (bearer("SK-OF-SOME-CLIENT"), "another prefix"),
        (bearer("pk-of-some-client"), "another prefix"),
        (bearer(f"nx-{'x' * 20}"), "ours"),
        (bearer(text_of(7)), "ours, and unknown"),
        (bearer("sk-expired-and-ours"), "ours, and over"),
    ],
)
async def test_what_is_no_provider_key_is_not_let_through(headers: Headers, why: str) -> None:
    ours = KeyConfig(key="sk-expired-and-ours", expires_at=moment(NOON - 1))
    error = await Door(keys={"old": ours}, **PASSES).refuse(headers)
    assert error.info.status == 401, why


async def test_a_configured_key_that_looks_like_a_provider_key_is_ours() -> None:
    door = Door(api_keys=("sk-of-this-gateway",), **PASSES)
    assert (await door.enter("sk-of-this-gateway")).kind == "key"
