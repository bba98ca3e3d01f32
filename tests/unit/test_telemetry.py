"""The numbers behind the metrics, and the metrics as Prometheus reads them."""

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ledger.beats import Beat, Processes, Refusals
from ledger.exposition import Exposition, Position
from ledger.telemetry import BUCKETS, Counts, Snapshot, Telemetry
from schemas.budget_events import BudgetExceeded
from schemas.errors import ErrorInfo
from schemas.events import LedgerEvent
from schemas.ids import Clock
from schemas.usage import Usage
from tests import sample_events as sample

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def folded(events: Iterable[LedgerEvent]) -> Telemetry:
    telemetry = Telemetry()
    for event in events:
        telemetry.fold(event, is_end=True)
    return telemetry


def samples(telemetry: Telemetry, processes: Processes | None = None) -> Samples:
    exposition = Exposition(telemetry, processes or Processes(Clock()), lambda: Position(7, 2))
    text = exposition.text().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(of: Samples, name: str, **labels: str) -> float:
    return of[name, frozenset(labels.items())]


def total(of: Samples, name: str) -> float:
    return sum(number for (found, _), number in of.items() if found == name)


COUNTERS = [
    "nexus_ai_requests_total",
    "nexus_ai_tokens_total",
    "nexus_ai_latency_seconds_count",
    "nexus_ai_ttft_seconds_count",
    "nexus_ai_errors_total",
    "nexus_ai_cache_hits_total",
    "nexus_ai_cost_usd_total",
    "nexus_ai_unknown_cost_total",
    "nexus_ai_attempts_total",
    "nexus_ai_events_total",
    "titan_model_requests_total",
    "titan_model_latency_seconds_count",
    "titan_cost_usd_total",
    "titan_budget_exceeded_total",
    "unified_requests_total",
    "unified_request_duration_seconds_count",
    "unified_tokens_total",
    "unified_cost_total",
    "unified_errors_total",
    "unified_cache_hits_total",
]


@pytest.mark.parametrize("name", COUNTERS)
def test_every_name_is_there_at_zero_before_the_first_event(name: str) -> None:
    fresh = samples(Telemetry())
    found = [number for (known, _), number in fresh.items() if known == name]
    assert found and not any(found)


def test_the_position_of_the_fold_is_shown() -> None:
    fresh = samples(Telemetry())
    assert value(fresh, "nexus_ai_ledger_seq") == 7
    assert value(fresh, "nexus_ai_open_calls") == 2


def test_a_finished_call_is_counted_once_under_every_name() -> None:
    seen = samples(folded([sample.start("a"), sample.first_token("a"), sample.complete("a")]))
    where = {"model": "gpt-4o", "provider": "openai"}
    assert value(seen, "nexus_ai_requests_total", **where, status="complete") == 1
    assert value(seen, "nexus_ai_tokens_total", **where, type="input") == 100
    assert value(seen, "nexus_ai_tokens_total", **where, type="output") == 20
    assert value(seen, "nexus_ai_cost_usd_total", **where) == 0.0000015
    assert value(seen, "nexus_ai_attempts_total", outcome="complete") == 1
    assert value(seen, "nexus_ai_latency_seconds_sum", **where) == 0.3
    assert value(seen, "nexus_ai_ttft_seconds_bucket", **where, le="0.05") == 1
    assert value(seen, "titan_model_requests_total", model="gpt-4o") == 1
    assert value(seen, "titan_model_latency_seconds_count", model="gpt-4o") == 1
    assert value(seen, "titan_cost_usd_total") == 0.0000015
    assert value(seen, "unified_requests_total", **where) == 1
    assert value(seen, "unified_tokens_total", **where, type="prompt") == 100
    assert value(seen, "unified_cost_total", **where) == 0.0000015


def test_sums_over_providers_are_the_same_under_every_name() -> None:
    events = [
        sample.complete("a", provider="openai", latency_ms=20.0),
        sample.complete("b", provider="azure", latency_ms=2_000.0),
        sample.failed("c", provider="azure"),
        sample.complete("d", model="other-model", cost_nano=2_000_000_000),
    ]
    seen = samples(folded(events))
    assert value(seen, "titan_model_requests_total", model="gpt-4o") == 3
    assert value(seen, "titan_model_latency_seconds_bucket", model="gpt-4o", le="1.0") == 1
    assert value(seen, "titan_model_latency_seconds_bucket", model="gpt-4o", le="+Inf") == 2
    assert total(seen, "unified_requests_total") == total(seen, "nexus_ai_requests_total") == 4
    assert total(seen, "unified_cost_total") == pytest.approx(value(seen, "titan_cost_usd_total"))


def test_tokens_of_all_classes_add_up_to_the_two_sides() -> None:
    usage = Usage(
        input=1,
        cached_input=2,
        cache_write=4,
        cache_write_1h=512,
        audio_input=8,
        image_input=16,
        output=32,
        reasoning=64,
        audio_output=128,
        image_output=256,
    )
    seen = samples(folded([sample.complete("a", usage=usage)]))
    where = {"model": "gpt-4o", "provider": "openai"}
    assert value(seen, "unified_tokens_total", **where, type="prompt") == usage.prompt
    assert value(seen, "unified_tokens_total", **where, type="completion") == usage.completion


def test_errors_are_counted_by_type_and_provider_however_the_call_ended() -> None:
    over_budget = ErrorInfo(status=429, type="rate_limit_error", message="", code="budget_exceeded")
    events = [
        sample.failed("a"),
        sample.attempt_failed("b"),
        sample.rejected("c", error=over_budget),
        sample.lost("d"),
    ]
    seen = samples(folded(events))
    assert value(seen, "nexus_ai_errors_total", type="provider_error", provider="openai") == 1
    assert value(seen, "unified_errors_total", type="rate_limit_error", provider="openai") == 1
    assert value(seen, "unified_errors_total", type="server_error", provider="openai") == 1
    assert value(seen, "nexus_ai_attempts_total", outcome="failed") == 2


def test_refusals_by_a_budget_are_counted_by_what_tells_of_them_and_not_by_the_end_of_a_call() -> (
    None
):
    over_budget = ErrorInfo(status=429, type="rate_limit_error", message="", code="budget_exceeded")
    told = BudgetExceeded(event_id="e", time="", v=1)
    of_a_worker = msgspec.structs.replace(told, call_id="a")
    of_a_second = msgspec.structs.replace(told, refused=5)
    events = [told, of_a_second, of_a_worker, sample.failed("a", error=over_budget)]
    assert value(samples(folded(events)), "titan_budget_exceeded_total") == 7


def test_a_further_end_of_a_call_costs_money_and_is_no_request() -> None:
    telemetry = Telemetry()
    telemetry.fold(sample.lost("a"), is_end=True)
    telemetry.fold(sample.complete("a"), is_end=False)
    seen = samples(telemetry)
    where = {"model": "gpt-4o", "provider": "openai"}
    assert total(seen, "nexus_ai_requests_total") == 1
    assert value(seen, "nexus_ai_requests_total", **where, status="lost") == 1
    assert value(seen, "nexus_ai_cost_usd_total", **where) == 0.0000015
    assert value(seen, "nexus_ai_attempts_total", outcome="late") == 1
    assert value(seen, "nexus_ai_latency_seconds_count") == 0


def test_money_of_every_attempt_counts_and_an_unknown_cost_is_not_zero() -> None:
    events = [
        sample.attempt_failed("a", cost_nano=10),
        sample.attempt_abandoned("a", cost_nano=None),
        sample.attempt_late("a", cost_nano=500),
        sample.complete("a", cost_nano=1_000),
    ]
    telemetry = folded(events)
    assert telemetry.cost_nano.values == {("gpt-4o", "openai"): 1_510}
    assert telemetry.unpriced.values == {("gpt-4o", "openai"): 1}
    assert telemetry.requests.values == {("gpt-4o", "openai", "complete"): 1}


def test_a_correction_is_paid_by_what_follows_and_is_no_attempt() -> None:
    telemetry = folded([sample.attempt_abandoned("a", cost_nano=1_000)])
    telemetry.fold(sample.attempt_late("a", corrects=1, cost_nano=-300), is_end=True)
    key = ("gpt-4o", "openai")
    assert telemetry.cost_nano.values[key] == 1_000
    telemetry.fold(sample.complete("b", cost_nano=500), is_end=True)
    assert telemetry.cost_nano.values[key] == 1_200
    assert telemetry.attempts.values == {("abandoned",): 1, ("complete",): 1}


@given(st.lists(st.integers(min_value=-50, max_value=100), max_size=30))
def test_a_count_never_goes_down_and_is_the_highest_sum_so_far(amounts: list[int]) -> None:
    counts = Counts()
    exact = highest = 0
    for amount in amounts:
        counts.add(("x",), amount)
        exact += amount
        highest = max(highest, exact)
        assert counts.values["x",] == highest


@pytest.mark.parametrize("limit", BUCKETS)
def test_a_duration_on_a_limit_is_within_it(limit: float) -> None:
    seen = samples(folded([sample.complete("a", latency_ms=limit * 1000)]))
    within = {
        dict(labels)["le"]: number
        for (name, labels), number in seen.items()
        if name == "nexus_ai_latency_seconds_bucket"
    }
    assert within[str(float(limit))] == 1
    assert sum(within.values()) == len(BUCKETS) - BUCKETS.index(limit) + 1


def test_models_beyond_the_two_hundredth_share_one_label() -> None:
    seen = samples(folded(sample.complete(f"c{n}", model=f"model-{n}") for n in range(300)))
    models = {dict(labels)["model"] for (name, labels) in seen if name == "nexus_ai_requests_total"}
    assert len(models) == 201
    other = {"model": "other", "provider": "openai"}
    assert value(seen, "nexus_ai_requests_total", **other, status="complete") == 100


@given(st.text(max_size=200))
def test_any_model_name_is_a_readable_label(model: str) -> None:
    model = model.encode("utf-8", "replace").decode()
    seen = samples(folded([sample.complete("a", model=model)]))
    where = {"model": model[:128], "provider": "openai", "status": "complete"}
    assert value(seen, "nexus_ai_requests_total", **where) == 1


def test_a_successor_goes_on_from_a_snapshot() -> None:
    first = [sample.first_token("a"), sample.complete("a"), sample.failed("b")]
    first.append(sample.attempt_late("a", corrects=1, cost_nano=-900_000))
    second = [sample.complete("c", model="m2"), sample.complete("d", cost_nano=1_000_000)]
    kept = msgspec.json.encode(folded(first).snapshot())
    successor = Telemetry(msgspec.json.decode(kept, type=Snapshot))
    for event in second:
        successor.fold(event, is_end=True)
    assert samples(successor) == samples(folded([*first, *second]))


def test_a_snapshot_with_other_buckets_loses_histograms_and_keeps_counts() -> None:
    kept = folded([sample.complete("a")]).snapshot()
    older = msgspec.structs.replace(kept, buckets=(1.0, 2.0))
    seen = samples(Telemetry(older))
    assert total(seen, "nexus_ai_latency_seconds_count") == 0
    assert total(seen, "nexus_ai_requests_total") == 1


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 100.0
        self.clock = Clock(monotonic=lambda: self.at)


def test_refusals_are_summed_over_processes_and_outlive_them() -> None:
    hand = Hand()
    processes = Processes(hand.clock)
    processes.fold(Beat("ingress", "a", {"authentication_error": 3}))
    processes.fold(Beat("ingress", "b", {"authentication_error": 1, "not_found_error": 2}))
    processes.fold(Beat("ingress", "a", {"authentication_error": 5}))
    hand.at += 3600
    processes.fold(Beat("ingress", "c", {"authentication_error": 1}))
    seen = samples(folded([sample.failed("x")]), processes)
    assert value(seen, "nexus_ai_errors_total", type="authentication_error", provider="") == 7
    assert value(seen, "unified_errors_total", type="not_found_error", provider="") == 2
    assert value(seen, "nexus_ai_errors_total", type="provider_error", provider="openai") == 1


def test_a_process_that_comes_back_after_a_silence_is_not_counted_twice() -> None:
    hand = Hand()
    processes = Processes(hand.clock)
    processes.fold(Beat("ingress", "a", {"authentication_error": 3}))
    hand.at += 3600
    processes.fold(Beat("ingress", "b"))
    processes.fold(Beat("ingress", "a", {"authentication_error": 4}))
    assert processes.refusals().total == {"authentication_error": 4}


def test_a_successor_goes_on_with_the_refusals() -> None:
    before = Processes(Clock())
    before.fold(Beat("ingress", "a", {"authentication_error": 3}))
    kept = msgspec.json.decode(msgspec.json.encode(before.refusals()), type=Refusals)
    successor = Processes(Clock(), kept)
    successor.fold(Beat("ingress", "a", {"authentication_error": 5}))
    assert successor.refusals().total == {"authentication_error": 5}


def test_gauges_show_the_processes_heard_of_lately() -> None:
    hand = Hand()
    processes = Processes(hand.clock)
    processes.fold(Beat("worker", "old", {}, 1, 1000, 0.5))
    hand.at += 11
    processes.fold(Beat("worker", "new", {}, 4, 2000, 1.5))
    seen = samples(Telemetry(), processes)
    assert value(seen, "nexus_ai_in_flight_calls", role="worker", id="new") == 4
    assert value(seen, "nexus_ai_resident_memory_bytes", role="worker", id="new") == 2000
    assert value(seen, "nexus_ai_process_cpu_seconds_total", role="worker", id="new") == 1.5
    assert not any(("id", "old") in labels for _, labels in seen)
