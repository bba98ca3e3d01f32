"""How providers fare: a pure fold of recent attempts into a state and a latency for each."""

from collections import deque
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from schemas.errors import ErrorInfo
from schemas.events import AttemptFailed, LedgerEvent, RequestComplete, RequestFailed
from schemas.ids import rfc3339

Status = Literal["healthy", "degraded", "unhealthy"]

_RECENT = 20
_WINDOW_NS = 300 * 1_000_000_000
_DEGRADED_ERRORS = 0.2
_UNHEALTHY_ERRORS = 0.8
_ENOUGH_TO_CONDEMN = 3
_SLOW = 3.0
_ENOUGH_TO_COMPARE = 5
_LONG_RUN = 100
_OF_ONE_KEY = frozenset({"authentication_error", "rate_limit_error"})


class ProviderState(msgspec.Struct, frozen=True):
    """What is known of one provider: `latency_ms` is the median time to its first byte,
    `error_rate` a share of `recent_attempts`; both are None while nothing is known."""

    status: Status = "healthy"
    latency_ms: float | None = None
    error_rate: float | None = None
    recent_attempts: int = 0


class State(msgspec.Struct, frozen=True):
    """The answer on `governor.state`: what is known as of ledger sequence `seq`."""

    seq: int
    open_calls: int
    providers: dict[str, ProviderState]


class _Attempt(NamedTuple):
    time: str
    failed: bool
    latency_ms: float | None


class _Provider:
    """The last attempts of one provider, and what its latency is in the long run."""

    __slots__ = ("_attempts", "_timed", "_usual_ms")

    def __init__(self) -> None:
        self._attempts: deque[_Attempt] = deque(maxlen=_RECENT)
        self._timed = 0
        self._usual_ms = 0.0

    def add(self, attempt: _Attempt) -> None:
        self._attempts.append(attempt)
        if attempt.latency_ms is not None:
            self._timed = min(self._timed + 1, _LONG_RUN)
            self._usual_ms += (attempt.latency_ms - self._usual_ms) / self._timed

    def state(self, since: str) -> ProviderState:
        recent = [attempt for attempt in self._attempts if attempt.time >= since]
        if not recent:
            return ProviderState()
        latencies = [a.latency_ms for a in recent if a.latency_ms is not None]
        errors = sum(attempt.failed for attempt in recent) / len(recent)
        status: Status = "healthy"
        if errors >= _UNHEALTHY_ERRORS and len(recent) >= _ENOUGH_TO_CONDEMN:
            status = "unhealthy"
        elif errors >= _DEGRADED_ERRORS or self._is_slow(latencies):
            status = "degraded"
        return ProviderState(
            status=status,
            latency_ms=round(median(latencies), 1) if latencies else None,
            error_rate=round(errors, 3),
            recent_attempts=len(recent),
        )

    def _is_slow(self, latencies: list[float]) -> bool:
        return len(latencies) >= _ENOUGH_TO_COMPARE and median(latencies) > _SLOW * self._usual_ms


class Health:
    """Feed it the ledger: it keeps the last 20 attempts of each provider, and judges by those of
    the last five minutes.

    degraded: a fifth or more failed, or the latency is three times the usual; unhealthy: four
    fifths or more of at least three failed. A provider that was not asked lately is healthy with
    no latency: nothing speaks against it.
    """

    def __init__(self) -> None:
        self._providers: dict[str, _Provider] = {}

    def fold(self, event: LedgerEvent) -> None:
        if isinstance(event, RequestComplete):
            latency = event.latency_ms if event.network_ms is None else event.network_ms
            self._add(event.provider, _Attempt(event.time, False, latency))
        elif isinstance(event, RequestFailed | AttemptFailed) and event.error is not None:
            verdict = _providers_fault(event.error, event.billed_to)
            if verdict is not None:
                self._add(event.provider, _Attempt(event.time, verdict, None))

    def _add(self, provider: str, attempt: _Attempt) -> None:
        self._providers.setdefault(provider, _Provider()).add(attempt)

    def states(self, now_ns: int) -> dict[str, ProviderState]:
        """Every provider that was ever asked, by name."""
        since = rfc3339(now_ns - _WINDOW_NS)
        return {name: provider.state(since) for name, provider in self._providers.items()}


def _providers_fault(error: ErrorInfo, billed_to: str) -> bool | None:
    """Whether an error counts against its provider; None when the provider was not the one to say,
    or said it of a client's own key only.

    An error that the client made shows that the provider answers.
    """
    if billed_to and error.type in _OF_ONE_KEY:
        return None
    if error.provider is None or error.type == "server_error" or error.code == "queue_full":
        return None
    return error.type != "invalid_request_error"
