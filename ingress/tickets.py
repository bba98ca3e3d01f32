"""Tickets for clients that cannot send headers, such as a browser's EventSource."""

import base64
import binascii
import hmac

import msgspec

from ingress.auth import Authenticator, Kind, Principal
from ledger.publisher import Publisher, Refused, Unresolved
from schemas import subjects
from schemas.call import Tenant
from schemas.errors import Unauthenticated, Unavailable
from schemas.ids import Clock

LIFETIME = 60
# Of the digest of a secret: enough to tell it from the others of its key.
_TELLING = 8
_USED = subjects.setting("events.ticket")


class _Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose events may be heard, and what tells whether that credential still stands: of a key the
    registry knows when it ends, of a token nobody else does."""

    key_id: str
    kind: Kind
    expires_ns: int
    nonce: str
    secret: str = ""
    until_ns: int | None = None

    @property
    def principal(self) -> Principal:
        return Principal(
            Tenant(key_id=self.key_id),
            admin=self.kind == "admin",
            kind=self.kind,
            until_ns=self.until_ns,
            secret=bytes.fromhex(self.secret),
        )


class Tickets:
    """Short-lived and of one use, at any ingress: they share the secret, and the bus, which keeps
    one message per id for longer than a ticket lives, tells a second use from the first."""

    def __init__(
        self, publisher: Publisher, keys: Authenticator, admin_token: str, clock: Clock
    ) -> None:
        self._publisher = publisher
        self._keys = keys
        self._clock = clock
        self._secret = b""
        if admin_token:
            self._secret = hmac.digest(admin_token.encode(), b"nexus events ticket", "sha256")

    def issue(self, principal: Principal) -> str:
        """A ticket that stands for `principal` for a minute. Raises Unavailable."""
        if not self._secret:
            raise Unavailable(
                "Tickets are signed with the admin token: set ADMIN_TOKEN.", code="no_admin_token"
            )
        claims = _Claims(
            key_id=principal.tenant.key_id,
            kind=principal.kind,
            expires_ns=self._clock.now_ns() + LIFETIME * 1_000_000_000,
            nonce=self._clock.entropy(16).hex(),
            secret=principal.secret[:_TELLING].hex(),
            until_ns=principal.until_ns if principal.kind == "jwt" else None,
        )
        payload = msgspec.json.encode(claims)
        return f"{_text(payload)}.{_text(self._sign(payload))}"

    async def redeem(self, ticket: str) -> Principal:
        """Whose events the ticket opens; it is used up then. Raises Unauthenticated, Unavailable.

        It opens nothing any more when the credential that it was issued for does not.
        """
        claims = self._claims(ticket)
        if claims is None or claims.expires_ns < self._clock.now_ns():
            raise _refused()
        if (ended := self._keys.end_of(claims.principal)) is not None:
            raise ended
        try:
            ack = await self._publisher.publish(
                _USED, b"", msg_id=f"ticket.{claims.nonce}", deadline=2.0
            )
        except (Unresolved, Refused) as error:
            raise Unavailable(
                "The ticket cannot be checked now. Try again shortly.", retry_after=1.0
            ) from error
        if ack.duplicate:
            raise _refused()
        return claims.principal

    def _claims(self, ticket: str) -> _Claims | None:
        """What a ticket says, if we signed it."""
        try:
            payload, signature = (_bytes(part) for part in ticket.split("."))
        except ValueError:
            return None
        if not self._secret or not hmac.compare_digest(signature, self._sign(payload)):
            return None
        try:
            return msgspec.json.decode(payload, type=_Claims)
        except msgspec.DecodeError:
            return None  # Signed by another version of this program.

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._secret, payload, "sha256")


def _refused() -> Unauthenticated:
    return Unauthenticated(
        "The ticket is not valid any more. Get a new one from POST /events/ticket.",
        code="invalid_ticket",
    )


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError(str(error)) from error
