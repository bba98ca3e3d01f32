"""Where a call runs: from the name a client sent to the ordered targets of its plan."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from ingress.conditions import Conditions, NoConditions
from ingress.own_prices import own_price
from ingress.weighing import Behind, Plans, Route, most_targets, name_plans, policy_plans, shares
from schemas.call import Target, Timeouts
from schemas.catalog import Catalog
from schemas.config import Config, ModelConfig
from schemas.errors import ModelNotFound
from schemas.globs import is_pattern, matches
from schemas.ids import Clock
from schemas.prices import PricedModel
from schemas.usage import Price, marked_up

_MINUTE_NS = 60 * 1_000_000_000
_REMEMBERED = 4096
LONGEST_NAME = 200
PASS_THROUGH = "target"
AUTO = "auto"
_LONGEST_SHOWN = 80
_MOST_NAMED = 3
# What a name may be that the configuration does not spell out. It goes to a provider, never into
# a subject.
_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9@~][A-Za-z0-9@~._:/+-]*(?<!/)")


Brought = frozenset[str]
_NONE: Brought = frozenset()


class _Place(NamedTuple):
    """A place where a model could run, whether or not its provider can be used."""

    provider: str
    engine: str
    weight: int = 1


class Router:
    """Plans by model name: of the configuration first, then of the catalog."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        clock: Clock = Clock(),  # noqa: B008 - a Clock has no state
        conditions: Conditions = NoConditions(),  # noqa: B008 - nor has it
    ) -> None:
        self.config = config
        self.catalog = catalog
        self._clock = clock
        self._conditions = conditions if config.router.load_balancing_enabled else NoConditions()
        self._routes: dict[tuple[str, Brought], Route] = {}
        self._price_lists = self._lists()
        self._patterns = {name: one for name, one in config.models.items() if is_pattern(name)}
        self._shares = {name: shares(policy) for name, policy in config.routes.items()}
        self._most = most_targets(config.router)
        self._looked = 0
        self._sellers = [
            *(name for name in catalog.vendors if name != "mock"),
            *(name for name in config.providers if name not in catalog.vendors),
        ]

    def plan(self, model: str, brought: Brought = _NONE) -> tuple[Target, ...]:
        """The targets of a call in order; the first is drawn by weight where there are several, and
        is the less loaded of two where their weights are equal.

        `brought` names the providers that the client has a key of its own for: they come first
        where the choice is ours. Raises ModelNotFound, saying what to set where only a key is
        missing.
        """
        route = self._route(model, brought)
        return route.drawn(self._conditions, self._clock.entropy)

    def through(self, model: str) -> tuple[Target, ...]:
        """The plan of a client that comes with nothing but a provider's key: to `target_url`, under
        the name it sent. Raises ModelNotFound for what can be no name."""
        if not _can_be_a_name(model):
            raise self._not_found(model)
        price = self.catalog.price(self._price_lists[PASS_THROUGH], model)
        pool = self._pool(PASS_THROUGH)
        return (Target(PASS_THROUGH, model, pool, price, self._timeouts(None)),)

    def chosen(self, model: str) -> str:
        """The model behind the name of a task (`defaults:`), or the name itself."""
        if model in self.config.models or model in self.config.routes:
            return model
        return self.config.defaults.get(model, model)

    def is_open(self, model: str) -> bool:
        """Whether the name leaves the choice of the model to the gateway."""
        return model == AUTO and model not in self.config.models and model not in self.config.routes

    def entry(self, name: str) -> ModelConfig | None:
        """What `models:` says of a name, itself or by the first pattern that fits it."""
        exact = self.config.models.get(name)
        if exact is not None or not self._patterns or not _can_be_a_name(name):
            return exact
        fitting = (one for pattern, one in self._patterns.items() if matches(pattern, name))
        return next(fitting, None)

    @cached_property
    def configured(self) -> tuple[str, ...]:
        """The names that the configuration spells out."""
        exact = (name for name in self.config.models if name not in self._patterns)
        return tuple(dict.fromkeys((*exact, *self.config.routes)))

    def everywhere(self, model: str, brought: Brought = _NONE) -> list[Target]:
        """All places where a name can run, best first; empty where there is none."""
        name = self.chosen(model)
        places = self._candidates(name, brought)
        return list(dict.fromkeys([self._target(name, place, brought) for place in places]))

    def standing_in(self, names: Iterable[str], brought: Brought = _NONE) -> list[Target]:
        """The targets of fallbacks, in order; empty where none can be used."""
        return [
            self._target(name, place, brought)
            for name in map(self.chosen, names)
            for place in sorted(self._usable(name, brought), key=lambda place: -place.weight)
        ]

    def is_route(self, model: str) -> bool:
        """Whether a policy of `routes:` decides where the name runs."""
        return self.chosen(model) in self._shares

    def fallbacks(self, model: str) -> tuple[str, ...]:
        """The models that stand in for a name, as configured."""
        entry = self.entry(self.chosen(model))
        return entry.fallbacks if entry is not None else ()

    def target(self, model: str) -> Target | None:
        """The likeliest first target of a name; None where it cannot be used."""
        try:
            route = self._route(model, _NONE)
        except ModelNotFound:
            return None
        return route.plans[route.weights.index(max(route.weights))][0]

    def remedy(self, model: str) -> str:
        """What would make a name usable that is not, as a phrase: `set OPENAI_API_KEY`. Empty for
        a name that nobody knows."""
        name = self.chosen(model)
        places = list(self._places(name))
        for fallback in self.fallbacks(name):
            places += self._places(fallback)
        ways = list(dict.fromkeys(self._way_to(place.provider) for place in places))
        return ", or ".join(ways[:_MOST_NAMED])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every name worth listing: configured, built in, and in the usable vendors' price lists;
        the last only where the bare name leads to that vendor."""
        listed = (
            engine
            for provider in self.config.providers
            for engine in self.catalog.engines(self._price_lists[provider])
            if any(place.provider == provider for place in self._usable(engine)[:1])
        )
        return tuple(dict.fromkeys((*self.configured, *self.catalog.names(), *listed)))

    def places(self, model: str) -> list[tuple[str, str]]:
        """Provider and engine of each place where a name could run, usable or not."""
        return [place[:2] for place in self._places(self.chosen(model))]

    def listed(self, provider: str, engine: str) -> PricedModel | None:
        """An engine in the price list that holds for a provider, configured or built in."""
        return self.catalog.listed(self._price_lists.get(provider, provider), engine)

    def price(
        self, model: str, provider: str, engine: str, brought: Brought = _NONE
    ) -> Price | None:
        """What a model costs at a place, with our markup where our key pays the provider."""
        price = self._list_price(model, provider, engine)
        if price is None or provider in brought or self._is_for_clients(provider):
            return price
        return marked_up(price, self.config.pricing.markup_percent)

    def _list_price(self, model: str, provider: str, engine: str) -> Price | None:
        """What a provider asks for a model: as configured, else as the catalog knows."""
        listed = self.book_price(model, provider, engine)
        entry = self.entry(model)
        return listed if entry is None else own_price(model, entry, listed)

    def book_price(self, model: str, provider: str, engine: str) -> Price | None:
        """What the catalog knows that a provider asks for a model."""
        settings = self.config.providers.get(provider)
        if settings is not None and settings.dialect == "mock":
            return self.catalog.price("mock", engine)
        price_list = self._price_lists.get(provider, provider)
        if settings is not None and settings.dialect == "litellm":
            price_list, engine = self.catalog.priced_as(engine)
        found = self.catalog.price(price_list, engine)
        if found is None and self.catalog.facts(model) is not None:
            found = self.catalog.price(price_list, model)
        return found

    def _lists(self) -> dict[str, str]:
        return {
            name: self.catalog.price_list_of(name, provider.base_url)
            for name, provider in self.config.providers.items()
        }

    def _look_for_prices(self, minute: int) -> None:
        """Once a minute: whether the file of prices has changed. Plans that were given out stay."""
        if minute == self._looked:
            return
        self._looked = minute
        if self.catalog.refresh():
            self._price_lists = self._lists()
            self.__dict__.pop("names", None)

    def _route(self, model: str, brought: Brought) -> Route:
        minute = self._clock.now_ns() // _MINUTE_NS
        route = self._routes.get((model, brought))
        if route is None or route.minute != minute:
            self._look_for_prices(minute)
            if len(self._routes) >= _REMEMBERED:
                self._routes.clear()
            route = self._routes[model, brought] = self._new_route(model, brought, minute)
        return route

    def _new_route(self, model: str, brought: Brought, minute: int) -> Route:
        name = self.chosen(model)
        if name in self._shares:
            plans, bounds = self._policy_plans(name, brought)
        else:
            plans, bounds = name_plans(*self._own(name, brought))
        if not plans:
            raise self._not_found(model)
        shortened = tuple([plan[: self._most] for plan in plans])
        return Route(minute, shortened, bounds, name in self._shares)

    def _own(self, name: str, brought: Brought) -> tuple[list[tuple[Target, int]], list[Target]]:
        """The targets of a name with their weights, and those of its fallbacks."""
        usable = self._usable(name, brought)
        targets = [(self._target(name, place, brought), place.weight) for place in usable]
        return targets, self.standing_in(self.fallbacks(name), brought)

    def _policy_plans(self, name: str, brought: Brought) -> Plans:
        behind = [
            Behind(*self._own(model, brought), weight) for model, weight in self._shares[name]
        ]
        rest = self.standing_in(self.fallbacks(name), brought)
        return policy_plans(self.config.routes[name], behind, rest)

    def _target(self, name: str, place: _Place, brought: Brought) -> Target:
        price = self.price(name, place.provider, place.engine, brought)
        timeouts = self._timeouts(self.entry(name))
        if self.config.mock_all:
            return Target("mock", name, self._pool("mock"), price, timeouts)
        return Target(place.provider, place.engine, self._pool(place.provider), price, timeouts)

    def _usable(self, name: str, brought: Brought = _NONE) -> list[_Place]:
        """Where a name runs: all usable targets of its entry, else the first usable place, if
        possible one that the client has a key of its own for, or that the operator prefers."""
        usable = self._candidates(name, brought)
        entry = self.entry(name)
        return usable if entry is not None and entry.targets else usable[:1]

    def _candidates(self, name: str, brought: Brought) -> list[_Place]:
        """Where a name could run, best first."""
        places = self._places(name)
        if self.config.mock_all:
            return list(islice(places, 1))
        usable = [place for place in places if self._has_key(place.provider, brought)]
        entry = self.entry(name)
        preferred = self.config.router.preferred_providers
        if (entry is not None and entry.targets) or not (brought or preferred):
            return usable
        usable.sort(key=lambda p: (p.provider not in brought, p.provider not in preferred))
        return usable

    def _has_key(self, provider: str, brought: Brought) -> bool:
        if provider in self.config.router.blocked_providers:
            return False
        if self._is_for_clients(provider):
            return provider in brought
        return provider in self.config.providers

    def _places(self, name: str) -> Iterator[_Place]:
        if name in self._shares:
            for model, _ in self._shares[name]:
                yield from self._model_places(model)
        else:
            yield from self._model_places(name)

    def _model_places(self, name: str) -> Iterator[_Place]:
        entry = self.entry(name)
        if entry is None:
            if _can_be_a_name(name):
                yield from self._built_in(name)
        elif name in self._patterns:
            return
        elif entry.targets:
            for target in entry.targets:
                yield _Place(target.provider, target.engine or name, target.weight)
        elif entry.provider:
            yield _Place(entry.provider, entry.engine or self._engine(entry.provider, name))
        else:
            yield from self._built_in(entry.engine or name)

    def _engine(self, provider: str, name: str) -> str:
        """A name at its provider; one that only a pattern knows may be a built-in one, which the
        vendor calls by another name."""
        facts = None if name in self.config.models else self.catalog.facts(name)
        return name if facts is None else facts.engines.get(provider, name)

    def _built_in(self, name: str) -> Iterator[_Place]:
        """A catalog name at its providers in order of preference, `provider/engine`, a name in a
        price list; else whatever it is at the default provider."""
        facts = self.catalog.facts(name)
        if facts is not None:
            for provider, engine in facts.engines.items():
                yield _Place(provider, engine)
        provider, slash, engine = name.partition("/")
        if slash and engine and (provider in self.config.providers or self._is_vendor(provider)):
            yield _Place(provider, engine)
            return
        found = facts is not None
        for seller in self._sellers:
            if self.listed(seller, name) is not None:
                found = True
                yield _Place(seller, name)
        if not found and self.config.default_provider:
            yield _Place(self.config.default_provider, name)

    def _is_vendor(self, provider: str) -> bool:
        return provider in self.catalog.vendors

    def _pool(self, provider: str) -> str:
        return self.config.providers[provider].pool or provider

    def _timeouts(self, entry: ModelConfig | None) -> Timeouts:
        own = entry.timeout if entry is not None else None
        seconds = own if own is not None else self.config.attempt_timeout
        if seconds is None:
            return Timeouts()
        return Timeouts(
            connect=min(Timeouts().connect, seconds),
            first_byte=seconds,
            idle=seconds,
            total=seconds,
        )

    def _not_found(self, model: str) -> ModelNotFound:
        name, remedy = shown(model), self.remedy(model)
        if not remedy:
            message = f"The model '{name}' does not exist"
        elif owner := next((p for p, _ in self.places(model) if self._is_for_clients(p)), ""):
            message = (
                f"The model '{name}' runs here only with your own key:"
                f" send 'X-Nexus-Provider-Key: {owner}=<key>'"
            )
        else:
            message = f"The model '{name}' is not available here: the operator can {remedy}"
        return ModelNotFound(message, param="model")

    def _is_for_clients(self, provider: str) -> bool:
        config = self.config.providers.get(provider)
        return config is not None and config.client_keys == "required"

    def _way_to(self, provider: str) -> str:
        if self._is_for_clients(provider):
            return f"have clients send their own key for {provider}"
        if provider in self.config.router.blocked_providers:
            return f"take {provider} off router.blocked_providers"
        vendor = self.catalog.vendors.get(provider)
        if vendor is None:
            return f"give provider {provider} its key"
        return f"set {vendor.needs}"


def _can_be_a_name(model: str) -> bool:
    return len(model) <= LONGEST_NAME and _NAME.fullmatch(model) is not None


def shown(name: str) -> str:
    """A client's name for a message: short, and without what would break a line."""
    short = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}..."
    return short if short.isprintable() else short.encode("unicode_escape").decode()
