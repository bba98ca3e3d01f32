"""The life of a virtual key as events: decided on what the registry holds, without I/O."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from ingress.admin.desk import Author, declared, missing
from ingress.admin.views import status_of
from ingress.routing import shown
from ledger.access.registry import Registry
from schemas.access import Key, Secret
from schemas.access_events import KeyCreated, KeyRevoked, KeyRotated, KeyUpdated
from schemas.errors import InvalidRequest

_MOST_SECRETS = 10


def key_created(
    _: Registry, id: str, settings: Mapping[str, Any], secret: Secret, pepper: str, author: Author
) -> KeyCreated:
    """A new key; `pepper` names what the secret's digest was made with."""
    now = author.now()
    key = Key(**settings, id=id, secrets=(secret,), pepper=pepper, created_at=now, updated_at=now)
    return KeyCreated(**author.signs(), **_tenant(key), record=key)


def key_updated(
    registry: Registry, id: str, fields: Mapping[str, Any], author: Author
) -> KeyUpdated:
    """The key with some of its settings changed. Raises NotFound, InvalidRequest."""
    key = living(registry, id)
    changed = msgspec.structs.replace(key, **fields, updated_at=author.now())
    return KeyUpdated(**author.signs(), **_tenant(changed), record=changed)


def key_rotated(
    registry: Registry, id: str, secret: Secret, pepper: str, grace: int, author: Author
) -> KeyRotated:
    """The key with a new secret; the older ones end after `grace` seconds, or as they would have.

    Raises NotFound, InvalidRequest.
    """
    key = living(registry, id)
    now = author.now()
    if status_of(key, now) == "expired":
        raise InvalidRequest(
            f"The key '{shown(id)}' has expired: set another expires_at first.", code="key_expired"
        )
    older = _ending(key.secrets, now, timedelta(seconds=grace))
    if len(older) >= _MOST_SECRETS:
        raise InvalidRequest(
            f"The key '{shown(id)}' has {len(older)} secrets already: wait until some are over, or"
            " rotate it with grace_seconds 0, which ends them all.",
            code="too_many_secrets",
            param="grace_seconds",
        )
    changed = msgspec.structs.replace(key, secrets=(*older, secret), pepper=pepper, updated_at=now)
    return KeyRotated(**author.signs(), **_tenant(changed), record=changed)


def key_revoked(registry: Registry, id: str, author: Author) -> KeyRevoked:
    """The key, which opens nothing from now on. Raises NotFound, InvalidRequest."""
    now = author.now()
    changed = msgspec.structs.replace(living(registry, id), updated_at=now, revoked_at=now)
    return KeyRevoked(**author.signs(), **_tenant(changed), record=changed)


def found(registry: Registry, id: str) -> Key:
    """The key, configured or not. Raises NotFound."""
    key = registry.key(id)
    if key is None:
        raise missing("key", id)
    return key


def living(registry: Registry, id: str) -> Key:
    """The key, if it can be changed here. Raises NotFound, InvalidRequest."""
    key = found(registry, id)
    if id in registry.configured.keys:
        raise declared("key", id)
    if key.revoked_at is not None:
        raise InvalidRequest(
            f"The key '{shown(id)}' was revoked, for ever: make a new one.", code="key_revoked"
        )
    return key


def _ending(secrets: tuple[Secret, ...], now: datetime, grace: timedelta) -> tuple[Secret, ...]:
    ends = now + grace
    shortened = (
        msgspec.structs.replace(one, until=ends if one.until is None else min(one.until, ends))
        for one in secrets
    )
    return tuple(one for one in shortened if one.until is not None and one.until > now)


def _tenant(key: Key) -> dict[str, Any]:
    return {"key_id": key.id, "project": key.project, "team": key.team, "user": key.user}
