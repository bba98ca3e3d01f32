"""Who is calling: the credentials of a request to a principal, by look-up in memory."""

import hashlib
from typing import Literal, Protocol

import msgspec

from ingress import refusals
from ingress.credentials import OUR_PREFIX, Headers, is_client_key, is_visible, sent_in, words
from ingress.tokens import Tokens, is_token
from ledger.access.key_text import is_well_formed
from ledger.access.registry import Registry
from ledger.secret import ServerSecret
from schemas.access import Key, Limits, OnDisconnect, Payloads, Secret, nanoseconds
from schemas.call import Tenant
from schemas.config import Config
from schemas.errors import Forbidden, Unauthenticated, Unavailable
from schemas.globs import matches
from schemas.ids import Clock

__all__ = ["Authenticator", "Feed", "Headers", "Kind", "Principal"]

# Few: what is kept long makes every collection of garbage dearer, and a look-up is cheap.
_HELD = 1024
_LONGEST = 16 * 1024
_LONGEST_APP = 128


Kind = Literal["key", "jwt", "client", "admin"]


class Feed(Protocol):
    """What brings the registry its news: whether it was complete ever, and whether it is now."""

    @property
    def loaded(self) -> bool: ...

    @property
    def fresh(self) -> bool: ...


class Principal(msgspec.Struct, frozen=True):
    """An authenticated caller; `admin` may see and do everything.

    `kind` is what it came with: a key of ours, a JWT, the admin token, or (`client`) a key for
    `target_url` that is not ours. Every tuple of `models` must allow a model. `limits` are the
    key's own, beside those of project, team and tier; with `queue` a call waits where they would
    refuse it. `until_ns` ends the credential, where it has an end of its own; `secret` is how the
    digest of the shown secret begins, to tell it from other secrets of the same key.
    """

    tenant: Tenant
    admin: bool = False
    kind: Kind = "key"
    models: tuple[tuple[str, ...], ...] = ()
    tier: str = ""
    limits: Limits | None = None
    queue: bool = False
    on_disconnect: OnDisconnect = "cancel"
    payloads: Payloads | None = None
    until_ns: int | None = None
    secret: bytes = b""

    def allows(self, *names: str) -> bool:
        """Whether the caller may use a model known by these names."""
        return self._forbidding(names) is None

    def require_model(self, *names: str) -> None:
        """Raises Forbidden unless the caller may use a model known by these names."""
        patterns = self._forbidding(names)
        if patterns is not None:
            allowed = ", ".join(patterns[:10]) + (", ..." if len(patterns) > 10 else "")
            raise Forbidden(
                f"The credential does not allow the model {names[0][:200]!r}: it allows {allowed}.",
                code="model_not_allowed",
                param="model",
            )

    def _forbidding(self, names: tuple[str, ...]) -> tuple[str, ...] | None:
        for patterns in self.models:
            if not any(matches(pattern, name) for pattern in patterns for name in names):
                return patterns
        return None


_ADMIN = Principal(Tenant(key_id="admin"), admin=True, kind="admin")


class Authenticator:
    """Knows every credential by a digest: a look-up takes the same time for any wrong one.

    Virtual keys are looked up in the registry, which needs no I/O; while it may be incomplete, a
    key that is not in it may still be good, and says so by a 503.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        feed: Feed,
        secret: ServerSecret,
        tokens: Tokens | None,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._feed = feed
        self._secret = secret
        self._tokens = tokens
        self._clock = clock
        self._passes_through = bool(config.target_url)
        self._admin = {_digest(config.admin_token.encode())} if config.admin_token else set()
        opens = registry.configured.opens
        self._configured = {_digest(text.encode()): key_id for text, key_id in opens.items()}
        # Their lengths may be found out by the time it takes, nothing else.
        self._lengths = {len(text.encode()) for text in (*opens, config.admin_token) if text}
        self._held: dict[bytes, Principal] = {}
        self._version = -1

    async def authenticate(self, headers: Headers) -> Principal:
        """The caller behind the first valid of X-Nexus-Token, X-API-Key, Authorization: Bearer.

        `X-Nexus-App` names the application in every event. Raises Unauthenticated or Unavailable,
        for the first credential where none is valid.
        """
        sent = sent_in(headers)
        refusal: Unauthenticated | Unavailable | None = None
        for text, may_pass in ((sent.token, False), (sent.api_key, True), (sent.bearer, True)):
            if text:
                try:
                    principal = await self._principal(text, may_pass)
                except (Unauthenticated, Unavailable) as error:
                    refusal = refusal or error
                else:
                    return _named(principal, sent.app) if sent.app else principal
        if refusal is not None:
            raise refusal
        raise refusals.other_scheme() if sent.other_scheme else refusals.nothing_sent()

    async def require_admin(self, headers: Headers) -> Principal:
        """The administrator. Raises Forbidden for anybody else, and what `authenticate` raises."""
        principal = await self.authenticate(headers)
        if not principal.admin:
            raise Forbidden(
                "This is for the administrator: send the admin token (ADMIN_TOKEN).",
                code="admin_only",
            )
        return principal

    def stands(self, principal: Principal) -> bool:
        """False once the principal's key was revoked or has expired."""
        return self.end_of(principal) is None

    def end_of(self, principal: Principal) -> Unauthenticated | None:
        """Why a principal from some time ago would be refused now; None while it would not."""
        if principal.kind == "jwt":
            over = principal.until_ns is not None and principal.until_ns <= self._clock.now_ns()
            return refusals.token_expired() if over else None
        if principal.kind != "key":
            return None
        key = self._registry.key(principal.tenant.key_id)
        if key is None:
            return refusals.unknown() if self._is_complete() else None
        if not principal.secret:
            return self._refusal(key, None, _end_of(key, None))
        for secret in key.secrets:
            if secret.digest.startswith(principal.secret):
                return self._refusal(key, secret, _end_of(key, secret))
        return refusals.rotated(None)

    def hold_any(self, text: bytes) -> bool:
        """Whether a word of the text is a configured key, or begins like any key of ours."""
        return any(
            word.startswith(OUR_PREFIX)
            or (len(word) in self._lengths and self._is_ours(_digest(word)))
            for word in words(text)
        )

    async def _principal(self, text: bytes, may_pass: bool) -> Principal:
        if len(text) in self._lengths:
            digest = _digest(text)
            if digest in self._admin:
                return _ADMIN
            if digest in self._configured:
                return self._of_configured(digest)
        if text.startswith(OUR_PREFIX):
            return self._of_virtual(text)
        if may_pass and self._passes_through and is_client_key(text):
            return self._of_client(text)
        if self._tokens is not None and is_token(text):
            token = await self._tokens.verify(text)
            return self._bound(token.key, "jwt", token.until_ns)
        if len(text) > _LONGEST:
            raise refusals.too_long()
        raise refusals.unknown() if is_visible(text) else refusals.unreadable()

    def _of_configured(self, digest: bytes) -> Principal:
        key = self._registry.configured.keys[self._configured[digest]]
        return self._remembered(digest) or self._remember(digest, self._opened(key, None))

    def _of_virtual(self, text: bytes) -> Principal:
        """Whoever has a virtual key. Raises Unauthenticated, Unavailable."""
        for digest in self._secret.digests(text):
            held = self._remembered(digest)
            if held is not None:
                return held
            owner = self._registry.owner(digest)
            if owner is not None:
                return self._remember(digest, self._opened(*owner))
        if not is_well_formed(text):
            raise refusals.mistyped()
        raise refusals.unknown() if self._is_complete() else refusals.away()

    def _of_client(self, text: bytes) -> Principal:
        """Whoever comes with a key of its own for `target_url`: known by the key's digest."""
        digest = self._secret.digest(text) if self._secret.available else _digest(text)
        return Principal(Tenant(key_id=f"client_{digest.hex()[:12]}"), kind="client")

    def _opened(self, key: Key, secret: Secret | None) -> Principal:
        until_ns = _end_of(key, secret)
        if key.revoked_at is not None or until_ns is not None:
            refusal = self._refusal(key, secret, until_ns)
            if refusal is not None:
                raise refusal
        return self._bound(key, "key", until_ns, secret.digest if secret is not None else b"")

    def _refusal(
        self, key: Key, secret: Secret | None, until_ns: int | None
    ) -> Unauthenticated | None:
        """Why a key opens nothing any more."""
        if key.revoked_at is not None:
            return refusals.revoked(key.revoked_at)
        if until_ns is None or until_ns > self._clock.now_ns():
            return None
        if key.expires_at is not None and nanoseconds(key.expires_at) == until_ns:
            return refusals.expired(key.expires_at)
        return refusals.rotated(secret.until if secret is not None else None)

    def _bound(self, key: Key, kind: Kind, until_ns: int | None, secret: bytes = b"") -> Principal:
        """The principal of a key, with what its project and its team add."""
        project = self._registry.project(key.project) if key.project else None
        team_id = key.team or (project.team if project is not None else "")
        team = self._registry.team(team_id) if team_id else None
        holders = [holder for holder in (key, project, team) if holder is not None]
        return Principal(
            Tenant(key.id, key.project, team_id, key.user, key.name),
            kind=kind,
            models=tuple([one.allowed_models for one in holders if one.allowed_models is not None]),
            tier=key.tier or (project.tier if project else "") or (team.tier if team else ""),
            limits=key.limits,
            queue=key.queue,
            on_disconnect=key.on_disconnect,
            payloads=key.payloads or (project.payloads if project is not None else None),
            until_ns=until_ns,
            secret=secret,
        )

    def _remembered(self, digest: bytes) -> Principal | None:
        if self._version != self._registry.version:
            self._held.clear()
            self._version = self._registry.version
        held = self._held.get(digest)
        if held is None or held.until_ns is None or held.until_ns > self._clock.now_ns():
            return held
        return None

    def _remember(self, digest: bytes, principal: Principal) -> Principal:
        if len(self._held) >= _HELD:
            self._held.clear()
        self._held[digest] = principal
        return principal

    def _is_complete(self) -> bool:
        """Whether a key that is not in the registry does not exist."""
        return self._feed.loaded and self._feed.fresh

    def _is_ours(self, digest: bytes) -> bool:
        return digest in self._configured or digest in self._admin


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def _end_of(key: Key, secret: Secret | None) -> int | None:
    """When the key, or this secret of it, ends of itself; nanoseconds since 1970."""
    until = key.expires_at
    if secret is not None and secret.until is not None:
        until = secret.until if until is None else min(until, secret.until)
    return None if until is None else nanoseconds(until)


def _named(principal: Principal, app: bytes) -> Principal:
    name = app.decode("latin-1")[:_LONGEST_APP]
    return msgspec.structs.replace(
        principal, tenant=msgspec.structs.replace(principal.tenant, app=name)
    )
