"""Every way for a token of another issuer not to be accepted: each says its code and its reason."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest

from schemas.config import JwtConfig
from schemas.errors import Unauthenticated
from tests.token_door import INVALID, NOW, STRICT, door, refused, unsigned
from tests.token_issuer import (
    EC_KEY,
    ED_KEY,
    ISSUER,
    OTHER_RSA_KEY,
    RSA_KEY,
    claims,
    public_pem,
    signed,
)


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
