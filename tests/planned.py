"""Candidates and what is measured of them, as tests of the choice among targets give them."""

from collections.abc import Mapping

from ingress.candidates import Candidate, place_of
from ingress.conditions import UNKNOWN, Condition
from ingress.planning import Plan
from schemas.call import Target
from schemas.catalog import ModelFacts
from schemas.usage import Price, Rates


class Known:
    """Conditions by `provider/engine`; of all others nothing is known."""

    def __init__(self, conditions: Mapping[str, Condition] | None = None) -> None:
        self.conditions = dict(conditions or {})

    def of(self, provider: str, engine: str) -> Condition:
        return self.conditions.get(f"{provider}/{engine}", UNKNOWN)


def candidate(
    place: str,
    rates: tuple[int, int] | None = (1_000_000_000, 2_000_000_000),
    region: str = "",
    stands_in: bool = False,
    facts: ModelFacts = ModelFacts(),  # noqa: B008 - it is frozen
) -> Candidate:
    """A target at `provider/engine`; `rates` are nano-dollars for a million tokens in and out."""
    provider, _, engine = place.partition("/")
    price = None if rates is None else Price(id=place, rates=Rates(*rates))
    target = Target(provider, engine, provider, price)
    return Candidate(engine, target, facts, region, stands_in)


def places(plan: Plan) -> list[str]:
    return [place_of(target) for target in plan.targets]
