"""Tickets for clients that cannot send headers, such as a browser's EventSource."""

import base64
import binascii
import hmac

import msgspec

from ingress.auth import Principal
from ledger.publisher import Publisher, Refused, Unresolved
from schemas import subjects
from schemas.errors import Unauthenticated, Unavailable
from schemas.ids import Clock

LIFETIME = 60
_USED = subjects.setting("events.ticket")


class _Claims(msgspec.Struct, frozen=True):
    principal: Principal
    expires_ns: int
    nonce: str


class Tickets:
    """Short-lived and of one use, at any ingress: they share the secret, and the bus, which keeps
    one message per id for longer than a ticket lives, tells a second use from the first."""

    def __init__(self, publisher: Publisher, admin_token: str, clock: Clock) -> None:
        self._publisher = publisher
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
            principal,
            self._clock.now_ns() + LIFETIME * 1_000_000_000,
            self._clock.entropy(16).hex(),
        )
        payload = msgspec.json.encode(claims)
        return f"{_text(payload)}.{_text(self._sign(payload))}"

    async def redeem(self, ticket: str) -> Principal:
        """Who the ticket stands for; it is used up then. Raises Unauthenticated, Unavailable."""
        claims = self._claims(ticket)
        if claims is None or claims.expires_ns < self._clock.now_ns():
            raise _refused()
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
        return msgspec.json.decode(payload, type=_Claims)

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
