"""Every way to be refused at the door: each says its code and its reason."""

import hashlib
from collections.abc import Callable

import msgspec
import pytest

from ledger.access.configured import id_of
from ledger.secret import ServerSecret
from schemas.access import Secret, moment
from schemas.config import KeyConfig
from schemas.errors import Unauthenticated
from tests import sample_events as sample
from tests.key_door import ADMIN, HOUR, KEY, OTHER, PLAIN, Door, bearer, changed
from tests.sample_events import NOON, SECOND


def revoked(door: Door) -> str:
    door.hear(sample.key_revoked(door.has(KEY), NOON - HOUR))
    return KEY


def revoked_and_back(door: Door) -> str:
    key = door.has(KEY)
    door.hear(sample.key_revoked(key, NOON - HOUR), sample.key_updated(key))
    return KEY


def expired(door: Door) -> str:
    door.has(KEY, expires_at=moment(NOON))
    return KEY


def revoked_and_expired(door: Door) -> str:
    door.hear(sample.key_revoked(door.has(KEY, expires_at=moment(NOON - HOUR)), NOON))
    return KEY


def replaced(door: Door) -> str:
    door.has(KEY, secrets=(door.opens(OTHER), door.opens(KEY, until=moment(NOON - SECOND))))
    return KEY


def forgotten(door: Door) -> str:
    key = door.has(KEY)
    door.hear(sample.key_rotated(msgspec.structs.replace(key, secrets=(door.opens(OTHER),))))
    return KEY


def of_another_server(door: Door) -> str:
    digest = ServerSecret(("the secret of another server",)).digest(KEY.encode())
    door.has(KEY, secrets=(Secret(digest),))
    return KEY


def expired_in_the_configuration(door: Door) -> str:
    return "an-expired-configured-key"


UNKNOWN, MISTYPED = "not known here", "not complete or mistyped"
# name: (what is sent, its code, words of the reason)
BAD: dict[str, tuple[Callable[[Door], str | bytes], str, str]] = {
    "unknown": (lambda _: "whatever", "invalid_api_key", UNKNOWN),
    "unknown to the key store": (lambda _: KEY, "invalid_api_key", UNKNOWN),
    "too short": (lambda _: KEY[:-1], "invalid_api_key", MISTYPED),
    "too long": (lambda _: f"{KEY}a", "invalid_api_key", MISTYPED),
    "nothing but our prefix": (lambda _: "nx-", "invalid_api_key", MISTYPED),
    "wrong checksum": (lambda _: changed(KEY, 51), "invalid_api_key", MISTYPED),
    "one letter wrong": (lambda _: changed(KEY, 20), "invalid_api_key", MISTYPED),
    "two letters swapped": (
        lambda _: KEY[:4] + KEY[5] + KEY[4] + KEY[6:],
        "invalid_api_key",
        MISTYPED,
    ),
    "a sign in it": (lambda _: f"{KEY[:9]}-{KEY[10:]}", "invalid_api_key", MISTYPED),
    "in capitals": (lambda _: f"NX-{KEY[3:]}", "invalid_api_key", UNKNOWN),
    "a space in it": (lambda _: "what ever", "invalid_api_key", "spaces or characters"),
    "a control character": (lambda _: b"what\x01ever", "invalid_api_key", "spaces or characters"),
    "letters of Greek": (lambda _: "κλειδί", "invalid_api_key", "spaces or characters"),
    "a key and more": (lambda _: f"{KEY} {KEY}", "invalid_api_key", MISTYPED),
    "a newline of Unicode": (lambda _: f"{KEY}\u2028", "invalid_api_key", MISTYPED),
    "100 kB": (lambda _: "x" * 100_000, "invalid_api_key", "longer than any key"),
    "100 kB with our prefix": (lambda _: "nx-" + "x" * 100_000, "invalid_api_key", MISTYPED),
    "a provider's key": (lambda _: "sk-0123456789", "invalid_api_key", UNKNOWN),
    "revoked": (revoked, "key_revoked", "revoked at 2026-09-21T13:13:20Z"),
    "revoked, then changed": (revoked_and_back, "key_revoked", "revoked at"),
    "revoked and expired": (revoked_and_expired, "key_revoked", "revoked at"),
    "expired": (expired, "key_expired", "expired at 2026-09-21T14:13:20Z"),
    "expired in the configuration": (expired_in_the_configuration, "key_expired", "expired at"),
    "replaced": (replaced, "key_rotated", "refused since 2026-09-21T14:13:19Z"),
    "replaced and forgotten": (forgotten, "invalid_api_key", UNKNOWN),
    "of another server": (of_another_server, "invalid_api_key", UNKNOWN),
    "admin token with one letter less": (lambda _: ADMIN[:-1], "invalid_api_key", MISTYPED),
    "configured key with one letter more": (lambda _: f"{PLAIN}x", "invalid_api_key", UNKNOWN),
    "digest of the admin token": (
        lambda _: hashlib.sha256(ADMIN.encode()).hexdigest(),
        "invalid_api_key",
        UNKNOWN,
    ),
    "id of a configured key": (lambda _: id_of(PLAIN), "invalid_api_key", UNKNOWN),
}


@pytest.mark.parametrize("header", [b"authorization", b"x-api-key", b"x-nexus-token"])
@pytest.mark.parametrize("name", BAD)
async def test_a_bad_key_is_refused_with_its_reason(name: str, header: bytes) -> None:
    make, code, reason = BAD[name]
    door = Door(
        keys={"old": KeyConfig(key="an-expired-configured-key", expires_at=moment(NOON - 1))}
    )
    made = make(door)
    text = made if isinstance(made, bytes) else made.encode()
    value = b"Bearer " + text if header == b"authorization" else text
    error = await door.refuse([(header, value)])
    assert isinstance(error, Unauthenticated)
    assert (error.info.status, error.info.code) == (401, code)
    assert reason in error.info.message
    assert text.decode("latin-1") not in error.info.message or len(text) < 4


async def test_without_a_credential_the_refusal_says_how_to_send_one() -> None:
    for headers in ([], bearer(""), [(b"x-api-key", b" ")], [(b"x-nexus-app", b"shop")]):
        error = await Door().refuse(headers)
        assert (error.info.status, error.info.code) == (401, "missing_api_key")


@pytest.mark.parametrize("value", [b"Basic dTpw", b"a-configured-key", b"Digest x", b"BearerX y"])
async def test_another_scheme_than_bearer_is_named_as_the_reason(value: bytes) -> None:
    error = await Door().refuse([(b"authorization", value)])
    assert (error.info.status, error.info.code) == (401, "invalid_api_key")
    assert "Bearer" in error.info.message
    assert value.decode() not in error.info.message


async def test_when_none_is_valid_the_refusal_is_about_the_first_one_sent() -> None:
    door = Door()
    revoked(door)
    sent = [(b"authorization", b"Bearer nx-short"), (b"x-api-key", KEY.encode())]
    assert (await door.refuse(sent)).info.code == "key_revoked"
    assert UNKNOWN in (await door.refuse([*sent, (b"x-nexus-token", b"no")])).info.message
