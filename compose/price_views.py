"""How `nexus prices` prints prices and their changes: US dollars per million tokens."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from compose.price_changes import Change, Changes, rates_of
from compose.show import printable
from schemas.money import format_usd
from schemas.prices import DatedPrice
from schemas.usage import Price

_MOST_SHOWN = 20


class Shown(NamedTuple):
    """What a model costs at a provider: by the list of `seller`, since when (Unix seconds; None:
    from the beginning, or by the hour)."""

    provider: str
    model: str
    price: Price
    since: int | None = None
    hours: tuple[int, int] | None = None


def shown(one: Shown) -> str:
    """A block of lines for one model at one provider."""
    lines = [printable(f"{one.provider}/{one.model}"), f"  price id    {printable(one.price.id)}"]
    if one.since is not None:
        lines.append(f"  since       {datetime.fromtimestamp(one.since, UTC):%Y-%m-%d}")
    if one.hours is not None:
        first, end = (f"{minute // 60:02d}:{minute % 60:02d}" for minute in one.hours)
        lines.append(f"  daily       {first} to {end} UTC")
    rates = _rates(one.price)
    width = max(map(len, rates))
    lines += [f"  {_words(name):<{width}}  {format_usd(nano):>10}" for name, nano in rates.items()]
    return "\n".join(lines) + "\n"


def as_data(one: Shown) -> dict[str, Any]:
    """The same for machines; amounts are decimal text, so that nothing is rounded."""
    price = one.price
    return {
        "provider": one.provider,
        "model": one.model,
        "price_id": price.id,
        "since": None if one.since is None else _day(one.since),
        "minutes_of_day": one.hours,
        "usd_per_million": {
            name: format_usd(nano) for name, nano in _rates(price).items() if name != "per_request"
        },
        "usd_per_request": format_usd(price.per_request),
    }


def changes(told: Changes, every: bool) -> str:
    """What came (+), went (-) and changed (old -> new); long lists are cut unless `every`."""
    lines = _cut([f"+ {'/'.join(place)}" for place in told.added], "added", every)
    lines += _cut([f"- {'/'.join(place)}" for place in told.removed], "removed", every)
    lines += _cut([_change(one) for one in told.changed], "changed", every)
    others = [f"~ {'/'.join(place)}  names, window or other times" for place in told.others]
    lines += _cut(others, "otherwise changed", every)
    return "".join(f"{printable(line)}\n" for line in lines)


def summary(told: Changes) -> str:
    models = len({(one.provider, one.model) for one in told.changed})
    return (
        f"{len(told.added)} models added, {len(told.removed)} removed,"
        f" {models} with other prices, {len(told.others)} changed otherwise"
    )


def changes_as_data(told: Changes) -> dict[str, Any]:
    return {
        "added": ["/".join(place) for place in told.added],
        "removed": ["/".join(place) for place in told.removed],
        "changed": [
            {
                "provider": one.provider,
                "model": one.model,
                "rate": one.rate,
                "before": None if one.before is None else format_usd(one.before),
                "after": None if one.after is None else format_usd(one.after),
                "percent": None if one.percent is None else round(one.percent, 2),
            }
            for one in told.changed
        ],
        "changed_otherwise": ["/".join(place) for place in told.others],
    }


def _change(one: Change) -> str:
    before = "none" if one.before is None else format_usd(one.before)
    after = "none" if one.after is None else format_usd(one.after)
    percent = "" if one.percent is None else f"  ({one.percent:+.1f}%)"
    return f"! {one.provider}/{one.model}  {_words(one.rate)}  {before} -> {after}{percent}"


def _cut(lines: list[str], what: str, every: bool) -> list[str]:
    if every or len(lines) <= _MOST_SHOWN:
        return lines
    return [*lines[:_MOST_SHOWN], f"  ... and {len(lines) - _MOST_SHOWN} more {what}"]


def _rates(price: Price) -> dict[str, int]:
    return rates_of(
        DatedPrice(
            rates=price.rates,
            tiers=price.tiers,
            per_request=price.per_request,
            variants=price.variants,
        )
    )


def _words(rate: str) -> str:
    return rate.replace("_", " ")


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
