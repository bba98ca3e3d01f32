"""Where a call runs: from the name a client sent to the ordered targets of its plan."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate, islice, pairwise
from typing import NamedTuple

from ingress.own_prices import own_price
from schemas.call import Target, Timeouts
from schemas.catalog import Catalog
from schemas.config import Config, ModelConfig
from schemas.errors import ModelNotFound
from schemas.ids import Clock
from schemas.prices import PricedModel
from schemas.usage import Price, marked_up

_MINUTE_NS = 60 * 1_000_000_000
_REMEMBERED = 4096
LONGEST_NAME = 200
PASS_THROUGH = "target"
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


class _Route(NamedTuple):
    """The plans of a name, one for each target that may come first, with their running weights.

    It holds for one minute: prices may change with the date and the time of day.
    """

    minute: int
    plans: tuple[tuple[Target, ...], ...]
    bounds: tuple[int, ...]


class Router:
    """Plans by model name: of the configuration first, then of the catalog."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        clock: Clock = Clock(),  # noqa: B008 - a Clock has no state
    ) -> None:
        self.config = config
        self.catalog = catalog
        self._clock = clock
        self._routes: dict[tuple[str, Brought], _Route] = {}
        self._price_lists = self._lists()
        self._looked = 0
        self._sellers = [
            *(name for name in catalog.vendors if name != "mock"),
            *(name for name in config.providers if name not in catalog.vendors),
        ]

    def plan(self, model: str, brought: Brought = _NONE) -> tuple[Target, ...]:
        """The targets of a call in order; the first is drawn by weight where there are several.

        `brought` names the providers that the client has a key of its own for: they come first
        where the choice is ours. Raises ModelNotFound, saying what to set where only a key is
        missing.
        """
        route = self._route(model, brought)
        if len(route.plans) == 1:
            return route.plans[0]
        draw = int.from_bytes(self._clock.entropy(4), "big") * route.bounds[-1] >> 32
        return route.plans[bisect_right(route.bounds, draw)]

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
        if model in self.config.models:
            return model
        return self.config.defaults.get(model, model)

    def target(self, model: str) -> Target | None:
        """The likeliest first target of a name; None where it cannot be used."""
        try:
            route = self._route(model, _NONE)
        except ModelNotFound:
            return None
        shares = [high - low for low, high in pairwise((0, *route.bounds))]
        return route.plans[shares.index(max(shares))][0]

    def remedy(self, model: str) -> str:
        """What would make a name usable that is not, as a phrase: `set OPENAI_API_KEY`. Empty for
        a name that nobody knows."""
        name = self.chosen(model)
        entry = self.config.models.get(name)
        places = list(self._places(name))
        for fallback in entry.fallbacks if entry is not None else ():
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
        return tuple(dict.fromkeys((*self.config.models, *self.catalog.names(), *listed)))

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
        entry = self.config.models.get(model)
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
            self._routes.clear()
            self._price_lists = self._lists()
            self.__dict__.pop("names", None)

    def _route(self, model: str, brought: Brought) -> _Route:
        minute = self._clock.now_ns() // _MINUTE_NS
        route = self._routes.get((model, brought))
        if route is None or route.minute != minute:
            self._look_for_prices(minute)
            if len(self._routes) >= _REMEMBERED:
                self._routes.clear()
            route = self._routes[model, brought] = self._new_route(model, brought, minute)
        return route

    def _new_route(self, model: str, brought: Brought, minute: int) -> _Route:
        name = self.chosen(model)
        usable = self._usable(name, brought)
        targets = [(self._target(name, place, brought), place.weight) for place in usable]
        entry = self.config.models.get(name)
        fallbacks = [
            self._target(fallback, place, brought)
            for fallback in (entry.fallbacks if entry is not None else ())
            for place in sorted(self._usable(fallback, brought), key=lambda place: -place.weight)
        ]
        if not targets and not fallbacks:
            raise self._not_found(model)
        return _Route(minute, *_plans(targets, fallbacks))

    def _target(self, name: str, place: _Place, brought: Brought) -> Target:
        price = self.price(name, place.provider, place.engine, brought)
        timeouts = self._timeouts(self.config.models.get(name))
        if self.config.mock_all:
            return Target("mock", name, self._pool("mock"), price, timeouts)
        return Target(place.provider, place.engine, self._pool(place.provider), price, timeouts)

    def _usable(self, name: str, brought: Brought = _NONE) -> list[_Place]:
        """Where a name runs: all usable targets of its entry, else the first usable place, if
        possible one that the client has a key of its own for."""
        places = self._places(name)
        if self.config.mock_all:
            return list(islice(places, 1))
        usable = (place for place in places if self._has_key(place.provider, brought))
        entry = self.config.models.get(name)
        if entry is not None and entry.targets:
            return list(usable)
        if brought:
            return sorted(usable, key=lambda place: place.provider not in brought)[:1]
        return list(islice(usable, 1))

    def _has_key(self, provider: str, brought: Brought) -> bool:
        if self._is_for_clients(provider):
            return provider in brought
        return provider in self.config.providers

    def _places(self, name: str) -> Iterator[_Place]:
        entry = self.config.models.get(name)
        if entry is None:
            if _can_be_a_name(name):
                yield from self._built_in(name)
        elif entry.targets:
            for target in entry.targets:
                yield _Place(target.provider, target.engine or name, target.weight)
        elif entry.provider:
            yield _Place(entry.provider, entry.engine or name)
        else:
            yield from self._built_in(entry.engine or name)

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
        vendor = self.catalog.vendors.get(provider)
        if vendor is None:
            return f"give provider {provider} its key"
        return f"set {vendor.needs}"


def _plans(
    targets: list[tuple[Target, int]], fallbacks: list[Target]
) -> tuple[tuple[tuple[Target, ...], ...], tuple[int, ...]]:
    """A plan for each target that may come first, the heavier ones of the others behind it, and
    the running sums of the weights."""
    if not targets:
        return (tuple(dict.fromkeys(fallbacks)),), (1,)
    heaviest_first = [target for target, _ in sorted(targets, key=lambda pair: -pair[1])]
    firsts = [pair for pair in targets if pair[1]] or [(heaviest_first[0], 1)]
    plans = tuple(tuple(dict.fromkeys((first, *heaviest_first, *fallbacks))) for first, _ in firsts)
    return plans, tuple(accumulate(weight for _, weight in firsts))


def _can_be_a_name(model: str) -> bool:
    return len(model) <= LONGEST_NAME and _NAME.fullmatch(model) is not None


def shown(name: str) -> str:
    """A client's name for a message: short, and without what would break a line."""
    short = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}..."
    return short if short.isprintable() else short.encode("unicode_escape").decode()
