"""What differs between two price books, and whether that can be true."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from schemas.prices import DatedPrice, PriceBook, PricedModel
from schemas.usage import Rates, Variant

# No vendor changes a price so much in one step: it is a slip of the unit or of the file.
_MOST_TIMES = 100
_CLASSES = Rates.__struct_fields__


class Change(NamedTuple):
    """One rate of one model before and after, nano-dollars per million tokens (`per_request`: per
    request); None where it was or is not listed."""

    provider: str
    model: str
    rate: str
    before: int | None
    after: int | None

    @property
    def percent(self) -> float | None:
        if not self.before or self.after is None:
            return None
        return (self.after - self.before) * 100 / self.before


class Changes(NamedTuple):
    """Models that came and went, rates that are others now, and models of which something else is:
    a name, a window, a price at another time."""

    added: list[tuple[str, str]]
    removed: list[tuple[str, str]]
    changed: list[Change]
    others: list[tuple[str, str]]

    def __bool__(self) -> bool:
        return any((self.added, self.removed, self.changed, self.others))


def rates_of(version: DatedPrice) -> dict[str, int]:
    """All rates of a price by name: `input`, `cached_input above 200000`, `batch output`,
    `per_request`."""
    found: dict[str, int] = {}
    served: list[tuple[str, DatedPrice | Variant]] = [("", version)]
    served += [(f"{variant.tier} ", variant) for variant in version.variants]
    for tier, one in served:
        if one.rates is not None:
            found |= _named(one.rates, tier, "")
        for longer in one.tiers:
            found |= _named(longer.rates, tier, f" above {longer.above}")
    if version.per_request:
        found["per_request"] = version.per_request
    return found


def compare(old: PriceBook, new: PriceBook, seconds: int) -> Changes:
    """What `new` changes, by the prices that apply at a time (Unix seconds)."""
    before, after = _models(old), _models(new)
    changes = Changes(
        sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys()), [], []
    )
    for place in sorted(before.keys() & after.keys()):
        then, now = before[place], after[place]
        if then == now:
            continue
        rates, others = rates_of(then.price_at(seconds)), rates_of(now.price_at(seconds))
        different = [
            Change(*place, name, rates.get(name), others.get(name))
            for name in dict.fromkeys((*rates, *others))
            if rates.get(name) != others.get(name)
        ]
        changes.changed.extend(different)
        if not different:
            changes.others.append(place)
    return changes


def doubts(old: PriceBook, new: PriceBook, seconds: int) -> Iterator[str]:
    """Why a new book cannot be right, as phrases: prices that jump, or most models gone."""
    before, after = _models(old), _models(new)
    left = before.keys() & after.keys()
    if len(left) * 2 < len(before):
        yield f"only {len(left)} of {len(before)} models are left"
    for place in sorted(left):
        rates = rates_of(before[place].price_at(seconds))
        for version in after[place].prices:
            for name, now in rates_of(version).items():
                then = rates.get(name)
                if then and not then <= now * _MOST_TIMES <= then * _MOST_TIMES**2:
                    yield f"{'/'.join(place)}: {name} jumps from {then} to {now} nano-dollars"
                    break


def _models(book: PriceBook) -> dict[tuple[str, str], PricedModel]:
    return {
        (provider, model.id): model
        for provider in book.providers
        for model in book.models(provider)
    }


def _named(rates: Rates, before: str, behind: str) -> dict[str, int]:
    return {
        f"{before}{name}{behind}": rate
        for name, rate in zip(_CLASSES, msgspec.structs.astuple(rates), strict=True)
        if rate is not None
    }
