"""Events as the roles write them, for tests that feed a fold or a ledger."""

from collections.abc import Callable
from itertools import count
from typing import Any

from schemas.errors import ErrorInfo
from schemas.events import (
    AttemptAbandoned,
    AttemptFailed,
    AttemptLate,
    Event,
    RequestCancelled,
    RequestComplete,
    RequestFailed,
    RequestLost,
    RequestRejected,
    RequestStart,
    StreamingStart,
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


def writer_of(event: Event) -> str:
    """The role that writes such an event."""
    if isinstance(event, RequestStart | RequestRejected):
        return "ingress"
    return "governor" if isinstance(event, RequestLost) else "worker"
