"""Keys that an issuer publishes: chosen by id, asked for anew; nobody waits for who is away."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from jwt.algorithms import get_default_algorithms

from ingress.jwks import Jwks
from ingress.tokens import Tokens
from schemas.config import Config, JwtConfig
from schemas.errors import Unavailable
from tests.ingress_doors import authenticator
from tests.token_door import INVALID, Time, enter, refused
from tests.token_issuer import (
    EC_KEY,
    OTHER_RSA_KEY,
    RSA_KEY,
    SHARED,
    Mood,
    claims,
    jwk,
    jwks_server,
    signed,
)


class Published:
    """An ingress that knows an issuer by its JWKS URL, at a time that a test moves."""

    def __init__(self, url: str, time: Time, *algorithms: str) -> None:
        self.time = time
        config = Config(jwt=JwtConfig(jwks_url=url, algorithms=algorithms or ("RS256", "ES256")))
        self.tokens = Tokens(config.jwt, (), time.clock)
        self.keys = authenticator(config, tokens=self.tokens, clock=time.clock)


def of_rsa(kid: str | None, key: Any = RSA_KEY) -> str:
    return signed(None, key, "RS256", **({} if kid is None else {"kid": kid}))


@pytest.fixture
async def time() -> AsyncIterator[Time]:
    yield Time()


async def test_the_keys_of_a_published_set_are_chosen_by_their_id(time: Time) -> None:
    async with jwks_server(jwk(RSA_KEY, "one"), jwk(EC_KEY, "two")) as issuer:
        ingress = Published(issuer.url, time)
        ingress.tokens.start()
        assert await enter(ingress.keys, of_rsa("one"))
        assert await enter(ingress.keys, signed(None, EC_KEY, "ES256", kid="two"))
        # An id of the set with an algorithm of another key in it.
        error = await refused(ingress.keys, of_rsa("two"))
        assert (error.info.code, "no such key" in error.info.message) == (INVALID, True)
        error = await refused(ingress.keys, of_rsa("one", OTHER_RSA_KEY))
        assert "signature is wrong" in error.info.message
        assert issuer.asked == 1
        await ingress.tokens.close()


async def test_a_token_without_key_id_needs_a_set_with_one_key_of_its_kind(time: Time) -> None:
    async with jwks_server(jwk(RSA_KEY, None), jwk(EC_KEY, "two")) as issuer:
        ingress = Published(issuer.url, time)
        assert await enter(ingress.keys, of_rsa(None))
        issuer.keys.append(jwk(OTHER_RSA_KEY, "three"))
        time.seconds = 11
        assert await enter(ingress.keys, of_rsa("three", OTHER_RSA_KEY))
        error = await refused(ingress.keys, of_rsa(None))
        assert (error.info.code, "does not name" in error.info.message) == (INVALID, True)
        await ingress.tokens.close()


async def test_unfit_keys_of_a_set_are_left_out(time: Time) -> None:
    public = jwk(RSA_KEY, "rsa")
    secret = {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(b"x" * 64).decode()}
    unfit: list[Any] = [
        {**public, "kid": "enc", "use": "enc"},
        {**public, "kid": "ps", "alg": "PS256"},
        jwk(RSA_KEY, "private", private=True),
        {**public, "kid": "broken", "n": 7},
        {**public, "kid": 7},
        {"kty": "EC", "kid": "curve", "crv": "P-256", "x": "AA", "y": "AA"},
        secret,
        {},
    ]
    async with jwks_server(*unfit, public) as issuer:
        ingress = Published(issuer.url, time, "RS256", "ES256", "HS256")
        assert await enter(ingress.keys, of_rsa("rsa"))
        for kid in ("enc", "ps", "private", "broken", "curve"):
            assert "no such key" in (await refused(ingress.keys, of_rsa(kid))).info.message
        by_secret = signed(None, "x" * 64, "HS256", kid="oct")
        assert "another algorithm" in (await refused(ingress.keys, by_secret)).info.message
        await ingress.tokens.close()


async def test_a_new_key_is_asked_for_once_by_all_who_need_it(time: Time) -> None:
    async with jwks_server(jwk(RSA_KEY, "old")) as issuer:
        ingress = Published(issuer.url, time)
        old = of_rsa("old")
        assert await enter(ingress.keys, old)
        issuer.keys = [jwk(OTHER_RSA_KEY, "new")]
        time.seconds = 11
        new = of_rsa("new", OTHER_RSA_KEY)
        principals = await asyncio.gather(*(enter(ingress.keys, new) for _ in range(20)))
        assert len(set(principals)) == 1
        assert issuer.asked == 2
        # The old key is not published any more: what it signed is refused, known or not.
        assert "no such key" in (await refused(ingress.keys, old)).info.message
        await ingress.tokens.close()


async def test_invented_key_ids_make_no_more_than_one_question_in_ten_seconds(time: Time) -> None:
    async with jwks_server(jwk(RSA_KEY, "one")) as issuer:
        ingress = Published(issuer.url, time)
        for number in range(30):
            error = await refused(ingress.keys, of_rsa(f"invented-{number}"))
            assert (error.info.status, error.info.code) == (401, INVALID)
        assert issuer.asked == 1
        time.seconds = 10
        await refused(ingress.keys, of_rsa("invented"))
        assert issuer.asked == 2
        await ingress.tokens.close()


@pytest.mark.parametrize("mood", ["fail", "redirect", "endless", "garbage"])
async def test_while_the_issuer_is_away_known_keys_serve_and_unknown_ones_may_be_good(
    time: Time, mood: Mood
) -> None:
    async with jwks_server(jwk(RSA_KEY, "one")) as issuer:
        issuer.mood = mood
        ingress = Published(issuer.url, time)
        error = await refused(ingress.keys, of_rsa("one"))
        assert isinstance(error, Unavailable)
        assert (error.info.status, error.info.code) == (503, "key_store_away")
        assert error.info.retry_after == 1.0
        issuer.mood = "serve"
        assert isinstance(await refused(ingress.keys, of_rsa("one")), Unavailable)
        time.seconds = 10
        assert await enter(ingress.keys, of_rsa("one"))
        issuer.mood = mood
        time.seconds = 20
        assert isinstance(await refused(ingress.keys, of_rsa("two")), Unavailable)
        assert await enter(ingress.keys, signed(claims(sub="bob"), RSA_KEY, "RS256", kid="one"))
        assert issuer.asked == 3
        await ingress.tokens.close()


async def test_nobody_waits_for_an_issuer_that_hangs(time: Time) -> None:
    async with jwks_server(jwk(RSA_KEY, "one")) as issuer:
        issuer.mood = "hang"
        ingress = Published(issuer.url, time)
        ingress.tokens.start()
        await issuer.hung.wait()
        async with asyncio.timeout(10):
            errors = await asyncio.gather(*(refused(ingress.keys, of_rsa("one")) for _ in range(5)))
        assert {error.info.code for error in errors} == {"key_store_away"}
        assert issuer.asked == 1
        await ingress.tokens.close()


async def test_an_issuer_that_is_not_there_does_not_keep_other_credentials_out(time: Time) -> None:
    config = Config(
        jwt=JwtConfig(
            jwks_url="http://127.0.0.1:1/jwks", algorithms=("RS256", "HS256"), secret=SHARED
        ),
        api_keys=("a-configured-key",),
    )
    tokens = Tokens(config.jwt, (), time.clock)
    keys = authenticator(config, tokens=tokens, clock=time.clock)
    tokens.start()
    assert isinstance(await refused(keys, of_rsa("one")), Unavailable)
    assert (await enter(keys, "a-configured-key")).kind == "key"
    assert (await enter(keys, signed())).kind == "jwt"
    await tokens.close()


async def test_a_set_is_fetched_again_without_anybody_asking(time: Time) -> None:
    rs256 = {"RS256": get_default_algorithms()["RS256"]}
    async with jwks_server(jwk(RSA_KEY, "one")) as issuer:
        published = Jwks(issuer.url, rs256, time.clock, refresh=0.02)
        published.start()
        assert await published.key("one", "RS256") is not None
        issuer.keys = [jwk(OTHER_RSA_KEY, "two")]
        async with asyncio.timeout(10):
            while published.version < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await published.key("two", "RS256") is not None
        await published.close()
