"""The plans among which a draw decides: those of a model with several targets, those of a route."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from ingress.balancing import choose
from ingress.conditions import Conditions
from schemas.call import Target
from schemas.config import RoutePolicy, RouterConfig

# Plans, each for one target that may come first, and the running sums of their weights.
Plans = tuple[tuple[tuple[Target, ...], ...], tuple[int, ...]]
_ALL = 100_000
_DRAW_BYTES = 4
_DRAW_BITS = 8 * _DRAW_BYTES


class Route(NamedTuple):
    """The plans of a name, one for each target that may come first, with their running weights;
    `is_shared` where a policy says who gets how much, however they fare.

    It holds for one minute: prices may change with the date and the time of day.
    """

    minute: int
    plans: tuple[tuple[Target, ...], ...]
    bounds: tuple[int, ...]
    is_shared: bool

    @property
    def weights(self) -> list[int]:
        return [high - low for low, high in pairwise((0, *self.bounds))]

    def drawn(self, conditions: Conditions, entropy: Callable[[int], bytes]) -> tuple[Target, ...]:
        """One of the plans, by weight; of those of equal weight that of the less loaded of two."""
        if len(self.plans) == 1:
            return self.plans[0]
        draw = int.from_bytes(entropy(_DRAW_BYTES), "big")
        weights = self.weights
        if self.is_shared or len(set(weights)) == len(weights):
            return self.plans[bisect_right(self.bounds, draw * self.bounds[-1] >> _DRAW_BITS)]
        other = int.from_bytes(entropy(_DRAW_BYTES), "big")
        draws = draw / 2**_DRAW_BITS, other / 2**_DRAW_BITS
        return self.plans[choose([plan[0] for plan in self.plans], weights, conditions, draws)]


class Behind(NamedTuple):
    """A model behind a route: its targets with their weights, its fallbacks, and its own weight."""

    targets: list[tuple[Target, int]]
    fallbacks: list[Target]
    weight: int


def most_targets(router: RouterConfig) -> int:
    """How many targets a plan may have: the first one and its fallbacks."""
    return 1 + (router.max_fallback_attempts if router.enable_fallbacks else 0)


def shares(policy: RoutePolicy) -> list[tuple[str, int]]:
    """The models behind a route with their weights; a canary's are thousandths of a percent."""
    if policy.strategy == "weighted":
        return [(target.name, target.weight) for target in policy.targets]
    canary = round((policy.percent or 0.0) * _ALL / 100)
    return [(policy.primary, _ALL - canary), (policy.canary, canary)]


def name_plans(targets: list[tuple[Target, int]], fallbacks: list[Target]) -> Plans:
    """A plan for each target that may come first, the heavier ones of the others behind it; none
    where there is no target."""
    if not targets:
        return ((tuple(dict.fromkeys(fallbacks)),) if fallbacks else ()), (1,)
    heaviest_first = _heaviest_first(targets)
    firsts = [pair for pair in targets if pair[1]] or [(heaviest_first[0], 1)]
    plans = tuple(tuple(dict.fromkeys((first, *heaviest_first, *fallbacks))) for first, _ in firsts)
    return plans, tuple(accumulate(weight for _, weight in firsts))


def policy_plans(policy: RoutePolicy, models: Sequence[Behind], rest: Sequence[Target]) -> Plans:
    """A plan for each model of a route that calls are sent to, then its own fallbacks, then the
    route's (`rest`). The other models stand in for it, the heavier ones first, but for a canary:
    it gets its share and nothing else."""
    usable = [model for model in models if model.targets]
    if not usable:
        return ((tuple(dict.fromkeys(rest)),) if rest else ()), (1,)
    others = sorted(usable, key=lambda model: -model.weight)
    if policy.strategy == "canary":
        others = usable[:1]
    firsts = [model for model in usable if model.weight] or usable[:1]
    standing_in = [target for model in others for target in _heaviest_first(model.targets)]
    plans = [
        tuple(
            dict.fromkeys((*_heaviest_first(model.targets), *standing_in, *model.fallbacks, *rest))
        )
        for model in firsts
    ]
    return tuple(plans), tuple(accumulate(max(model.weight, 1) for model in firsts))


def _heaviest_first(targets: list[tuple[Target, int]]) -> list[Target]:
    return [target for target, _ in sorted(targets, key=lambda pair: -pair[1])]
