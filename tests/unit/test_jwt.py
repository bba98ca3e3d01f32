"""Tokens of other issuers: what is accepted, and every way not to be."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from jwt.algorithms import get_default_algorithms

from ingress.auth import Authenticator, Principal
from ingress.jwks import Jwks
from ingress.tokens import Tokens
from ledger.access.configured import configured
from ledger.access.registry import Registry
from schemas.access import LimitSettings
from schemas.config import Config, JwtConfig, ProjectConfig, TeamConfig
from schemas.errors import NexusError, Unauthenticated, Unavailable
from schemas.ids import Clock
from tests.ingress_doors import authenticator
from tests.sample_events import NOON, SECOND
from tests.token_issuer import (
    AUDIENCE,
    EC_KEY,
    ED_KEY,
    ISSUER,
    OTHER_RSA_KEY,
    RSA_KEY,
    SHARED,
    Mood,
    claims,
    jwk,
    jwks_server,
    private_pem,
    public_pem,
    signed,
)

NOW = NOON // SECOND
STRICT = JwtConfig(
    secret=SHARED,
    public_key=public_pem(RSA_KEY),
    algorithms=("HS256", "RS256"),
    issuer=ISSUER,
    audience=AUDIENCE,
)


class Time:
    """A clock that stands still at noon until a test moves it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.clock = Clock(
            now_ns=lambda: NOON + round(self.seconds * SECOND), monotonic=lambda: self.seconds
        )


def door(jwt: JwtConfig, time: Time | None = None, **settings: Any) -> Authenticator:
    clock = (time or Time()).clock
    config = Config(jwt=jwt, **settings)
    return authenticator(
        config,
        Registry(configured(config)),
        tokens=Tokens(config.jwt, config.tiers, clock),
        clock=clock,
    )


async def enter(keys: Authenticator, token: str | bytes, header: str = "bearer") -> Principal:
    text = token.encode() if isinstance(token, str) else token
    if header == "bearer":
        return await keys.authenticate([(b"authorization", b"Bearer " + text)])
    return await keys.authenticate([(header.encode(), text)])


async def refused(keys: Authenticator, token: str | bytes) -> NexusError:
    with pytest.raises(NexusError) as error:
        await enter(keys, token)
    return error.value


def unsigned(header: dict[str, Any], said: Any = None, signature: bytes = b"") -> str:
    """Three parts with any header and any signature."""
    parts = (json.dumps(header).encode(), json.dumps(said or claims()).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def signed_by_public_key() -> str:
    """HS256 with the issuer's public key as the secret: the classic confusion."""
    head = unsigned({"alg": "HS256", "typ": "JWT"}).rstrip(".")
    digest = hmac.digest(public_pem(RSA_KEY).encode(), head.encode(), hashlib.sha256)
    return f"{head}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def with_changed(part: int, change: Callable[[str], str]) -> str:
    parts = signed().split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def deep() -> bytes:
    return b'{"sub":"ann","x":' + b"[" * 4000 + b"]" * 4000 + b"}"


INVALID = "invalid_token"
# name: (the token, its code, words of the reason)
BAD: dict[str, tuple[Callable[[], str | bytes], str, str]] = {
    "not signed": (lambda: unsigned({"alg": "none"}), INVALID, "alg none"),
    "not signed, in capitals": (lambda: unsigned({"alg": "NONE"}), INVALID, "alg none"),
    "none, but signed": (
        lambda: unsigned({"alg": "none"}, signature=b"x" * 32),
        INVALID,
        "alg none",
    ),
    "wrong secret": (lambda: signed(key="y" * 64), INVALID, "signature is wrong"),
    "wrong private key": (
        lambda: signed(key=OTHER_RSA_KEY, algorithm="RS256"),
        INVALID,
        "signature is wrong",
    ),
    "signed with the public key": (signed_by_public_key, INVALID, "signature is wrong"),
    "another HMAC": (lambda: signed(algorithm="HS512"), INVALID, "HS256, RS256"),
    "another family": (
        lambda: signed(key=EC_KEY, algorithm="ES256"),
        INVALID,
        "another algorithm",
    ),
    "no algorithm": (lambda: unsigned({"typ": "JWT"}), INVALID, "header"),
    "algorithm is a number": (lambda: unsigned({"alg": 256}), INVALID, "header"),
    "header is a list": (lambda: unsigned([]), INVALID, "header"),  # type: ignore[arg-type]
    "key id is a number": (lambda: unsigned({"alg": "HS256", "kid": 1}), INVALID, "header"),
    "critical extension": (
        lambda: unsigned({"alg": "HS256", "crit": ["exp"], "exp": 1}),
        INVALID,
        "extensions",
    ),
    "detached": (lambda: unsigned({"alg": "HS256", "b64": False}), INVALID, "extensions"),
    "expired": (lambda: signed(claims(exp=NOW - 11)), "token_expired", "expired"),
    "expired to the second": (lambda: signed(claims(exp=NOW - 10)), "token_expired", "expired"),
    "not yet valid": (lambda: signed(claims(nbf=NOW + 11)), INVALID, "not valid yet"),
    "issued in the future": (lambda: signed(claims(iat=NOW + 11)), INVALID, "future"),
    "no end": (lambda: signed(claims(exp=None)), INVALID, "required field `exp`"),
    "end is text": (lambda: signed(claims(exp=str(NOW + 60))), INVALID, "`$.exp`"),
    "end is true": (lambda: signed(claims(exp=True)), INVALID, "`$.exp`"),
    "end in milliseconds": (lambda: signed(claims(exp=NOW * 1000)), INVALID, "`$.exp`"),
    "end is beyond numbers": (
        lambda: signed(b'{"sub":"ann","exp":1e999}'),
        INVALID,
        "claims are not valid",
    ),
    "wrong issuer": (lambda: signed(claims(iss="https://evil.example")), INVALID, "another issuer"),
    "no issuer": (lambda: signed(claims(iss=None)), INVALID, "no issuer"),
    "issuer is a list": (lambda: signed(claims(iss=[ISSUER])), INVALID, "`$.iss`"),
    "wrong audience": (lambda: signed(claims(aud="other")), INVALID, "somebody else"),
    "wrong audiences": (lambda: signed(claims(aud=["a", "b"])), INVALID, "somebody else"),
    "audience within a word": (lambda: signed(claims(aud="nexus2")), INVALID, "somebody else"),
    "no audience": (lambda: signed(claims(aud=None)), INVALID, "for whom"),
    "audience is a number": (lambda: signed(claims(aud=1)), INVALID, "`$.aud`"),
    "no user": (lambda: signed(claims(sub=None)), INVALID, "required field `sub`"),
    "empty user": (lambda: signed(claims(sub="")), INVALID, "no user"),
    "user is a number": (lambda: signed(claims(sub=17)), INVALID, "`$.sub`"),
    "user with a line break": (lambda: signed(claims(sub="a\n")), INVALID, "`$.sub`"),
    "user too long": (lambda: signed(claims(sub="u" * 129)), INVALID, "`$.sub`"),
    "project too long": (lambda: signed(claims(project="p" * 129)), INVALID, "`$.project`"),
    "project is a number": (lambda: signed(claims(project=1)), INVALID, "`$.project`"),
    "team is a list": (lambda: signed(claims(team=["a"])), INVALID, "`$.team`"),
    "tier is unknown": (lambda: signed(claims(tier="gold")), INVALID, "tier"),
    "tier is a number": (lambda: signed(claims(tier=1)), INVALID, "`$.tier`"),
    "models is a number": (lambda: signed(claims(models=1)), INVALID, "`$.models`"),
    "models holds a number": (lambda: signed(claims(models=["a", 1])), INVALID, "`$.models[1]`"),
    "models is empty": (lambda: signed(claims(models=[])), INVALID, "models are not valid"),
    "models is blank": (lambda: signed(claims(models="  ")), INVALID, "models are not valid"),
    "a model too long": (lambda: signed(claims(models="m" * 201)), INVALID, "models are not"),
    "claims are a list": (lambda: signed([1]), INVALID, "claims are not valid"),
    "claims are no JSON": (lambda: signed(b"\xff\x00"), INVALID, "claims are not valid"),
    "claims are too deep": (lambda: signed(deep()), INVALID, "claims are not valid"),
    "truncated signature": (lambda: signed()[:-1], INVALID, "base64url"),
    "without signature": (lambda: signed().rpartition(".")[0], INVALID, "three parts"),
    "empty signature": (lambda: with_changed(2, lambda _: ""), INVALID, "base64url"),
    "a fourth part": (lambda: f"{signed()}.e30", INVALID, "three parts"),
    "two dots and nothing": (lambda: "..", INVALID, "header"),
    "padded": (lambda: with_changed(2, lambda part: f"{part}="), INVALID, "base64url"),
    "a space inside": (lambda: with_changed(1, lambda part: f"{part[:5]} {part[5:]}"), INVALID, ""),
    "plain base64": (lambda: with_changed(2, lambda part: f"+/{part[2:]}"), INVALID, "base64url"),
    "letters of Greek": (lambda: with_changed(0, lambda part: f"{part}λ"), INVALID, "header"),
    "100 kB": (lambda: signed(claims(note="x" * 75_000)), INVALID, "longer"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_token_is_refused_with_its_reason(name: str) -> None:
    make, code, reason = BAD[name]
    token = make()
    error = await refused(door(STRICT), token)
    assert isinstance(error, Unauthenticated)
    assert (error.info.status, error.info.code) == (401, code)
    assert reason in error.info.message
    text = token.decode("latin-1") if isinstance(token, bytes) else token
    assert not any(part in error.info.message for part in text.split(".") if len(part) > 4)


@pytest.mark.parametrize("header", ["bearer", "x-api-key", "x-nexus-token"])
async def test_a_good_token_says_who_calls(header: str) -> None:
    said = claims(project="shop", team="web", tier="pro", models=["gpt-*", "o3"])
    principal = await enter(door(STRICT), signed(said), header)
    identity = hashlib.sha256(f"{ISSUER}\0ann".encode()).hexdigest()[:12]
    assert principal.kind == "jwt"
    assert not principal.admin
    assert principal.tenant.key_id == f"jwt_{identity}"
    assert (principal.tenant.user, principal.tenant.project) == ("ann", "shop")
    assert (principal.tenant.team, principal.tier) == ("web", "pro")
    assert principal.models == (("gpt-*", "o3"),)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (SHARED, "HS256"),
        (SHARED, "HS512"),
        (RSA_KEY, "RS256"),
        (RSA_KEY, "PS384"),
        (EC_KEY, "ES256"),
        (ED_KEY, "EdDSA"),
    ],
)
async def test_every_family_of_algorithms_is_understood(key: Any, algorithm: str) -> None:
    given: dict[str, Any] = (
        {"secret": key} if isinstance(key, str) else {"public_key": public_pem(key)}
    )
    keys = door(JwtConfig(algorithms=(algorithm,), **given))
    assert (await enter(keys, signed(key=key, algorithm=algorithm))).tenant.user == "ann"


@pytest.mark.parametrize("signature", [b"x", b"x" * 63, b"x" * 64, b"x" * 256, b"x" * 9000])
@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA_KEY, "RS256"), (RSA_KEY, "PS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")],
)
async def test_a_signature_of_any_length_is_merely_wrong(
    key: Any, algorithm: str, signature: bytes
) -> None:
    keys = door(JwtConfig(public_key=public_pem(key), algorithms=(algorithm,)))
    error = await refused(keys, unsigned({"alg": algorithm}, signature=signature))
    assert (error.info.status, "signature is wrong" in error.info.message) == (401, True)


async def test_the_short_secret_of_the_examples_works() -> None:
    key = b"my-secret"
    head = unsigned({"alg": "HS256"}).rstrip(".")
    digest = hmac.digest(key, head.encode(), hashlib.sha256)
    token = f"{head}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
    assert (await enter(door(JwtConfig(secret=key.decode())), token)).tenant.user == "ann"


@pytest.mark.parametrize(
    "said",
    [
        claims(aud=["other", AUDIENCE]),
        claims(nbf=NOW + 10, iat=NOW + 10),
        claims(exp=NOW - 9.5),
        claims(nbf=None, iat=None),
        claims(sub="auth0|17", project="", models="gpt-4o claude-*"),
        claims(tier="house"),
        claims(azp="somebody", realm_access={"roles": ["x"]}),
    ],
)
async def test_what_the_rules_allow_is_accepted(said: dict[str, Any]) -> None:
    principal = await enter(
        door(STRICT, tiers={"house": LimitSettings(concurrent=1)}), signed(said)
    )
    assert principal.tenant.user == said["sub"]
    assert principal.models == ((("gpt-4o", "claude-*"),) if "models" in said else ())


async def test_issuer_and_audience_count_only_where_they_are_configured() -> None:
    keys = door(JwtConfig(secret=SHARED))
    for said in (claims(iss=None, aud=None), claims(iss="anybody", aud="anything")):
        assert (await enter(keys, signed(said))).tenant.user == "ann"


async def test_users_of_two_issuers_are_two() -> None:
    keys = door(JwtConfig(secret=SHARED))
    ids = {
        (await enter(keys, signed(claims(iss=iss, sub=sub)))).tenant.key_id
        for iss, sub in (("a", "ann"), ("b", "ann"), ("a", "bob"), (None, "ann"))
    }
    assert len(ids) == 4


async def test_project_and_team_add_what_they_say() -> None:
    keys = door(
        STRICT,
        projects={
            "shop": ProjectConfig(
                team="web", allowed_models=("gpt-*",), tier="pro", payloads="redacted"
            )
        },
        teams={"web": TeamConfig(allowed_models=("*-mini",), limits=LimitSettings(concurrent=3))},
    )
    principal = await enter(keys, signed(claims(project="shop", models="gpt-4*")))
    assert principal.tenant.team == "web"
    assert principal.models == (("gpt-4*",), ("gpt-*",), ("*-mini",))
    assert (principal.tier, principal.payloads) == ("pro", "redacted")
    assert principal.limits is None
    assert principal.allows("gpt-4o-mini")
    assert not principal.allows("gpt-4o")


async def test_a_token_that_was_accepted_is_refused_once_it_expires() -> None:
    time = Time()
    keys, token = door(STRICT, time), signed(claims(exp=NOW + 60))
    principal = await enter(keys, token)
    time.seconds = 69.9
    assert await enter(keys, token) == principal
    assert keys.stands(principal)
    time.seconds = 70
    assert (await refused(keys, token)).info.code == "token_expired"
    ended = keys.end_of(principal)
    assert ended is not None
    assert ended.info.code == "token_expired"


async def test_without_jwt_a_token_is_an_unknown_key() -> None:
    error = await refused(authenticator(Config(admin_token="admin")), signed())
    assert (error.info.status, error.info.code) == (401, "invalid_api_key")


async def test_a_public_key_may_come_from_a_file_or_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(public_pem(RSA_KEY))
    one_line = public_pem(RSA_KEY).replace("\n", "\\n")
    for given in (str(file), one_line):
        keys = door(JwtConfig(public_key=given, algorithms=("RS256",)))
        assert await enter(keys, signed(key=RSA_KEY, algorithm="RS256"))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (JwtConfig(secret=SHARED, algorithms=("none",)), "'none' is not one of"),
        (JwtConfig(secret=SHARED, algorithms=("HS256", "HS1")), "'HS1' is not one of"),
        (JwtConfig(secret=SHARED, algorithms=("RS256",)), "a public key or a JWKS URL"),
        (JwtConfig(public_key=public_pem(RSA_KEY)), "HS\\* need jwt.secret"),
        (JwtConfig(secret=public_pem(RSA_KEY)), "none of HS256 goes with the key"),
        (JwtConfig(public_key=public_pem(RSA_KEY), algorithms=("ES256",)), "none of ES256"),
        (JwtConfig(public_key=private_pem(RSA_KEY), algorithms=("RS256",)), "private key"),
        (JwtConfig(public_key="/nowhere/key.pem", algorithms=("RS256",)), "neither PEM nor"),
        (JwtConfig(jwks_url="ftp://x/jwks", algorithms=("RS256",)), "http or https"),
        (JwtConfig(jwks_url="http://x", public_key="x", algorithms=("RS256",)), "either"),
    ],
)
def test_a_configuration_that_could_accept_nobody_is_refused(
    config: JwtConfig, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        Tokens(config, (), Clock())
    assert SHARED not in str(error.value)


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
