"""What is best for a call: the strategies `cost`, `speed`, `quality` and `auto`."""

from collections.abc import Callable, Sequence

from ingress.candidates import Considered
from ingress.conditions import Condition
from schemas.config import Strategy
from schemas.money import format_usd

Score = Callable[[Considered], float]

# Of so many calls that ask for speed one goes to a target of which nothing is measured yet.
EXPLORED = 16
# What `auto` makes of its three parts, and of a part that nobody knows.
_COST, _SPEED, _QUALITY = 0.3, 0.3, 0.4
_MIDDLING = 0.5
_ENDLESS = float("inf")
_LEAST_SUCCESS = 0.01


def score(
    strategy: Strategy | None, those: Sequence[Considered], stream: bool, weigh_cost: bool
) -> Score | None:
    """What to sort candidates by, the least first; None leaves them in their order.

    What is not known comes last, but for `auto`.
    """
    if strategy == "cost":
        return lambda one: _ENDLESS if one.cost_nano is None else one.cost_nano
    if strategy == "speed":
        return lambda one: _ENDLESS if (took := _wait(one, stream)) is None else took
    if strategy == "quality":
        return lambda one: -(one.candidate.facts.quality or 0)
    if strategy == "auto":
        return _weighed(those, stream, weigh_cost)
    return None


def time_of(condition: Condition, stream: bool) -> float | None:
    """The measured milliseconds that a client waits: to the first byte of a stream, else to the
    end of the answer."""
    if stream and condition.first_byte_ms is not None:
        return condition.first_byte_ms
    return condition.total_ms


def unmeasured(
    firsts: Sequence[Considered], preferred: frozenset[str], stream: bool
) -> list[Considered]:
    """Whom nobody has measured: of those that the client prefers, if any, else of all."""
    favoured = [one for one in firsts if one.candidate.target.provider in preferred] or firsts
    return [one for one in favoured if time_of(one.condition, stream) is None]


def to_try(
    unmeasured: Sequence[Considered], firsts: Sequence[Considered], draw: float
) -> Considered | None:
    """The unmeasured target whose turn it is: for one call of sixteen, or for every call where the
    best is itself not measured. Each of them has the same chance."""
    if not unmeasured:
        return None
    part = draw if unmeasured[0] is firsts[0] else draw * EXPLORED
    return unmeasured[int(part * len(unmeasured))] if part < 1.0 else None


def reason(strategy: Strategy | None, first: Considered, stream: bool, is_trial: bool) -> str:
    """Why the first target of a plan is the first, as a phrase."""
    if first.candidate.stands_in:
        return "a fallback, as nothing else fulfils the wishes"
    if strategy == "cost":
        if first.cost_nano is None:
            return "cost: no price is known"
        return f"cost: about {format_usd(first.cost_nano)} USD, the least"
    if strategy == "speed":
        took = time_of(first.condition, stream)
        if is_trial or took is None:
            return "speed: not measured yet, so it has its turn"
        return f"speed: about {took:.0f} ms to the {'first byte' if stream else 'end'}"
    if strategy == "quality":
        rated = first.candidate.facts.quality
        return "quality: no rating is known" if rated is None else f"quality: rated {rated}"
    if strategy == "auto":
        return "auto: the best of cost, speed and quality together"
    return "as configured"


def _wait(one: Considered, stream: bool) -> float | None:
    """The time of an answer with that of the failures before it."""
    took = time_of(one.condition, stream)
    if took is None:
        return None
    return took / max(1.0 - (one.condition.error_rate or 0.0), _LEAST_SUCCESS)


def _weighed(those: Sequence[Considered], stream: bool, weigh_cost: bool) -> Score:
    """The strategy `auto`: each part from 0 to 1, where 1 is the best candidate's. Cost and time
    count as the best one's share of them, quality as the place between the worst and the best."""
    costs = [one.cost_nano for one in those if one.cost_nano is not None]
    waits = [took for one in those if (took := _wait(one, stream)) is not None]
    ratings = [rated for one in those if (rated := one.candidate.facts.quality) is not None]
    cheapest, fastest = min(costs, default=0), min(waits, default=0.0)
    worst, best = min(ratings, default=0), max(ratings, default=0)
    cost_weight = _COST if weigh_cost else 0.0

    def weighed(one: Considered) -> float:
        cost, took, rated = one.cost_nano, _wait(one, stream), one.candidate.facts.quality
        cheap = _MIDDLING if cost is None else cheapest / cost if cost else 1.0
        fast = _MIDDLING if took is None else fastest / took if took else 1.0
        good = _MIDDLING if rated is None or worst == best else (rated - worst) / (best - worst)
        parts = cost_weight * cheap + _SPEED * fast + _QUALITY * good
        return -parts * (1.0 - (one.condition.error_rate or 0.0))

    return weighed
