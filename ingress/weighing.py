"""The plans among which a draw decides: those of a model with several targets, those of a route."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from schemas.call import Target
from schemas.config import RoutePolicy, RouterConfig

# Plans, each for one target that may come first, and the running sums of their weights.
Plans = tuple[tuple[tuple[Target, ...], ...], tuple[int, ...]]
_ALL = 100_000


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
