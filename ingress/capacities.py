"""What models can take and give: the context window and the output limit of a target."""

from collections.abc import Sequence

from ingress.routing import Router
from schemas.call import Target
from schemas.catalog import ModelFacts

# What is put into a request where nobody has told the limit of its model.
DEFAULT_OUTPUT = 4096
# Where the window is not known: that of the largest models that are widely sold.
LARGEST_WINDOW = 2_097_152

_UNKNOWN = ModelFacts()
_Place = tuple[str, str]


class Capacities:
    """Read from the configuration first, then from the catalog; kept by provider and engine."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._facts: dict[_Place, ModelFacts] = {}
        for name in router.catalog.names():
            facts = router.catalog.facts(name) or _UNKNOWN
            for place in facts.engines.items():
                self._facts.setdefault(place, facts)
        self._configured: dict[_Place, int] = {}
        for name, entry in router.config.models.items():
            if entry.max_tokens is not None:
                for place in router.places(name):
                    self._configured.setdefault(place, entry.max_tokens)

    def output(self, model: str, plan: Sequence[Target]) -> int:
        """The output tokens that a call asks for where its client does not say: what `models:`
        says of the name or the catalog of its first target, but no more than any fallback can."""
        entry = self._router.config.models.get(model)
        own = entry.max_tokens if entry is not None else None
        first = own if own is not None else self._output(plan[0])
        known = [first, *(self._output(target) for target in plan[1:])]
        return min((limit for limit in known if limit is not None), default=DEFAULT_OUTPUT)

    def window(self, target: Target) -> int:
        """The context window in tokens."""
        listed = self._router.listed(target.provider, target.engine)
        known = self._facts_of(target).context_window or (listed and listed.context_window)
        return known or LARGEST_WINDOW

    def _output(self, target: Target) -> int | None:
        configured = self._configured.get((target.provider, target.engine))
        return configured if configured is not None else self._facts_of(target).max_tokens

    def _facts_of(self, target: Target) -> ModelFacts:
        place = (target.provider, target.engine)
        return self._facts.get(place) or self._router.catalog.facts(target.engine) or _UNKNOWN
