"""From a message of the ledger to a row of the table `events`; pure, and never refuses a message.

A row is a function of the stored message alone, so that a redelivery writes the same row again.
What is not an event of ours is parked: kept whole in `raw`, with the reason in `parked`.
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, get_args

import msgspec

from schemas import subjects
from schemas.budget_events import LeaseGranted, LeaseReturned
from schemas.errors import ErrorInfo
from schemas.event import type_of
from schemas.events import WRITERS, CallEvent, LedgerEvent, Outcome, Terminal, decode_event
from schemas.usage import Usage

COLUMNS = {
    "seq": "UInt64",
    "event_id": "UUID",
    "event_type": "LowCardinality(String)",
    "ts": "DateTime64(6, 'UTC')",
    "stored_at": "DateTime64(6, 'UTC')",
    "role": "LowCardinality(String)",
    "call_id": "String",
    "key_id": "LowCardinality(String)",
    "project": "LowCardinality(String)",
    "team": "LowCardinality(String)",
    "user": "LowCardinality(String)",
    "app": "LowCardinality(String)",
    "model": "LowCardinality(String)",
    "provider": "LowCardinality(String)",
    "engine": "LowCardinality(String)",
    "operation": "LowCardinality(String)",
    "stream": "Bool",
    "input_tokens": "Int64",
    "cached_input_tokens": "Int64",
    "cache_write_tokens": "Int64",
    "audio_input_tokens": "Int64",
    "image_input_tokens": "Int64",
    "output_tokens": "Int64",
    "reasoning_tokens": "Int64",
    "audio_output_tokens": "Int64",
    "image_output_tokens": "Int64",
    "usage_status": "LowCardinality(String)",
    "cost_nano": "Nullable(Int64)",
    "input_cost_nano": "Nullable(Int64)",
    "output_cost_nano": "Nullable(Int64)",
    "cache_savings_nano": "Int64",
    "price_id": "LowCardinality(String)",
    "billed_to": "LowCardinality(String)",
    "accounts": "Array(String)",
    "holder": "LowCardinality(String)",
    "hold_nano": "Int64",
    "prompt_estimate": "Int64",
    "latency_ms": "Nullable(Float64)",
    "ttfb_ms": "Nullable(Float64)",
    "network_ms": "Nullable(Float64)",
    "attempts": "Int64",
    "fence": "Array(Int64)",
    "corrects": "Int64",
    "status": "Nullable(Int64)",
    "error_type": "LowCardinality(String)",
    "error_code": "LowCardinality(String)",
    "error_message": "String",
    "finish_reason": "LowCardinality(String)",
    "reason": "LowCardinality(String)",
    "parked": "LowCardinality(String)",
    "raw": "String",
}
TERMINAL_TYPES = tuple(type_of(kind) for kind in get_args(Terminal))
OUTCOME_TYPES = tuple(type_of(kind) for kind in get_args(LedgerEvent) if issubclass(kind, Outcome))
CALL_TYPES = tuple(type_of(kind) for kind in get_args(LedgerEvent) if issubclass(kind, CallEvent))

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_YEARS = range(2000, 2200)
_INT64 = range(-(2**63), 2**63)
_NO_ID = uuid.UUID(int=0)
_BLANK_OF_TYPE: dict[str, Any] = {
    "UUID": _NO_ID,
    "UInt64": 0,
    "Int64": 0,
    "Bool": False,
    "Array(Int64)": (),
    "Array(String)": (),
}
_BLANK: dict[str, Any] = {
    name: None if kind.startswith("Nullable") else _BLANK_OF_TYPE.get(kind, "")
    for name, kind in COLUMNS.items()
}
_COPIED = {
    kind: [name for name in kind.__struct_fields__ if name in COLUMNS and name != "event_id"]
    for kind in get_args(LedgerEvent)
}
_TOKENS = [
    (kind, f"{kind}_tokens") for kind in Usage.__struct_fields__ if f"{kind}_tokens" in COLUMNS
]
_INTEGERS = [name for name, kind in COLUMNS.items() if kind in ("Int64", "Nullable(Int64)")]


class Record(NamedTuple):
    """A message as the ledger keeps it; `stored_us` is the broker's time in microseconds."""

    seq: int
    subject: str
    stored_us: int
    data: bytes


class _NotAnEvent(Exception):
    """Why a message is parked."""


def columns_of(records: Sequence[Record]) -> list[Sequence[Any]]:
    """The records as data for an insert: one sequence per column, in the order of COLUMNS."""
    rows = [row_of(record) for record in records]
    return [[row[name] for row in rows] for name in COLUMNS]


def row_of(record: Record) -> dict[str, Any]:
    """One row by column name; times are microseconds since 1970 UTC."""
    role, event_type = _parts(record.subject)
    row = {
        **_BLANK,
        "seq": record.seq,
        "event_type": event_type,
        "ts": record.stored_us,
        "stored_at": record.stored_us,
        "role": role,
        "raw": record.data,
    }
    try:
        row |= _fields(_event(record.data, role, event_type))
    except _NotAnEvent as reason:
        row["parked"] = str(reason)
    return row


def _parts(subject: str) -> tuple[str, str]:
    try:
        return subjects.ledger_parts(subject)
    except ValueError:
        return "", ""


def _event(data: bytes, role: str, event_type: str) -> LedgerEvent:
    try:
        event = decode_event(data)
    except msgspec.ValidationError as error:
        raise _NotAnEvent(f"not a valid event: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _NotAnEvent("not JSON") from error
    if event is None:
        raise _NotAnEvent("unknown type")
    if type_of(event) != event_type:
        raise _NotAnEvent("another type than its subject says")
    if event_type not in WRITERS.get(role, frozenset()):
        raise _NotAnEvent("a type this role may not write")
    return event


def _fields(event: LedgerEvent) -> dict[str, Any]:
    row = {name: getattr(event, name) for name in _COPIED[type(event)]}
    row["event_id"] = _uuid(event.event_id)
    row["ts"] = _time(event.time)
    if isinstance(event, Outcome) and event.usage is not None:
        row |= {name: getattr(event.usage, kind) for kind, name in _TOKENS}
        row["cache_write_tokens"] += event.usage.cache_write_1h
    if isinstance(event, LeaseGranted | LeaseReturned):
        moved = (account for movement in event.movements for account in movement.amounts)
        row["accounts"] = tuple(dict.fromkeys(moved))
    row |= _of_error(getattr(event, "error", None))
    for name in _INTEGERS:
        if (row.get(name) or 0) not in _INT64:
            raise _NotAnEvent(f"not a valid event: {name} is out of range")
    if any(part not in _INT64 for part in row.get("fence", ())):
        raise _NotAnEvent("not a valid event: fence is out of range")
    return row


def _of_error(error: ErrorInfo | None) -> dict[str, Any]:
    if error is None:
        return {}
    return {
        "status": error.status,
        "error_type": error.type,
        "error_code": error.code or "",
        "error_message": error.message,
    }


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise _NotAnEvent("not a valid event: event_id is not a UUID") from error


def _time(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None or time.year not in _YEARS:
            raise ValueError
    except ValueError as error:
        raise _NotAnEvent("not a valid event: time is not RFC 3339") from error
    return microseconds(time)


def microseconds(time: datetime) -> int:
    """An aware time as whole microseconds since 1970 UTC, cut off and never rounded."""
    return (time - _EPOCH) // _MICROSECOND
