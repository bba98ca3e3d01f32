"""Tokens of other issuers: which are accepted, and who is meant by them."""

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest

from ingress.tokens import Tokens
from schemas.access import LimitSettings
from schemas.config import Config, JwtConfig, ProjectConfig, TeamConfig
from schemas.ids import Clock
from tests.ingress_doors import authenticator
from tests.token_door import NOW, STRICT, Time, door, enter, refused, unsigned
from tests.token_issuer import (
    AUDIENCE,
    EC_KEY,
    ED_KEY,
    ISSUER,
    RSA_KEY,
    SHARED,
    claims,
    private_pem,
    public_pem,
    signed,
)


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
