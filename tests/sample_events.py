"""Events as the roles write them, for tests that feed a fold or a ledger."""

import hashlib
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec

from ledger.reader import Stored
from schemas import subjects
from schemas.access import Budget, Key, Project, Secret, Team, moment
from schemas.access_events import (
    AccessEvent,
    BudgetRemoved,
    BudgetSet,
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    KeyUpdated,
    ProjectRemoved,
    ProjectSet,
    TeamRemoved,
    TeamSet,
)
from schemas.errors import ErrorInfo
from schemas.event import Event, type_of
from schemas.events import (
    WRITERS,
    AttemptAbandoned,
    AttemptFailed,
    AttemptLate,
    RequestCancelled,
    RequestComplete,
    RequestFailed,
    RequestLost,
    RequestRejected,
    RequestStart,
    StreamingStart,
    encode_event,
)
from schemas.ids import rfc3339
from schemas.usage import Usage

SECOND = 1_000_000_000
NOON = 1_790_000_000 * SECOND
_numbers = count(1)

PROVIDER_DOWN = ErrorInfo(
    status=502, type="provider_error", message="openai failed with status 500.", provider="openai"
)


def _common(at_ns: int, fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "event_id": f"event-{next(_numbers)}",
        "time": rfc3339(at_ns),
        "v": 1,
        "key_id": "key_a",
        "model": "gpt-4o",
        "provider": "openai",
        **fields,
    }


def start(
    call_id: str, at_ns: int = NOON, deadline_ns: int | None = None, **fields: Any
) -> RequestStart:
    deadline = at_ns + 600 * SECOND if deadline_ns is None else deadline_ns
    return RequestStart(
        **_common(at_ns, fields), call_id=call_id, deadline=rfc3339(deadline), plan=("openai/x",)
    )


def first_token(call_id: str, at_ns: int = NOON, **fields: Any) -> StreamingStart:
    return StreamingStart(**_common(at_ns, {"ttfb_ms": 40.0, **fields}), call_id=call_id)


def complete(call_id: str, at_ns: int = NOON, **fields: Any) -> RequestComplete:
    known: dict[str, Any] = {
        "attempts": 1,
        "usage": Usage(input=100, output=20, status="reported"),
        "usage_status": "reported",
        "cost_nano": 1_500,
        "usd": 0.0000015,
        "latency_ms": 300.0,
        "network_ms": 200.0,
    }
    return RequestComplete(**_common(at_ns, known | fields), call_id=call_id)


def _ended(kind: Callable[..., Any], call_id: str, at_ns: int, fields: dict[str, Any]) -> Any:
    return kind(**_common(at_ns, {"attempts": 1, "cost_nano": 0, **fields}), call_id=call_id)


def failed(call_id: str, at_ns: int = NOON, **fields: Any) -> RequestFailed:
    return _ended(RequestFailed, call_id, at_ns, {"error": PROVIDER_DOWN, **fields})


def cancelled(call_id: str, at_ns: int = NOON, **fields: Any) -> RequestCancelled:
    return _ended(RequestCancelled, call_id, at_ns, fields)


def rejected(call_id: str, at_ns: int = NOON, **fields: Any) -> RequestRejected:
    error = ErrorInfo(status=503, type="server_error", message="No worker.", code="no_worker")
    return _ended(RequestRejected, call_id, at_ns, {"attempts": 0, "error": error, **fields})


def lost(call_id: str, at_ns: int = NOON, **fields: Any) -> RequestLost:
    return _ended(RequestLost, call_id, at_ns, {"attempts": 0, "cost_nano": None, **fields})


def attempt_failed(call_id: str, at_ns: int = NOON, **fields: Any) -> AttemptFailed:
    return _ended(AttemptFailed, call_id, at_ns, {"error": PROVIDER_DOWN, **fields})


def attempt_abandoned(call_id: str, at_ns: int = NOON, **fields: Any) -> AttemptAbandoned:
    return _ended(AttemptAbandoned, call_id, at_ns, {"cost_nano": None, **fields})


def attempt_late(call_id: str, at_ns: int = NOON, **fields: Any) -> AttemptLate:
    return _ended(AttemptLate, call_id, at_ns, fields)


def a_key(id: str = "key_a", **fields: Any) -> Key:
    """A key of the shop; its one secret has the digest of `digest_of_text(id)`."""
    known: dict[str, Any] = {
        "name": "checkout",
        "project": "shop",
        "team": "retail",
        "secrets": (Secret(digest_of_text(id), "nx-abcd…wxyz"),),
        "created_at": moment(NOON),
        "updated_at": moment(NOON),
    }
    return Key(id=id, **{**known, **fields})


def digest_of_text(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _changed(kind: Callable[..., Any], at_ns: int, fields: dict[str, Any]) -> Any:
    return kind(**{"event_id": f"event-{next(_numbers)}", "time": rfc3339(at_ns), "v": 1, **fields})


def _of_key(kind: Callable[..., Any], key: Key, at_ns: int, fields: dict[str, Any]) -> Any:
    own = {"key_id": key.id, "project": key.project, "team": key.team, "user": key.user}
    return _changed(kind, at_ns, {**own, "record": key, **fields})


def key_created(key: Key, at_ns: int = NOON, **fields: Any) -> KeyCreated:
    return _of_key(KeyCreated, key, at_ns, fields)


def key_updated(key: Key, at_ns: int = NOON, **fields: Any) -> KeyUpdated:
    return _of_key(KeyUpdated, key, at_ns, fields)


def key_rotated(key: Key, at_ns: int = NOON, **fields: Any) -> KeyRotated:
    return _of_key(KeyRotated, key, at_ns, fields)


def key_revoked(key: Key, at_ns: int = NOON, **fields: Any) -> KeyRevoked:
    """The key as it is after that."""
    revoked = msgspec.structs.replace(key, revoked_at=moment(at_ns))
    return _of_key(KeyRevoked, revoked, at_ns, fields)


def project_set(project: Project, at_ns: int = NOON, **fields: Any) -> ProjectSet:
    return _changed(ProjectSet, at_ns, {"project": project.id, "record": project, **fields})


def project_removed(project_id: str, at_ns: int = NOON, **fields: Any) -> ProjectRemoved:
    return _changed(ProjectRemoved, at_ns, {"project": project_id, **fields})


def team_set(team: Team, at_ns: int = NOON, **fields: Any) -> TeamSet:
    return _changed(TeamSet, at_ns, {"team": team.id, "record": team, **fields})


def team_removed(team_id: str, at_ns: int = NOON, **fields: Any) -> TeamRemoved:
    return _changed(TeamRemoved, at_ns, {"team": team_id, **fields})


def budget_set(budget: Budget, at_ns: int = NOON, **fields: Any) -> BudgetSet:
    return _changed(BudgetSet, at_ns, {"record": budget, **fields})


def budget_removed(name: str, at_ns: int = NOON, **fields: Any) -> BudgetRemoved:
    return _changed(BudgetRemoved, at_ns, {"name": name, **fields})


def stored(seq: int, event: Event) -> Stored:
    """The event as the ledger gives it back."""
    project = "" if isinstance(event, AccessEvent) else event.project
    subject = subjects.ledger(writer_of(event), project, type_of(event))
    return Stored(seq=seq, subject=subject, data=encode_event(event))


def writer_of(event: Event) -> str:
    """The role that writes such an event."""
    if isinstance(event, RequestStart | RequestRejected | AccessEvent):
        return "ingress"
    return "governor" if type_of(event) in WRITERS["governor"] else "worker"
