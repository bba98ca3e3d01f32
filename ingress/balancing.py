"""Which of several equal targets takes the next call: the less loaded of two drawn at random.

A target's load is how many calls this ingress has running there, times how long its calls take:
a peak that is believed at once and forgotten slowly (Finagle's peak EWMA). Two draws are enough to
keep away from what is slow, and unlike the best of all they do not send every ingress to the same
target (M. Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001).
"""

from collections.abc import Sequence
from math import exp
from typing import NamedTuple

from ingress.conditions import Condition, Conditions
from schemas.call import Target
from schemas.frames import Finish
from schemas.ids import Clock

# A peak fades to a third within so many seconds of better times, or of no calls at all: so a target
# that was slow is tried again, by one call.
_FADING = 10.0
_TARGETS_KEPT = 512
_LEAST_SUCCESS = 0.05


class Load(NamedTuple):
    """What this ingress has running at a target, and how long its calls take (None: unknown)."""

    running: int = 0
    peak_ms: float | None = None


_IDLE = Load()


class Running:
    """One call on its way to the first target of its plan."""

    __slots__ = ("is_over", "target")

    def __init__(self, target: tuple[str, str]) -> None:
        self.target = target
        self.is_over = False


class _Place:
    __slots__ = ("at", "peak_ms", "running")

    def __init__(self) -> None:
        self.running = 0
        self.peak_ms: float | None = None
        self.at = 0.0

    def faded(self, now: float) -> float | None:
        """While a call runs there its time is still to come, and nothing is forgotten."""
        if self.peak_ms is None or self.running:
            return self.peak_ms
        return self.peak_ms * exp((self.at - now) / _FADING)

    def took(self, ms: float, now: float) -> None:
        peak = self.peak_ms
        if peak is None or ms >= peak:
            self.peak_ms = ms
        else:
            kept = exp((self.at - now) / _FADING)
            self.peak_ms = peak * kept + ms * (1 - kept)
        self.at = now


class Loads:
    """The calls of this ingress by target; bounded, as what idles for longest is forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._places: dict[tuple[str, str], _Place] = {}

    def __len__(self) -> int:
        return len(self._places)

    def of(self, provider: str, engine: str) -> Load:
        place = self._places.get((provider, engine))
        if place is None:
            return _IDLE
        return Load(place.running, place.faded(self._clock.monotonic()))

    def begin(self, target: Target) -> Running:
        """A call goes to this target, until `end`."""
        running = Running((target.provider, target.engine))
        place = self._places.get(running.target)
        if place is None:
            self._make_room()
            place = self._places[running.target] = _Place()
        elif not place.running:
            now = self._clock.monotonic()
            place.peak_ms, place.at = place.faded(now), now
        place.running += 1
        return running

    def end(self, running: Running, finish: Finish | None = None) -> None:
        """The call is over, with its good end if it has one; a second time nothing happens.

        It tells of its first target if that one answered at once: how long it took with the wait in
        the queue, and without the client's own slowness.
        """
        if running.is_over:
            return
        running.is_over = True
        place = self._places[running.target]
        now = self._clock.monotonic()
        place.running -= 1
        if finish is not None and finish.attempts == 1 and _place_of(finish) == running.target:
            place.took(finish.timings.total, now)
        elif not place.running:
            place.at = now

    def _make_room(self) -> None:
        if len(self._places) < _TARGETS_KEPT:
            return
        idle = [target for target, place in self._places.items() if not place.running]
        for target in sorted(idle, key=lambda target: self._places[target].at)[: len(idle) // 2]:
            del self._places[target]


def _place_of(finish: Finish) -> tuple[str, str]:
    return finish.provider, finish.engine


def choose(
    targets: Sequence[Target],
    weights: Sequence[int],
    conditions: Conditions,
    draws: tuple[float, float],
) -> int:
    """The index of the target that takes the next call; draws are from 0 up to 1.

    The first draw is by weight, and so is each target's share. Those of one weight stand equal:
    among them a second one is drawn, and the less loaded of the two is it. What is broken, or has
    no weight, is taken only where there is nothing else.
    """
    first = _drawn(range(len(weights)), weights, draws[0])
    found = _of(targets[first], conditions)
    if found.broken:
        first, found = _unbroken(targets, weights, conditions, draws[0], first, found)
    weight = weights[first]
    others = [at for at, other in enumerate(weights) if other == weight and at != first]
    if not others:
        return first
    second = others[int(draws[1] * len(others))]
    other = _of(targets[second], conditions)
    return second if not other.broken and is_less_loaded(other, found) else first


def is_less_loaded(one: Condition, other: Condition) -> bool:
    """Whether a call is likely to be answered sooner by the one. Where it is not known how long
    either takes, the running calls alone decide."""
    ours, theirs = _time(one), _time(other)
    if ours is None or theirs is None:
        return one.running < other.running
    return ours * (one.running + 1) < theirs * (other.running + 1)


def _time(condition: Condition) -> float | None:
    """How long until a good answer: what fails has to be asked again."""
    took = condition.total_ms if condition.peak_ms is None else condition.peak_ms
    if took is None:
        return None
    return took / max(1.0 - (condition.error_rate or 0.0), _LEAST_SUCCESS)


def _of(target: Target, conditions: Conditions) -> Condition:
    return conditions.of(target.provider, target.engine)


def _drawn(those: Sequence[int], weights: Sequence[int], draw: float) -> int:
    """One of those indexes, by weight."""
    left = draw * sum([weights[at] for at in those])
    for at in those:
        left -= weights[at]
        if left < 0:
            return at
    return those[0]


def _unbroken(
    targets: Sequence[Target],
    weights: Sequence[int],
    conditions: Conditions,
    draw: float,
    first: int,
    found: Condition,
) -> tuple[int, Condition]:
    """Another one by weight among those that are not broken; the same where all are."""
    whole = {
        at: condition
        for at, target in enumerate(targets)
        if weights[at] and not (condition := _of(target, conditions)).broken
    }
    if not whole:
        return first, found
    at = _drawn(tuple(whole), weights, draw)
    return at, whole[at]
