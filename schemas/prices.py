"""The price book: what each provider asks for each of its models, and since when.

Its data, `data/prices.json`, are made by `compose/generate_catalog.py` and never edited.
"""

import re
from collections.abc import Iterator
from importlib.resources import files

import msgspec

from schemas.usage import Price, Rates, Tier, Variant

MINUTES_A_DAY = 24 * 60
_REMEMBERED = 4096


class Rule(msgspec.Struct, frozen=True):
    """One rule for lower-case model names; exactly one of its fields is set."""

    equals: str | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    contains: str | None = None
    regex: str | None = None
    any: "tuple[Rule, ...] | None" = None
    all: "tuple[Rule, ...] | None" = None

    def fits(self, name: str) -> bool:
        if self.starts_with is not None:
            return name.startswith(self.starts_with)
        if self.equals is not None:
            return name == self.equals
        if self.ends_with is not None:
            return name.endswith(self.ends_with)
        if self.contains is not None:
            return self.contains in name
        if self.regex is not None:
            return re.search(self.regex, name) is not None
        if self.any is not None:
            return any(rule.fits(name) for rule in self.any)
        return self.all is not None and all(rule.fits(name) for rule in self.all)


class DatedPrice(msgspec.Struct, frozen=True):
    """A price and when it applies: from `since` (Unix seconds) on, or daily between two minutes of
    the UTC day, the second excluded. No rates: in that time the price is not known."""

    since: int | None = None
    minutes: tuple[int, int] | None = None
    digest: str = ""
    rates: Rates | None = None
    tiers: tuple[Tier, ...] = ()
    per_request: int = 0
    variants: tuple[Variant, ...] = ()

    def applies(self, seconds: int) -> bool:
        if self.since is not None:
            return seconds >= self.since
        if self.minutes is None:
            return True
        first, end = self.minutes
        minute = seconds // 60 % MINUTES_A_DAY
        return first <= minute < end if first <= end else minute >= first or minute < end


class PricedModel(msgspec.Struct, frozen=True):
    """One model of a provider: the lower-case names that are it, rules for further names, and its
    prices, the later ones taking precedence."""

    id: str
    prices: tuple[DatedPrice, ...]
    names: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    display_name: str | None = None
    context_window: int | None = None

    def price_at(self, seconds: int) -> DatedPrice:
        """The version that applies at a time (Unix seconds), or the first if none does."""
        for version in reversed(self.prices):
            if version.applies(seconds):
                return version
        return self.prices[0]


class _ProviderRow(msgspec.Struct, frozen=True):
    url: str
    fallbacks: tuple[str, ...]
    models: msgspec.Raw


class _File(msgspec.Struct, frozen=True):
    source: str
    version: str
    license: str
    providers: dict[str, _ProviderRow]
    made: str = ""


class BrokenPrices(ValueError):
    """Why a file cannot be used as a price book."""


_EDITION = re.compile(r"[A-Za-z0-9._+-]{1,80}")
_MADE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
# USD 10,000 per million tokens, as for costs in the configuration: what is more is another unit.
_MOST = 10_000_000_000_000
_decode_models = msgspec.json.Decoder(tuple[PricedModel, ...]).decode


class PriceList:
    """The models of one provider, found by name: exact names at once, rules in their order."""

    def __init__(self, models: tuple[PricedModel, ...]) -> None:
        self.models = models
        self._places: dict[str, int] = {}
        self._ruled: list[tuple[int, PricedModel]] = []
        self._found: dict[str, PricedModel | None] = {}
        for place, model in enumerate(models):
            for name in model.names:
                self._places.setdefault(name, place)
            if model.rules:
                self._ruled.append((place, model))

    def find(self, name: str) -> PricedModel | None:
        """The first model that the name fits, in any case of letters."""
        if name in self._found:
            return self._found[name]
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
        found = self._found[name] = self._search(name.lower())
        return found

    def _search(self, name: str) -> PricedModel | None:
        exact = self._places.get(name, len(self.models))
        for place, model in self._ruled:
            if place > exact:
                break
            if any(rule.fits(name) for rule in model.rules):
                return model
        return self.models[exact] if exact < len(self.models) else None


class PriceBook:
    """All price lists; each is decoded when it is first asked for.

    `edition` names the source and its version, `made` is when the book was made from it (RFC 3339).
    """

    def __init__(self, data: bytes) -> None:
        file = msgspec.json.decode(data, type=_File)
        self.edition = f"{file.source}-{file.version}"
        self.made = file.made
        self._rows = file.providers
        self._lists: dict[str, PriceList] = {}

    @classmethod
    def load(cls) -> "PriceBook":
        return cls(files("schemas").joinpath("data/prices.json").read_bytes())

    @classmethod
    def checked(cls, data: bytes) -> "PriceBook":
        """A book from elsewhere, read to its end. Raises BrokenPrices where anything in it would
        fail later."""
        try:
            book = cls(data)
            if not _EDITION.fullmatch(book.edition) or not _MADE.fullmatch(book.made):
                raise BrokenPrices("its source, version or time is not as `nexus prices` writes it")
            if not book.providers:
                raise BrokenPrices("it has no prices")
            for provider, row in book._rows.items():
                re.compile(row.url)
                for model in book.models(provider):
                    _check(provider, model)
        except (msgspec.DecodeError, re.error, UnicodeError, RecursionError) as error:
            raise BrokenPrices(f"no price file: {error}") from error
        return book

    @property
    def providers(self) -> tuple[str, ...]:
        """Whose price lists these are."""
        return tuple(self._rows)

    def __contains__(self, provider: str) -> bool:
        return provider in self._rows

    def provider_of_url(self, url: str) -> str | None:
        """Whose prices hold for what is served under a base URL."""
        for provider, row in self._rows.items():
            if re.match(row.url, url):
                return provider
        return None

    def models(self, provider: str) -> tuple[PricedModel, ...]:
        """What a provider itself lists; nothing for one that the book does not know."""
        return self._list(provider).models

    def find(self, provider: str, name: str) -> PricedModel | None:
        """A model in the provider's own list."""
        return self._list(provider).find(name)

    def price(self, provider: str, name: str, seconds: int) -> Price | None:
        """The price at a time (Unix seconds): from the provider's own list, else from those of the
        makers whose models it resells, without their service tiers. None when it is not known."""
        for listing in self._sellers(provider):
            model = self.find(listing, name)
            if model is not None:
                version = model.price_at(seconds)
                if version.rates is None:
                    return None
                return Price(
                    id=f"{self.edition}/{listing}/{model.id}/{version.digest}",
                    rates=version.rates,
                    tiers=version.tiers,
                    per_request=version.per_request,
                    variants=version.variants if listing == provider else (),
                )
        return None

    def _sellers(self, provider: str) -> Iterator[str]:
        yield provider
        row = self._rows.get(provider)
        if row is not None:
            yield from row.fallbacks

    def _list(self, provider: str) -> PriceList:
        known = self._lists.get(provider)
        if known is None:
            row = self._rows.get(provider)
            known = PriceList(_decode_models(row.models) if row is not None else ())
            if row is not None:
                self._lists[provider] = known
        return known


def _check(provider: str, model: PricedModel) -> None:
    if not model.prices:
        raise BrokenPrices(f"{provider}/{model.id}: a model without a price")
    for rule in model.rules:
        rule.fits("")
    for version in model.prices:
        served: tuple[DatedPrice | Variant, ...] = (version, *version.variants)
        rates = [one.rates for one in served if one.rates is not None]
        rates += [tier.rates for one in served for tier in one.tiers]
        amounts = [
            rate for one in rates for rate in msgspec.structs.astuple(one) if rate is not None
        ]
        if not all(0 <= amount <= _MOST for amount in (*amounts, version.per_request)):
            raise BrokenPrices(f"{provider}/{model.id}: a price below 0 or beyond all measure")
