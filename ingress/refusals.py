"""Why a credential is not accepted, each case with what to do about it."""

from datetime import UTC, datetime

from schemas.errors import Unauthenticated, Unavailable


def nothing_sent() -> Unauthenticated:
    return Unauthenticated(
        "No API key was sent. Send it as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'.",
        code="missing_api_key",
    )


def other_scheme() -> Unauthenticated:
    return Unauthenticated(
        "Authorization is understood with the scheme Bearer only: send"
        " 'Authorization: Bearer <key>'."
    )


def unknown() -> Unauthenticated:
    return Unauthenticated("The API key is not known here. Check the key you send.")


def unreadable() -> Unauthenticated:
    return Unauthenticated(
        "The API key holds spaces or characters that no key has. Send it as it was given to you."
    )


def too_long() -> Unauthenticated:
    return Unauthenticated("The API key is longer than any key is. Check what you send.")


def mistyped() -> Unauthenticated:
    return Unauthenticated(
        "The API key is not complete or mistyped: a key is 'nx-' and 49 letters and digits."
        " Copy it again."
    )


def revoked(when: datetime) -> Unauthenticated:
    return Unauthenticated(
        f"The API key was revoked at {_text(when)}. Ask for a new one.", code="key_revoked"
    )


def expired(when: datetime) -> Unauthenticated:
    return Unauthenticated(
        f"The API key expired at {_text(when)}. Ask for a new one.", code="key_expired"
    )


def rotated(when: datetime | None) -> Unauthenticated:
    since = f" and is refused since {_text(when)}" if when is not None else ""
    return Unauthenticated(
        f"The API key was replaced by a new one{since}. Use the new one.", code="key_rotated"
    )


def away() -> Unavailable:
    return Unavailable(
        "The API key cannot be checked now: the key store is away. Try again shortly.",
        code="key_store_away",
        retry_after=1.0,
    )


def token(reason: str) -> Unauthenticated:
    """A JWT that is not accepted; the reason names no part of the token's content."""
    return Unauthenticated(f"The token is not accepted: {reason}.", code="invalid_token")


def token_expired() -> Unauthenticated:
    return Unauthenticated(
        "The token has expired. Get a new one from who issued it.", code="token_expired"
    )


def _text(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
