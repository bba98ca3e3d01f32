"""Access tokens of cloud providers: asked for by OAuth, shared by all attempts, renewed in time."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from schemas.call import Timeouts
from schemas.ids import Clock
from workers.failures import Failures
from workers.http import Http
from workers.providers.base import NOT_AS_ASKED, AttemptFailed
from workers.reply import Reply

GOOGLE_CLOUD = "https://www.googleapis.com/auth/cloud-platform"
ENTRA = "https://login.microsoftonline.com"
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTED_FOR = 3600
# A token is renewed five minutes before its end, or in the last quarter of a shorter life.
_RENEWED_BEFORE = 300.0
_LIFE_UNLESS_TOLD = 600.0
_PAUSE_AFTER_FAILURE = 5.0
_REFUSALS = frozenset({400, 401, 403, 404})
_PATIENCE = Timeouts(connect=5.0, total=15.0)


class Grant(NamedTuple):
    """What a token server is asked: the form goes by POST to its URL."""

    url: str
    form: dict[str, str]


Source = Callable[[], Grant]


class _KeyFile(msgspec.Struct):
    client_email: str
    private_key: str
    private_key_id: str = ""
    token_uri: str = "https://oauth2.googleapis.com/token"


class _Issued(msgspec.Struct):
    access_token: str
    expires_in: int | str | None = None


def service_account(key_file: str, clock: Clock, scope: str = GOOGLE_CLOUD) -> Source:
    """Grants by a Google service account, whose JSON key is read from a file once.

    The assertion is a JWT signed with RS256, good for an hour
    (developers.google.com/identity/protocols/oauth2/service-account). Raises ValueError with
    what is wrong with the file, and nothing of what stands in it.
    """
    try:
        account = msgspec.json.decode(Path(key_file).read_bytes(), type=_KeyFile)
    except OSError as error:
        raise ValueError(f"{key_file} cannot be read ({error.strerror})") from error
    except NOT_AS_ASKED as error:
        raise ValueError(f"{key_file} is not the JSON key of a service account") from error
    try:
        key = load_pem_private_key(account.private_key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(f"{key_file} holds no RSA private key")
    signing_key = key

    def grant() -> Grant:
        now = clock.now_ns() // 1_000_000_000
        claims = {
            "iss": account.client_email,
            "scope": scope,
            "aud": account.token_uri,
            "iat": now,
            "exp": now + _ASSERTED_FOR,
        }
        headers = {"kid": account.private_key_id} if account.private_key_id else None
        assertion = jwt.encode(claims, signing_key, "RS256", headers)
        return Grant(account.token_uri, {"grant_type": _JWT_BEARER, "assertion": assertion})

    return grant


def client_credentials(
    tenant: str, client_id: str, client_secret: str, scope: str, authority: str = ENTRA
) -> Source:
    """Grants by the secret of an application that is registered with Microsoft Entra
    (learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow)."""
    form = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": client_secret,
        "scope": scope,
    }
    url = f"{authority.rstrip('/')}/{quote(tenant, safe='')}/oauth2/v2.0/token"
    return lambda: Grant(url, form)


class AccessToken:
    """The gateway's access token for one provider.

    It is fetched when an attempt first needs it, by one request for all that wait, and renewed
    minutes before its end while attempts go on with the old one. `failures` are the provider's:
    what the token server said is told to nobody, because it may quote what it was sent.
    """

    def __init__(
        self,
        source: Source,
        http: Http,
        failures: Failures,
        clock: Clock,
        timeouts: Timeouts = _PATIENCE,
    ) -> None:
        self._source = source
        self._http = http
        self._failures = failures
        self._clock = clock
        self._timeouts = timeouts
        self._text = ""
        self._ends = 0.0
        self._renews = 0.0
        self._ahead = self._wall_ahead()
        self._fetching: asyncio.Task[AttemptFailed | None] | None = None

    async def text(self) -> str:
        """The token, to be sent as `Bearer`.

        Raises AttemptFailed if there is none to be had: 502 `provider_auth` where the gateway's
        credentials were refused, else 502 or 504 and worth a retry. The provider itself was then
        not reached.
        """
        now = self._now()
        if self._text and now < self._renews:
            return self._text
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
        if self._text and now < self._ends:
            return self._text
        # An attempt that is cancelled leaves the fetch to the others.
        failed = await asyncio.shield(self._fetching)
        if failed is not None:
            raise AttemptFailed(
                failed.info,
                retryable=failed.retryable,
                reached=False,
                retry_after=failed.retry_after,
                # Without a token no target of the provider can be asked.
                blame="provider",
            )
        return self._text

    async def close(self) -> None:
        """Ends a fetch that still runs; nobody may wait for it any more."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _now(self) -> float:
        """Monotonic seconds, and those that a machine slept through since the last fetch, which
        its monotonic clock does not count."""
        return self._clock.monotonic() + max(0.0, self._wall_ahead() - self._ahead)

    def _wall_ahead(self) -> float:
        return self._clock.now_ns() / 1e9 - self._clock.monotonic()

    async def _fetch(self) -> AttemptFailed | None:
        """Takes the next token, or gives back what came instead."""
        try:
            issued, life = await self._issued()
        except AttemptFailed as failed:
            self._renews = min(self._ends, self._now() + _PAUSE_AFTER_FAILURE)
            return failed
        else:
            self._ahead = self._wall_ahead()
            now = self._now()
            self._text, self._ends = issued, now + life
            self._renews = self._ends - min(_RENEWED_BEFORE, life / 4)
            return None
        finally:
            self._fetching = None

    async def _issued(self) -> tuple[str, float]:
        """A token and the seconds that it lives."""
        grant = self._source()
        try:
            reply = await self._posted(grant)
            try:
                body = await reply.read()
            finally:
                reply.close()
        except AttemptFailed as error:
            raise self._not_issued(error) from error
        if reply.status in _REFUSALS:
            raise self._failures.refused(401, {}, b"")
        if reply.status != 200:
            raise self._failures.broken(
                f"could not be asked: its token server failed with status {reply.status}",
                reached=False,
            )
        try:
            issued = msgspec.json.decode(body, type=_Issued)
            life = _LIFE_UNLESS_TOLD if issued.expires_in is None else float(issued.expires_in)
        except NOT_AS_ASKED as error:
            raise self._garbage() from error
        token = issued.access_token
        if not (token and token.isascii() and token.isprintable() and life > 0):
            raise self._garbage()
        return token, life

    async def _posted(self, grant: Grant) -> Reply:
        return await self._http.post(
            grant.url,
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
            },
            body=urlencode(grant.form).encode(),
            timeouts=self._timeouts,
            stream=False,
            failures=self._failures,
        )

    def _not_issued(self, error: AttemptFailed) -> AttemptFailed:
        if error.info.code == "timeout":
            return self._failures.timed_out("got no access token from its server", reached=False)
        return self._failures.broken(
            "could not be asked: its token server was not reached, or broke off", reached=False
        )

    def _garbage(self) -> AttemptFailed:
        return self._failures.broken(
            "could not be asked: its token server answered with no access token", reached=False
        )
