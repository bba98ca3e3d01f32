"""The ledger's language: one flat JSON object per event, tagged by `event_type`.

Rules of evolution: new fields have defaults, types never change, names are never reused; a reader
parks a type it does not know. Golden files of every event ever written are decoded in the tests.
Money is `cost_nano` (integer nano-dollars, authoritative) and `usd` (for display). A `cost_nano` of
None means unknown, which is not zero. The money of a call is the sum over all its events.
"""

from typing import Any

import msgspec

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
from schemas.budget_events import (
    BudgetExceeded,
    BudgetReset,
    BudgetWarning,
    CostAlert,
    GovernorStarted,
    HoldTaken,
    LeaseExpired,
    LeaseGranted,
    LeaseReturned,
)
from schemas.call import Call, Tenant
from schemas.errors import ErrorInfo
from schemas.event import Event, type_of
from schemas.frames import Failure, Fence, Finish
from schemas.ids import Clock, rfc3339
from schemas.money import usd as to_usd
from schemas.target_events import TargetState
from schemas.usage import Cost, Usage


class CallEvent(Event, frozen=True):
    """What every event of a call has: the accounts it is charged to, for ever those that were
    named at its start."""

    accounts: tuple[str, ...] = ()


class RequestStart(CallEvent, frozen=True, tag="model.request.start"):
    """A call was admitted; it will have exactly one end. `deadline` is UTC like `time`.

    `hold_nano` is what `holder` (an ingress) reserved for it in each of its accounts, out of what
    the governor had leased to it. `tracking_id` is the client's own name for it; `alert_nano` the
    cost above which the client wants an alert.
    """

    operation: str = "chat"
    dialect: str = "openai"
    stream: bool = False
    lane: str = "interactive"
    plan: tuple[str, ...] = ()
    deadline: str = ""
    ingress: str = ""
    body_bytes: int = 0
    holder: str = ""
    hold_nano: int = 0
    alert_nano: int | None = None
    tracking_id: str = ""


class StreamingStart(CallEvent, frozen=True, tag="model.streaming.start"):
    """The first token of a stream arrived at the worker."""

    engine: str = ""
    fence: tuple[int, int, int] = (0, 0, 0)
    ttfb_ms: float = 0.0


class Outcome(CallEvent, frozen=True):
    """What one attempt used and cost, and how long it took; shared by all that end something.

    `billed_to` is `client` where the client's own key paid the provider: such a cost is on nobody
    else's bill. Empty is the gateway's key. `prompt_estimate` is how many prompt tokens the gateway
    had expected, to learn from.
    """

    engine: str = ""
    fence: tuple[int, int, int] = (0, 0, 0)
    attempts: int = 0
    stream: bool = False
    operation: str = "chat"
    usage: Usage | None = None
    usage_status: str = "unknown"
    cost_nano: int | None = None
    input_cost_nano: int | None = None
    output_cost_nano: int | None = None
    cache_savings_nano: int = 0
    usd: float | None = None
    price_id: str = ""
    latency_ms: float | None = None
    ttfb_ms: float | None = None
    network_ms: float | None = None
    billed_to: str = ""
    prompt_estimate: int = 0


class RequestComplete(Outcome, frozen=True, tag="model.request.complete"):
    """A call ended well."""

    finish_reason: str = ""


class RequestFailed(Outcome, frozen=True, tag="model.request.failed"):
    """A call ended with an error after a worker had taken it."""

    error: ErrorInfo | None = None


class RequestCancelled(Outcome, frozen=True, tag="model.request.cancelled"):
    """The client went away before the end."""

    reason: str = "client_disconnect"


class RequestRejected(Outcome, frozen=True, tag="model.request.rejected"):
    """The gateway refused a call: no worker, queue full, later also limits and budgets."""

    error: ErrorInfo | None = None


class RequestLost(Outcome, frozen=True, tag="model.request.lost"):
    """Nobody ended the call by its deadline + 90 s; the closer did."""


class AttemptFailed(Outcome, frozen=True, tag="model.attempt.failed"):
    """One attempt failed before its first token and another follows."""

    error: ErrorInfo | None = None


class AttemptAbandoned(Outcome, frozen=True, tag="model.attempt.abandoned"):
    """The worker of an attempt went silent; written by the worker that took the job over."""


class AttemptLate(Outcome, frozen=True, tag="model.attempt.late"):
    """An attempt ended after it had lost the call; when it was already recorded as abandoned, the
    money and tokens here are the difference to that record, named by `corrects` (its sequence)."""

    corrects: int = 0


LedgerEvent = (
    RequestStart
    | StreamingStart
    | RequestComplete
    | RequestFailed
    | RequestCancelled
    | RequestRejected
    | RequestLost
    | AttemptFailed
    | AttemptAbandoned
    | AttemptLate
    | KeyCreated
    | KeyUpdated
    | KeyRotated
    | KeyRevoked
    | ProjectSet
    | ProjectRemoved
    | TeamSet
    | TeamRemoved
    | BudgetSet
    | BudgetRemoved
    | LeaseGranted
    | LeaseReturned
    | LeaseExpired
    | HoldTaken
    | BudgetReset
    | GovernorStarted
    | BudgetWarning
    | BudgetExceeded
    | CostAlert
    | TargetState
)
Terminal = RequestComplete | RequestFailed | RequestCancelled | RequestRejected | RequestLost

encode_event = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[LedgerEvent] = msgspec.json.Decoder(LedgerEvent)


class _Head(msgspec.Struct):
    event_type: str


_decode_head = msgspec.json.Decoder(_Head).decode


KNOWN_TYPES: dict[str, type[Event]] = {
    type_of(kind): kind
    for kind in (
        RequestStart,
        StreamingStart,
        RequestComplete,
        RequestFailed,
        RequestCancelled,
        RequestRejected,
        RequestLost,
        AttemptFailed,
        AttemptAbandoned,
        AttemptLate,
        KeyCreated,
        KeyUpdated,
        KeyRotated,
        KeyRevoked,
        ProjectSet,
        ProjectRemoved,
        TeamSet,
        TeamRemoved,
        BudgetSet,
        BudgetRemoved,
        LeaseGranted,
        LeaseReturned,
        LeaseExpired,
        HoldTaken,
        BudgetReset,
        GovernorStarted,
        BudgetWarning,
        BudgetExceeded,
        CostAlert,
        TargetState,
    )
}
ACCESS_TYPES = frozenset(
    name for name, kind in KNOWN_TYPES.items() if issubclass(kind, AccessEvent)
)
WRITERS: dict[str, frozenset[str]] = {
    "ingress": frozenset(
        {
            "model.request.start",
            "model.request.rejected",
            "model.request.cancelled",
            "model.budget.exceeded",
            *ACCESS_TYPES,
        }
    ),
    "worker": frozenset(
        {
            "model.streaming.start",
            "model.request.complete",
            "model.request.failed",
            "model.request.cancelled",
            "model.attempt.failed",
            "model.attempt.abandoned",
            "model.attempt.late",
            "model.budget.exceeded",
            "provider.state",
        }
    ),
    "governor": frozenset(
        {
            "model.request.lost",
            "budget.lease.granted",
            "budget.lease.returned",
            "budget.lease.expired",
            "budget.hold.taken",
            "budget.reset",
            "governor.started",
            "model.budget.warning",
            "model.cost.alert",
        }
    ),
}


def decode_event(data: bytes) -> LedgerEvent | None:
    """An event from its JSON; None for a type this version does not know (the caller parks it).

    Raises msgspec.DecodeError (or its subclass ValidationError) for what is not an event at all.
    """
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError:
        if _decode_head(data).event_type in KNOWN_TYPES:
            raise
        return None


def of_tenant(tenant: Tenant) -> dict[str, str]:
    """The tenant's ids as event fields."""
    return {
        "key_id": tenant.key_id,
        "project": tenant.project,
        "team": tenant.team,
        "user": tenant.user,
        "app": tenant.app,
    }


def of_call(call: Call) -> dict[str, Any]:
    """The fields that every later event of a call repeats, so that each stands alone."""
    return {
        "call_id": call.id,
        "model": call.model,
        "accounts": call.accounts,
        **of_tenant(call.tenant),
    }


def new_of_call(call: Call, clock: Clock) -> dict[str, Any]:
    """What a new event of a call begins with: an id and a time of its own, then `of_call`."""
    return {
        "event_id": clock.new_id(),
        "time": rfc3339(clock.now_ns()),
        "v": 1,
        **of_call(call),
    }


def billed_to(call: Call, provider: str) -> str:
    """`client` for a provider that the client brought its own key for."""
    return "client" if provider in call.credentials else ""


def of_money(usage: Usage | None, cost: Cost | None, price_id: str) -> dict[str, Any]:
    """Usage and cost as event fields; an unknown cost stays None."""
    fields: dict[str, Any] = {"usage": usage, "price_id": price_id}
    if usage is not None:
        fields["usage_status"] = usage.status
    if cost is not None:
        fields["cost_nano"] = cost.total
        fields["input_cost_nano"] = cost.input
        fields["output_cost_nano"] = cost.output
        fields["cache_savings_nano"] = cost.cache_savings
        fields["usd"] = to_usd(cost.total)
    return fields


def terminal_event(call: Call, end: Finish | Failure) -> Terminal:
    """The event that ends a call: a pure function, so that whoever finds the frame in RESP after a
    crash writes the very same event."""
    fields: dict[str, Any] = {
        "event_id": end.event_id,
        "time": rfc3339(end.time_ns),
        "v": 1,
        **of_call(call),
        "provider": end.provider,
        "engine": end.engine,
        "fence": end.fence,
        "attempts": end.attempts,
        "stream": call.stream,
        "operation": call.operation,
        **of_money(end.usage, end.cost, end.price_id),
        "latency_ms": end.timings.total,
        "ttfb_ms": end.timings.first_byte,
        "network_ms": end.timings.network,
        "billed_to": billed_to(call, end.provider),
        "prompt_estimate": call.prompt_estimate,
    }
    if isinstance(end, Finish):
        return RequestComplete(**fields, finish_reason=end.finish_reason)
    if end.cancelled:
        return RequestCancelled(**fields)
    return RequestFailed(**fields, error=end.error)


def start_event(call: Call, event_id: str, now_ns: int) -> RequestStart:
    """The event that admits a call."""
    return RequestStart(
        event_id=event_id,
        time=rfc3339(now_ns),
        v=1,
        **of_call(call),
        provider=call.target.provider,
        operation=call.operation,
        dialect=call.dialect,
        stream=call.stream,
        lane=call.lane,
        plan=tuple(f"{target.provider}/{target.engine}" for target in call.plan),
        deadline=rfc3339(call.deadline_ns),
        ingress=call.ingress,
        body_bytes=len(call.body),
        holder=call.holder,
        hold_nano=call.hold_nano,
        alert_nano=call.alert_nano,
        tracking_id=call.tracking_id,
    )


def message_id_of_end(call_id: str) -> str:
    """Msg-Id of a terminal event: the ledger keeps one end per call."""
    return f"{call_id}.end"


def message_id_of_attempt(call_id: str, fence: Fence) -> str:
    """Msg-Id of the event that closes an attempt (failed, abandoned or late): one per attempt."""
    return f"{call_id}.x{fence.job}.{fence.delivery}.{fence.attempt}"
