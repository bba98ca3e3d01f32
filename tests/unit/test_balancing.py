"""The less loaded of two: who takes the next call among equal targets."""

import random
from collections import Counter
from typing import Any

import pytest

from ingress.balancing import Load, Loads, choose
from ingress.conditions import Condition, NoConditions
from ingress.measured import Measured
from ingress.routing import Router
from ingress.target_states import HeardStates
from ingress.target_statistics import TargetStatistics
from ledger.target_states import TargetStates
from schemas.call import Target
from schemas.config import ModelConfig, RoutePolicy, RouteTarget, TargetConfig
from schemas.ids import Clock
from tests.finished import finish
from tests.routes import CATALOG, NOON, router

TARGETS = [Target(name, "m", name) for name in "abc"]
EQUAL = tuple(TargetConfig(name, "m") for name in ("local", "openai"))


class Now:
    """A clock that stands until the test moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.clock = Clock(monotonic=lambda: self.seconds)


class Told:
    """Conditions by provider, as the test says."""

    def __init__(self, **conditions: Condition) -> None:
        self._conditions = conditions

    def of(self, provider: str, engine: str) -> Condition:
        return self._conditions.get(provider, Condition())


def run(loads: Loads, now: Now, target: Target, ms: float, attempts: int = 1) -> None:
    running = loads.begin(target)
    now.seconds += ms / 1e3
    loads.end(running, finish(target, ms, attempts))


def shares(weights: list[int], told: Told | NoConditions, draws: int = 20_000) -> list[float]:
    chance = random.Random(7)
    found = Counter(
        choose(TARGETS, weights, told, (chance.random(), chance.random())) for _ in range(draws)
    )
    return [found[at] / draws for at in range(len(weights))]


@pytest.mark.parametrize("weights", [[1, 1, 1], [95, 5, 0], [2, 2, 1], [0, 0, 3]])
def test_while_nothing_is_known_the_shares_are_the_weights(weights: list[int]) -> None:
    for share, weight in zip(shares(weights, NoConditions()), weights, strict=True):
        assert share == pytest.approx(weight / sum(weights), abs=0.015)
        assert weight or not share


def test_a_slow_target_of_equal_weight_is_left_to_who_draws_nothing_else() -> None:
    slow = Told(a=Condition(peak_ms=900.0), b=Condition(peak_ms=90.0), c=Condition(peak_ms=90.0))
    assert shares([1, 1, 1], slow) == [
        0.0,
        pytest.approx(0.5, abs=0.02),
        pytest.approx(0.5, abs=0.02),
    ]


def test_a_share_that_was_given_is_kept_however_slow_the_target_is() -> None:
    slow = Told(a=Condition(peak_ms=9.0), b=Condition(peak_ms=90_000.0, running=99))
    assert shares([95, 5, 0], slow)[1] == pytest.approx(0.05, abs=0.005)


def test_running_calls_decide_where_a_time_is_not_known() -> None:
    told = Told(a=Condition(running=2, peak_ms=1.0), b=Condition(running=1), c=Condition(running=3))
    assert choose(TARGETS, [1, 1, 1], told, (0.0, 0.0)) == 1
    assert choose(TARGETS, [1, 1, 1], told, (0.0, 0.99)) == 0


def test_what_the_ledger_measured_stands_in_for_own_calls_and_failures_count_as_time() -> None:
    told = Told(a=Condition(total_ms=100.0, error_rate=0.5), b=Condition(total_ms=150.0))
    assert choose(TARGETS[:2], [1, 1], told, (0.0, 0.0)) == 1
    told = Told(a=Condition(total_ms=9.0, peak_ms=500.0), b=Condition(total_ms=150.0))
    assert choose(TARGETS[:2], [1, 1], told, (0.0, 0.0)) == 1


def test_what_is_broken_is_taken_only_where_there_is_nothing_else() -> None:
    broken = Condition(broken=True)
    assert shares([1, 1, 1], Told(a=broken))[0] == 0
    assert shares([9, 1, 0], Told(a=broken)) == [0, 1, 0]
    assert shares([1, 1, 0], Told(a=broken, b=broken))[2] == 0
    everywhere = shares([1, 1, 1], Told(a=broken, b=broken, c=broken))
    assert everywhere == [pytest.approx(1 / 3, abs=0.02)] * 3


def test_calls_are_counted_where_they_run_until_they_end() -> None:
    now = Now()
    loads = Loads(now.clock)
    first, second = loads.begin(TARGETS[0]), loads.begin(TARGETS[0])
    assert loads.of("a", "m") == Load(2, None)
    loads.end(first)
    loads.end(first)
    assert loads.of("a", "m") == Load(1, None)
    loads.end(second)
    assert loads.of("a", "m") == Load(0, None)
    assert loads.of("b", "m") == Load(0, None)


def test_a_peak_is_believed_at_once_and_forgotten_slowly() -> None:
    now = Now()
    loads = Loads(now.clock)
    run(loads, now, TARGETS[0], 100)
    run(loads, now, TARGETS[0], 5000)
    assert loads.of("a", "m").peak_ms == 5000
    for _ in range(600):
        run(loads, now, TARGETS[0], 100)
    assert loads.of("a", "m").peak_ms == pytest.approx(100, rel=0.2)


def test_without_calls_a_peak_fades_and_while_one_runs_it_does_not() -> None:
    now = Now()
    loads = Loads(now.clock)
    run(loads, now, TARGETS[0], 1000)
    now.seconds += 10
    assert loads.of("a", "m").peak_ms == pytest.approx(368, rel=0.01)
    running = loads.begin(TARGETS[0])
    now.seconds += 60
    assert loads.of("a", "m").running == 1
    assert loads.of("a", "m").peak_ms == pytest.approx(368, rel=0.01)
    loads.end(running)
    assert loads.of("a", "m").peak_ms == pytest.approx(368, rel=0.01)


def test_a_call_that_another_target_or_a_retry_answered_tells_no_time() -> None:
    now = Now()
    loads = Loads(now.clock)
    run(loads, now, TARGETS[0], 700, attempts=2)
    running = loads.begin(TARGETS[0])
    loads.end(running, finish(TARGETS[1], 800))
    assert loads.of("a", "m") == Load(0, None)


def test_the_targets_that_are_remembered_are_bounded_and_running_ones_stay() -> None:
    now = Now()
    loads = Loads(now.clock)
    running = loads.begin(TARGETS[0])
    for number in range(2000):
        run(loads, now, Target("p", f"e{number}", "p"), 10)
    assert len(loads) <= 512
    assert loads.of("a", "m").running == 1
    assert loads.of("p", "e1999").peak_ms is not None
    loads.end(running)


def test_the_conditions_of_a_target_are_all_that_is_known_of_it() -> None:
    now = Now()
    statistics, loads = TargetStatistics(now.clock), Loads(now.clock)
    measured = Measured(statistics, loads, HeardStates(TargetStates(), now.clock))
    assert measured.of("a", "m") == Condition()
    run(loads, now, TARGETS[0], 100)
    loads.begin(TARGETS[0])
    assert measured.of("a", "m") == Condition(running=1, peak_ms=100)


def _first(told: Told, models: dict[str, ModelConfig], name: str, **settings: Any) -> Counter[str]:
    routes = router("local", "openai", models=models, **settings)
    balanced = Router(routes.config, CATALOG, Clock(now_ns=lambda: NOON), told)
    return Counter([balanced.plan(name)[0].provider for _ in range(200)])


def test_a_name_with_equal_targets_goes_to_the_less_loaded_and_the_other_stands_by() -> None:
    models = {"chat": ModelConfig(targets=EQUAL)}
    slow = Told(local=Condition(peak_ms=900.0), openai=Condition(peak_ms=90.0))
    assert _first(slow, models, "chat") == {"openai": 200}
    even = _first(Told(), models, "chat")
    assert even["openai"] == pytest.approx(100, abs=50) and even["local"]


def test_the_shares_of_a_route_are_kept_whoever_is_slow() -> None:
    models = {"a": ModelConfig(provider="local"), "b": ModelConfig(provider="openai")}
    behind = (RouteTarget("a", 1), RouteTarget("b", 1))
    slow = Told(local=Condition(peak_ms=900.0), openai=Condition(peak_ms=90.0))
    found = _first(slow, models, "r", routes={"r": RoutePolicy("weighted", targets=behind)})
    assert found["local"] == pytest.approx(100, abs=50)
