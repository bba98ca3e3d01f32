"""JSON Web Tokens: whose signature counts, and what of their claims makes a caller."""

import base64
import hashlib
import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

from ingress import refusals
from ingress.jwks import Jwks
from schemas.access import BUILT_IN_TIERS, Id, Key, ModelPatterns, Name
from schemas.config import JwtConfig, Unusable
from schemas.ids import Clock

if TYPE_CHECKING:
    from jwt.algorithms import Algorithm

log = logging.getLogger("nexus.ingress")

_SHARED = ("HS256", "HS384", "HS512")
_PUBLIC = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "ES256K", "EdDSA"),
)
_LONGEST = 16 * 1024
_KEPT = 10_000
_BASE64URL = re.compile(rb"[0-9A-Za-z_-]+")

# In nanoseconds this still fits into 64 bits; milliseconds instead of seconds do not.
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=9_000_000_000)]
_Texts = str | tuple[str, ...]


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None
    crit: Any = None
    b64: Any = None


class _Claims(msgspec.Struct):
    """What a token says; times are seconds since 1970."""

    sub: Id
    exp: _Seconds
    nbf: _Seconds | None = None
    iat: _Seconds | None = None
    iss: str | None = None
    aud: _Texts | None = None
    project: Id = ""
    team: Id = ""
    tier: Name = ""
    models: _Texts | None = None


class Verified(NamedTuple):
    """A token as the key that it stands for, and when it ends, in nanoseconds since 1970."""

    key: Key
    until_ns: int


_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode_header = msgspec.json.Decoder(_Header).decode
_decode_claims = msgspec.json.Decoder(_Claims).decode


def is_token(text: bytes) -> bool:
    """Whether a credential means to be a token: in three parts, or beginning as JSON does."""
    return text.count(b".") == 2 or text.startswith(b"ey")


class Tokens:
    """Verifies tokens, each in full once; keeps what it has verified until it expires.

    `tiers` are the names of the configuration's own. Raises Unusable for a JwtConfig by which no
    token could ever be accepted. Call `start` where a JWKS URL may be configured, `close` at the
    end.
    """

    def __init__(self, config: JwtConfig, tiers: Collection[str], clock: Clock) -> None:
        self._config = config
        self._tiers = {*BUILT_IN_TIERS, *tiers}
        self._clock = clock
        self._algorithms = _algorithms(config.algorithms)
        public = {name: one for name, one in self._algorithms.items() if name in _PUBLIC}
        self._jwks = Jwks(config.jwks_url, public, clock) if config.jwks_url else None
        self._keys = _static_keys(config, self._algorithms)
        self._accepted = [*self._keys, *(public if self._jwks else ())]
        if not self._accepted:
            raise Unusable(
                f"jwt.algorithms: none of {', '.join(config.algorithms)} goes with the key that is"
                " given: HS* need jwt.secret, RS*, PS*, ES* and EdDSA a public key or a JWKS URL"
            )
        self._verified: dict[bytes, Verified] = {}
        self._version = 0

    def start(self) -> None:
        """Begin to fetch the issuer's keys."""
        if self._jwks is not None:
            self._jwks.start()

    async def close(self) -> None:
        if self._jwks is not None:
            await self._jwks.close()

    async def verify(self, token: bytes) -> Verified:
        """What a token says.

        Raises Unauthenticated with the reason, Unavailable while the issuer's keys are away.
        """
        if self._jwks is not None and self._jwks.version != self._version:
            self._version = self._jwks.version
            self._verified.clear()
        digest = hashlib.sha256(token).digest()
        verified = self._verified.get(digest)
        if verified is None:
            verified = self._accept(await self._signed(token))
            if len(self._verified) >= _KEPT:
                self._verified.clear()
            self._verified[digest] = verified
        elif verified.until_ns <= self._clock.now_ns():
            raise refusals.token_expired()
        return verified

    async def _signed(self, token: bytes) -> bytes:
        """The claims of a token whose signature is good."""
        if len(token) > _LONGEST:
            raise refusals.token(f"it is longer than {_LONGEST} characters")
        parts = token.split(b".")
        if len(parts) != 3:
            raise refusals.token("it is not whole: a token has three parts, with dots between")
        header = _header(parts[0])
        if header.alg not in self._accepted:
            raise refusals.token(_not_accepted(header.alg, self._accepted))
        key = await self._key(header)
        claims, signature = _decoded(parts[1]), _decoded(parts[2])
        if claims is None or signature is None:
            raise refusals.token("a part of it is not base64url")
        signed = token[: -len(parts[2]) - 1]
        if not self._algorithms[header.alg].verify(signed, key, signature):
            raise refusals.token("its signature is wrong")
        return claims

    async def _key(self, header: _Header) -> Any:
        key = self._keys.get(header.alg)
        if key is None and self._jwks is not None:
            key = await self._jwks.key(header.kid, header.alg)
        if key is not None:
            return key
        if header.kid is None:
            raise refusals.token("it does not name its key (kid), and its issuer has several")
        raise refusals.token("its issuer has no such key (kid)")

    def _accept(self, payload: bytes) -> Verified:
        """The key that a signed payload stands for, if it is for here and now."""
        try:
            claims = _decode_claims(payload)
        except _MALFORMED as error:
            raise refusals.token(f"its claims are not valid: {error}") from None
        self._check_times(claims)
        self._check_parties(claims)
        if claims.tier and claims.tier not in self._tiers:
            raise refusals.token("its tier is not known here")
        until_ns = round((claims.exp + self._config.leeway) * 1e9)
        identity = hashlib.sha256(f"{claims.iss or ''}\0{claims.sub}".encode()).hexdigest()
        key = Key(
            id=f"jwt_{identity[:12]}",
            project=claims.project,
            team=claims.team,
            user=claims.sub,
            tier=claims.tier,
            allowed_models=_models(claims.models),
        )
        return Verified(key, until_ns)

    def _check_times(self, claims: _Claims) -> None:
        now, leeway = self._clock.now_ns() / 1e9, self._config.leeway
        if claims.exp + leeway <= now:
            raise refusals.token_expired()
        if claims.nbf is not None and claims.nbf - leeway > now:
            raise refusals.token("it is not valid yet (nbf)")
        if claims.iat is not None and claims.iat - leeway > now:
            raise refusals.token("it was issued in the future (iat)")

    def _check_parties(self, claims: _Claims) -> None:
        if not claims.sub:
            raise refusals.token("it names no user (sub)")
        issuer, audience = self._config.issuer, self._config.audience
        if issuer and claims.iss is None:
            raise refusals.token("it names no issuer (iss)")
        if issuer and claims.iss != issuer:
            raise refusals.token("it is from another issuer (iss)")
        meant_for = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
        if audience and meant_for is None:
            raise refusals.token("it does not say for whom it is (aud)")
        if audience and audience not in (meant_for or ()):
            raise refusals.token("it is for somebody else (aud)")


def _algorithms(names: Collection[str]) -> dict[str, "Algorithm"]:
    from jwt.algorithms import get_default_algorithms

    for name in names:
        if name not in _SHARED and name not in _PUBLIC:
            raise Unusable(
                f"jwt.algorithms: {name!r} is not one of {', '.join((*_SHARED, *_PUBLIC))}"
            )
    known = get_default_algorithms()
    return {name: known[name] for name in names}


def _static_keys(config: JwtConfig, algorithms: dict[str, "Algorithm"]) -> dict[str, Any]:
    """The configured keys by each algorithm that they are for, ready to verify with."""
    from jwt.exceptions import InvalidKeyError

    if config.public_key and config.jwks_url:
        raise Unusable("jwt: give either public_key or jwks_url")
    keys: dict[str, Any] = {}
    pem = _pem(config.public_key) if config.public_key else b""
    for name, algorithm in algorithms.items():
        text = config.secret.encode() if name in _SHARED else pem
        if not text:
            continue
        try:
            keys[name] = algorithm.prepare_key(text)
        except (InvalidKeyError, TypeError, ValueError):
            continue
        if hasattr(keys[name], "private_bytes"):
            raise Unusable("jwt.public_key: is a private key; give the public one")
        if weakness := algorithm.check_key_length(keys[name]):
            log.warning("a weak key for tokens", extra={"algorithm": name, "reason": weakness})
    return keys


def _pem(text: str) -> bytes:
    """PEM as it is, from one line with `\\n` in it, or from the file that the text names."""
    if "-----BEGIN" in text:
        return text.replace("\\n", "\n").encode()
    try:
        return Path(text).read_bytes()
    except (OSError, ValueError) as error:
        raise Unusable("jwt.public_key: is neither PEM nor a file that can be read") from error


def _header(part: bytes) -> _Header:
    data = _decoded(part)
    try:
        header = _decode_header(data or b"")
    except _MALFORMED:
        raise refusals.token("its header is not that of a JWT") from None
    if header.crit is not None or header.b64 is not None:
        raise refusals.token("it asks for extensions that are not known here (crit)")
    return header


def _not_accepted(alg: str, accepted: Collection[str]) -> str:
    if alg.lower() == "none":
        return "it is not signed (alg none)"
    return f"it is signed with another algorithm than {', '.join(accepted)}"


def _decoded(part: bytes) -> bytes | None:
    """The bytes of a base64url part without padding; None for any other way to write them."""
    if len(part) % 4 == 1 or _BASE64URL.fullmatch(part) is None:
        return None
    data = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    return data if base64.urlsafe_b64encode(data).rstrip(b"=") == part else None


def _models(claim: _Texts | None) -> tuple[str, ...] | None:
    if claim is None:
        return None
    patterns = claim.split() if isinstance(claim, str) else claim
    try:
        return msgspec.convert(patterns, ModelPatterns)
    except msgspec.ValidationError as error:
        raise refusals.token(f"its models are not valid: {error}") from None
