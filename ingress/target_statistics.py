"""How targets fare, as the ledger measured it: what analytics tells, and what was heard since.

The report of analytics is the base: it is the whole ledger's word, the same for every ingress, goes
back to before this one started and has what was missed while the bus was away. It is some seconds
old. So the live events behind its sequence are added to it, and where nobody reports they are all
there is: fresh, and forgotten with this process.
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import NamedTuple

import msgspec

from analytics.attempts import Kind, kind_of
from analytics.client import Analytics
from analytics.latencies import bucket, quantile
from analytics.questions.targets import HALF_LIFE, TargetFigures, TargetsParams, TargetsReport
from ledger.connection import Connection, Message
from schemas import subjects
from schemas.errors import ErrorInfo, NexusError
from schemas.event import type_of
from schemas.events import AttemptFailed, RequestComplete, RequestFailed
from schemas.ids import Clock

_HEARD_FROM = (RequestComplete, RequestFailed, AttemptFailed)
_TARGETS_KEPT = 512
_ENDS_KEPT = 8_192
# Faded to less than this much of one attempt, a target is as good as new.
_FORGOTTEN = 0.05
_FADE_EVERY = 1.0
_FIGURES_KEPT = 0.5


class Figures(NamedTuple):
    """What is known of a target: medians and a 95th percentile in ms, None without an answered
    attempt. To the error rate one more good attempt is counted, so that a single old failure does
    not keep everybody away for ever."""

    first_byte_ms: float | None = None
    total_ms: float | None = None
    total_p95_ms: float | None = None
    error_rate: float | None = None


_NOTHING = Figures()


class Ended(NamedTuple):
    """One attempt that ended at sequence `seq`, heard at `at` (monotonic seconds); its latencies as
    buckets (`analytics/latencies.py`), None of one without an answer."""

    seq: int
    at: float
    target: tuple[str, str]
    kind: Kind
    first_byte: int | None = None
    total: int | None = None


class _End(msgspec.Struct):
    """What is read of an event."""

    provider: str = ""
    engine: str = ""
    error: ErrorInfo | None = None
    billed_to: str = ""
    latency_ms: float | None = None
    ttfb_ms: float | None = None
    network_ms: float | None = None


_decode_end = msgspec.json.Decoder(_End).decode
_decode_report = msgspec.json.Decoder(TargetsReport).decode


class _Counts:
    """What one target is known by; every count fades by half in HALF_LIFE seconds."""

    __slots__ = (
        "_attempts",
        "_errors",
        "_faded_at",
        "_figures",
        "_first_byte",
        "_read_at",
        "_total",
    )

    def __init__(self, now: float, base: TargetFigures | None = None) -> None:
        self._attempts = base.attempts if base is not None else 0.0
        self._errors = base.errors if base is not None else 0.0
        self._first_byte = dict(base.first_byte) if base is not None else {}
        self._total = dict(base.total) if base is not None else {}
        self._faded_at = now
        self._figures = _NOTHING
        self._read_at = float("-inf")

    def add(self, end: Ended, now: float) -> None:
        self._fade(now)
        weight = _left_after(now - end.at)
        self._attempts += weight
        if end.kind:
            self._errors += weight
        if end.first_byte is not None and end.total is not None:
            self._first_byte[end.first_byte] = self._first_byte.get(end.first_byte, 0.0) + weight
            self._total[end.total] = self._total.get(end.total, 0.0) + weight

    def figures(self, now: float) -> Figures:
        """Worked out anew at most twice a second."""
        if now - self._read_at >= _FIGURES_KEPT:
            self._fade(now)
            self._figures = self._worked_out()
            self._read_at = now
        return self._figures

    def _worked_out(self) -> Figures:
        if self._attempts < _FORGOTTEN:
            return _NOTHING
        return Figures(
            quantile(self._first_byte, 0.5),
            quantile(self._total, 0.5),
            quantile(self._total, 0.95),
            self._errors / (self._attempts + 1),
        )

    def _fade(self, now: float) -> None:
        passed = now - self._faded_at
        if passed < _FADE_EVERY:
            return
        left = _left_after(passed)
        self._faded_at = now
        self._attempts *= left
        self._errors *= left
        for counts in (self._first_byte, self._total):
            for at in counts:
                counts[at] *= left


class TargetStatistics:
    """By provider and engine; bounded: of more targets than are kept, those not heard of for
    longest are forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._targets: dict[tuple[str, str], _Counts] = {}
        self._ends: deque[Ended] = deque(maxlen=_ENDS_KEPT)
        self._as_of = 0
        self._asking: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def as_of_seq(self) -> int:
        """The ledger sequence of the last report; 0 before the first."""
        return self._as_of

    def of(self, provider: str, engine: str) -> Figures:
        """What is known of a target now; all None of one that is not known."""
        counts = self._targets.get((provider, engine))
        return _NOTHING if counts is None else counts.figures(self._clock.monotonic())

    def report(self, report: TargetsReport) -> None:
        """Take a report for the base, and the ends behind it on top."""
        now = self._clock.monotonic()
        self._as_of = report.as_of_seq
        self._targets = {
            (base.provider, base.engine): _Counts(now, base) for base in report.targets
        }
        self._ends = deque((end for end in self._ends if end.seq > self._as_of), maxlen=_ENDS_KEPT)
        for end in self._ends:
            self._count(end, now)

    def ended(self, end: Ended) -> None:
        """Count one attempt, unless it is in the report already."""
        if end.seq > self._as_of:
            self._ends.append(end)
            self._count(end, end.at)

    def listen(self, connection: Connection) -> None:
        """Hear of every attempt and report from now on; ask for a report now and after each loss
        of the bus."""
        analytics = Analytics(connection)
        for kind in _HEARD_FROM:
            connection.subscribe(subjects.live(type_of(kind)), self._on_end)
        connection.subscribe(subjects.TARGETS, lambda news: self.report(_decode_report(news.data)))
        connection.on_reconnect(lambda: self._ask(analytics))
        if connection.connected:
            self._ask(analytics)

    def _ask(self, analytics: Analytics) -> None:
        self._asking = asyncio.get_running_loop().create_task(self._ask_once(analytics))

    async def _ask_once(self, analytics: Analytics) -> None:
        """Who is not there yet will tell without being asked, and may have told something newer."""
        with suppress(NexusError):
            report = await analytics.targets(TargetsParams())
            if report.as_of_seq > self._as_of:
                self.report(report)

    def _on_end(self, message: Message) -> None:
        """What comes without a sequence is not the ledger's."""
        end = _decode_end(message.data)
        kind = kind_of(end.error, end.billed_to)
        seq = message.header("Nats-Sequence")
        if kind is None or seq is None or not end.provider:
            return
        first_byte, total = _latencies(end)
        target = end.provider, end.engine
        now = self._clock.monotonic()
        self.ended(Ended(int(seq), now, target, kind, first_byte, total))

    def _count(self, end: Ended, now: float) -> None:
        counts = self._targets.pop(end.target, None) or _Counts(now)
        if len(self._targets) >= _TARGETS_KEPT:
            del self._targets[next(iter(self._targets))]
        self._targets[end.target] = counts
        counts.add(end, now)


def _latencies(end: _End) -> tuple[int | None, int | None]:
    """From the request to the provider until its first byte, and until its end. Other targets may
    have been tried before, so it is not what the client waited."""
    network, first, last = end.network_ms, end.ttfb_ms, end.latency_ms
    if end.error is not None or network is None or first is None or last is None:
        return None, None
    return bucket(network), bucket(last - first + network)


def _left_after(seconds: float) -> float:
    return float(2 ** (-seconds / HALF_LIFE))
