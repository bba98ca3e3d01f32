"""Balancing in simulated time: it keeps away from what is slow, and comes back afterwards."""

import heapq
import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from ingress.balancing import Loads, Running, choose
from ingress.conditions import Condition
from ingress.measured import Measured
from ingress.target_states import HeardStates
from ingress.target_statistics import TargetStatistics
from ledger.target_states import TargetStates
from schemas.call import Target
from schemas.ids import Clock
from tests.finished import finish

TARGETS = tuple(Target(name, "m", name) for name in "abc")
USUAL = 0.2
SLOW = 10 * USUAL
Took = Callable[[int, float], float]


class Told:
    """Conditions by index, as hypothesis says."""

    def __init__(self, conditions: list[Condition]) -> None:
        self._of = dict(zip("abcdef", conditions, strict=False))

    def of(self, provider: str, engine: str) -> Condition:
        return self._of[provider]


class Traffic:
    """Calls that arrive at random moments and run for as long as `took(target, at)` says."""

    def __init__(self, seed: int, per_second: float) -> None:
        self.seconds = 0.0
        self.calls: list[tuple[float, int, float]] = []
        self._chance = random.Random(seed)
        self._per_second = per_second
        clock = Clock(monotonic=lambda: self.seconds)
        self._loads = Loads(clock)
        self._conditions = Measured(
            TargetStatistics(clock), self._loads, HeardStates(TargetStates(), clock)
        )

    def run(self, until: float, took: Took) -> None:
        ends: list[tuple[float, int, int, float]] = []
        begun: dict[int, Running] = {}
        arrival = self.seconds
        while arrival < until:
            arrival += self._chance.expovariate(self._per_second)
            while ends and ends[0][0] <= arrival:
                self.seconds, number, at, seconds = heapq.heappop(ends)
                self._loads.end(begun.pop(number), finish(TARGETS[at], 1e3 * seconds))
            self.seconds = arrival
            draws = self._chance.random(), self._chance.random()
            at = choose(TARGETS, [1, 1, 1], self._conditions, draws)
            seconds = took(at, arrival) * self._chance.uniform(0.5, 1.5)
            number = len(self.calls)
            begun[number] = self._loads.begin(TARGETS[at])
            self.calls.append((arrival, at, seconds))
            heapq.heappush(ends, (arrival + seconds, number, at, seconds))
        for running in begun.values():
            self._loads.end(running)

    def share(self, at: int, since: float, until: float) -> float:
        window = [one for one in self.calls if since <= one[0] < until]
        return sum(one[1] == at for one in window) / len(window)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((5.0, 20.0, 60.0)))
def test_it_converges_away_from_a_slow_target_and_recovers(seed: int, per_second: float) -> None:
    traffic = Traffic(seed, per_second)

    def first_is_slow_for_a_minute(at: int, now: float) -> float:
        return SLOW if at == 0 and 30 <= now < 90 else USUAL

    traffic.run(180, first_is_slow_for_a_minute)
    assert traffic.share(0, 0, 30) > 0.2
    assert traffic.share(0, 40, 90) < 0.05
    assert traffic.share(0, 130, 180) > 0.2


_condition = st.builds(
    Condition,
    broken=st.booleans(),
    total_ms=st.none() | st.floats(0, 1e6),
    error_rate=st.none() | st.floats(0, 1),
    running=st.integers(0, 1000),
    peak_ms=st.none() | st.floats(0, 1e6),
)
_draw = st.floats(0, 1, exclude_max=True)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 3), _condition), min_size=1, max_size=6), _draw, _draw)
def test_what_has_no_weight_is_never_taken_and_what_is_broken_only_last(
    those: list[tuple[int, Condition]], first: float, second: float
) -> None:
    weights = [weight for weight, _ in those]
    conditions = [condition for _, condition in those]
    targets = [Target(name, "m", name) for name, _ in zip("abcdef", those, strict=False)]
    at = choose(targets, weights, Told(conditions), (first, second))
    assert weights[at] or not any(weights)
    usable = [w for w, condition in those if w and not condition.broken]
    assert not conditions[at].broken or not usable
