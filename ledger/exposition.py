"""The numbers as Prometheus text: the native names and those of the product documents.

`titan_*` and `unified_*` are sums of the native numbers, made when somebody asks, so that nothing
is counted twice and no two names can differ.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from ledger.beats import LET_THROUGH, Processes
from ledger.telemetry import BUCKETS, OUTCOMES, Durations, Labels, Telemetry
from schemas.money import NANO
from schemas.target_events import TargetState

_LIMITS = [*(str(float(limit)) for limit in BUCKETS), "+Inf"]
_PROMPT = frozenset(
    {"input", "cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input"}
)
_PER_MODEL = ("model", "provider")
_ERROR = ("type", "provider")
_PROCESS = ("role", "id")
_STATES = {"closed": 0, "half_open": 1, "open": 2}


class Position(NamedTuple):
    """Where the fold is: the last sequence in the numbers, and how many calls are open there."""

    seq: int
    open_calls: int


class Exposition:
    """Renders the numbers; every name is there from the start, without labels at 0 until it has
    a value with labels."""

    def __init__(
        self,
        telemetry: Telemetry,
        processes: Processes,
        position: Callable[[], Position],
        targets: Iterable[TargetState] = (),
    ) -> None:
        self._telemetry = telemetry
        self._processes = processes
        self._position = position
        self._targets = targets
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """All metrics in the Prometheus text format 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client asks of a collector."""
        yield from self._native()
        yield from self._titan()
        yield from self._unified()
        yield from self._gauges()

    def _errors(self) -> dict[Labels, float]:
        """Errors of calls, and those that were refused before they were calls."""
        errors: dict[Labels, float] = dict(self._telemetry.errors.values)
        for kind, count in self._processes.refusals().total.items():
            if kind != LET_THROUGH:
                errors[kind, ""] = errors.get((kind, ""), 0) + count
        return errors

    def _dollars(self) -> dict[Labels, float]:
        return {labels: nano / NANO for labels, nano in self._telemetry.cost_nano.values.items()}

    def _native(self) -> Iterable[Metric]:
        numbers = self._telemetry
        attempts = {(outcome,): 0 for outcome in OUTCOMES} | numbers.attempts.values
        yield _counter(
            "nexus_ai_requests_total",
            "Calls that ended, by how.",
            (*_PER_MODEL, "status"),
            numbers.requests.values,
        )
        yield _counter(
            "nexus_ai_tokens_total",
            "Tokens by class; the classes are disjoint.",
            (*_PER_MODEL, "type"),
            numbers.tokens.values,
        )
        yield _histogram(
            "nexus_ai_latency_seconds",
            "From the request to the whole answer, of calls that ended well.",
            _PER_MODEL,
            numbers.latency.buckets,
            numbers.latency.sums,
        )
        yield _histogram(
            "nexus_ai_ttft_seconds",
            "From the request to the first token, of streams.",
            _PER_MODEL,
            numbers.first_token.buckets,
            numbers.first_token.sums,
        )
        yield _counter(
            "nexus_ai_errors_total", "Calls that failed or were refused.", _ERROR, self._errors()
        )
        yield _counter(
            "nexus_ai_rate_let_through_total",
            "Calls that passed their rates unasked because no governor answered.",
            (),
            {(): self._processes.refusals().total.get(LET_THROUGH, 0)},
        )
        yield _counter("nexus_ai_cache_hits_total", "Calls answered from the cache.", (), {})
        yield _counter("nexus_ai_cost_usd_total", "What calls cost.", _PER_MODEL, self._dollars())
        yield _counter(
            "nexus_ai_unknown_cost_total",
            "Attempts whose cost is unknown, which is not zero.",
            _PER_MODEL,
            numbers.unpriced.values,
        )
        yield _counter(
            "nexus_ai_attempts_total", "Attempts that ended, by how.", ("outcome",), attempts
        )
        yield _counter(
            "nexus_ai_events_total", "Events of the ledger.", ("type",), numbers.events.values
        )

    def _titan(self) -> Iterable[Metric]:
        """The names of document 001."""
        numbers = self._telemetry
        yield _counter(
            "titan_model_requests_total",
            "Total requests per model.",
            ("model",),
            _summed(numbers.requests.values, lambda labels: labels[:1]),
        )
        yield _histogram(
            "titan_model_latency_seconds",
            "Request latency.",
            ("model",),
            *_merged(numbers.latency, lambda labels: labels[:1]),
        )
        yield _counter(
            "titan_cost_usd_total",
            "Total cost in USD.",
            (),
            {(): sum(numbers.cost_nano.values.values()) / NANO},
        )
        yield _counter(
            "titan_budget_exceeded_total",
            "Calls, and further attempts, refused by a budget.",
            (),
            numbers.budget_exceeded.values,
        )

    def _unified(self) -> Iterable[Metric]:
        """The names of document 003."""
        numbers = self._telemetry
        yield _counter(
            "unified_requests_total",
            "Total requests by model and provider.",
            _PER_MODEL,
            _summed(numbers.requests.values, lambda labels: labels[:2]),
        )
        yield _histogram(
            "unified_request_duration_seconds",
            "Request latency.",
            _PER_MODEL,
            numbers.latency.buckets,
            numbers.latency.sums,
        )
        yield _counter(
            "unified_tokens_total",
            "Token usage by model and provider.",
            (*_PER_MODEL, "type"),
            _summed(numbers.tokens.values, _by_side),
        )
        yield _counter(
            "unified_cost_total", "Cost in USD by model and provider.", _PER_MODEL, self._dollars()
        )
        yield _counter(
            "unified_errors_total", "Errors by type and provider.", _ERROR, self._errors()
        )
        yield _counter("unified_cache_hits_total", "Cache hits.", (), {})

    def _gauges(self) -> Iterable[Metric]:
        position = self._position()
        yield GaugeMetricFamily(
            "nexus_ai_open_calls", "Calls without an end.", value=position.open_calls
        )
        yield GaugeMetricFamily(
            "nexus_ai_ledger_seq", "The last event in these numbers.", value=position.seq
        )
        in_flight = GaugeMetricFamily("nexus_ai_in_flight_calls", "Calls in hand.", labels=_PROCESS)
        memory = GaugeMetricFamily(
            "nexus_ai_resident_memory_bytes", "Memory in use.", labels=_PROCESS
        )
        processor = CounterMetricFamily(
            "nexus_ai_process_cpu_seconds_total", "Processor time used.", labels=_PROCESS
        )
        for beat in self._processes.alive():
            in_flight.add_metric((beat.role, beat.id), beat.in_flight)
            memory.add_metric((beat.role, beat.id), beat.rss_bytes)
            processor.add_metric((beat.role, beat.id), beat.cpu_seconds)
        yield from (in_flight, memory, processor, self._provider_states())

    def _provider_states(self) -> Metric:
        """Of every target that was ever left alone; without an engine it is all of a provider."""
        states = GaugeMetricFamily(
            "nexus_ai_provider_state",
            "Whether a target is asked: 0 yes, 1 by one probe, 2 no.",
            labels=("provider", "engine"),
        )
        for target in self._targets:
            states.add_metric((target.provider, target.engine), _STATES[target.state])
        return states


def _by_side(labels: Labels) -> Labels:
    """The nine classes of tokens as the two sides that document 003 knows."""
    model, provider, kind = labels
    return model, provider, "prompt" if kind in _PROMPT else "completion"


def _summed(values: Mapping[Labels, float], key: Callable[[Labels], Labels]) -> dict[Labels, float]:
    sums: dict[Labels, float] = defaultdict(float)
    for labels, value in values.items():
        sums[key(labels)] += value
    return sums


def _merged(
    durations: Durations, key: Callable[[Labels], Labels]
) -> tuple[dict[Labels, list[int]], dict[Labels, float]]:
    buckets: dict[Labels, list[int]] = {}
    for labels, counts in durations.buckets.items():
        before = buckets.get(key(labels), [0] * len(counts))
        buckets[key(labels)] = [a + b for a, b in zip(before, counts, strict=True)]
    return buckets, _summed(durations.sums, key)


def _counter(
    name: str, text: str, labels: Labels, values: Mapping[Labels, float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items() or [((), 0)]:
        family.add_metric(key, value)
    return family


def _histogram(
    name: str,
    text: str,
    labels: Labels,
    buckets: Mapping[Labels, list[int]],
    sums: Mapping[Labels, float],
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, counts in buckets.items() or [((), [0] * len(_LIMITS))]:
        cumulated = zip(_LIMITS, accumulate(counts), strict=True)
        family.add_metric(key, list(cumulated), sums.get(key, 0.0))
    return family
