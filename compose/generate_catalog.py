"""Makes `schemas/data/prices.json` from the installed `genai_prices` package, one model per line.

Run it after an update of that package: `python -m compose.generate_catalog`.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import msgspec
from genai_prices import types as source

import schemas
from schemas.money import nano_from_usd
from schemas.prices import PriceBook
from schemas.usage import Price, Rates, Tier, Variant, tier_named

# By name, because a type checker takes two minutes to read the literal which that module is.
providers: list[source.Provider] = import_module("genai_prices.data").providers
PACKAGE = "genai-prices"
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
TARGET = Path(schemas.__file__).parent / "data" / "prices.json"

# Their price keys, USD per million tokens, by our token class. What has no class of its own here
# (video, tools, citations) is billed as the class that contains it.
CLASSES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "audio_input": "input_audio_mtok",
    "image_input": "input_image_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_output": "output_audio_mtok",
    "image_output": "output_image_mtok",
}

# What selects a price there that is one of a service tier.
TIER_KEYS = ("processing", "service_tier", "speed")
# Where a call that names no tier may be served in another than the usual one: a project of OpenAI's
# has a setting for that (developers.openai.com/api/reference, `service_tier`: auto).
UNASKED = {("openai", "priority"), ("openai", "fast")}


def rates_above(prices: source.ModelPrice, above: int) -> Rates:
    """The rates of a prompt longer than `above` tokens; a missing output rate is zero (embeddings
    have none)."""
    rates: dict[str, int] = {"output": 0}
    for name, key in CLASSES.items():
        usd = getattr(prices, key)
        if isinstance(usd, source.TieredPrices):
            passed = [tier.price for tier in usd.tiers if tier.start <= above]
            usd = passed[-1] if passed else usd.base
        if usd is not None:
            rates[name] = nano_from_usd(usd)
    return Rates(**rates)


def tier_starts(prices: source.ModelPrice) -> list[int]:
    starts = {
        tier.start
        for key in CLASSES.values()
        if isinstance(usd := getattr(prices, key), source.TieredPrices)
        for tier in usd.tiers
    }
    return sorted(starts)


def price_of(model_id: str, prices: source.ModelPrice) -> Price | None:
    """Their price as ours, without its id; None where tokens have no price.

    No figure at all means free only where the name says so: elsewhere the price is unknown.
    """
    if prices.input_mtok is None:
        return Price(id="", rates=Rates(input=0, output=0)) if is_free(model_id, prices) else None
    per_thousand = prices.requests_kcount
    per_request = nano_from_usd(per_thousand / 1000) if isinstance(per_thousand, Decimal) else 0
    return Price(
        id="",
        rates=rates_above(prices, -1),
        tiers=tuple(
            Tier(above=start, rates=rates_above(prices, start)) for start in tier_starts(prices)
        ),
        per_request=per_request,
    )


def is_free(model_id: str, prices: source.ModelPrice) -> bool:
    return model_id.endswith(":free") and not any(
        value is not None for value in vars(prices).values()
    )


def minute_of_day(value: time) -> int:
    """Minutes since midnight UTC; a time of another zone would need a date, so it is refused."""
    if value.tzinfo not in (None, UTC):
        raise ValueError(f"a time of day that is not UTC: {value}")
    return value.hour * 60 + value.minute


def dated(provider: str, model: source.ModelInfo) -> Iterator[dict[str, Any]]:
    """The versions of a model's price, the later ones taking precedence: when each applies (a UTC
    date, or minutes of the UTC day), what it is, and a digest of it for the price's id.

    Raises ValueError for a model whose price depends on the hour and on the service tier.
    """
    tiers = service_tiers(model)
    versions = since_dates(model) if tiers else conditional(model)
    for version in versions:
        row: dict[str, Any] = {}
        moment = BEGINNING
        if isinstance(version.constraint, source.StartDateConstraint):
            moment = datetime.combine(version.constraint.start_date, time(), UTC)
            row["since"] = int(moment.timestamp())
        elif version.constraint is not None:
            row["minutes"] = [
                minute_of_day(version.constraint.start_time),
                minute_of_day(version.constraint.end_time),
            ]
        price = price_of(model.id, version.prices)
        if price is not None:
            found = [
                (tier, price_of(model.id, model.get_prices(moment, when)))
                for tier, when in tiers.items()
            ]
            variants = [
                Variant(tier, other.rates, other.tiers, (provider, tier) in UNASKED)
                for tier, other in found
                if other is not None and (other.rates, other.tiers) != (price.rates, price.tiers)
            ]
            price = msgspec.structs.replace(price, variants=tuple(variants))
            content = msgspec.to_builtins(price)
            del content["id"]
            row |= {"digest": digest(content), **content}
        yield row


def conditional(model: source.ModelInfo) -> list[source.ConditionalPrice]:
    if isinstance(model.prices, source.ModelPrice):
        return [source.ConditionalPrice(prices=model.prices)]
    return model.prices


def since_dates(model: source.ModelInfo) -> Iterator[source.ConditionalPrice]:
    """The prices of a model from the beginning, and from each date when one of them or that of a
    service tier changes."""
    dates = set()
    for one in (*conditional(model), *(model.price_variants or ())):
        if isinstance(one.constraint, source.TimeOfDateConstraint):
            raise ValueError(f"{model.id}: a price by the hour of the day and by service tier")
        if one.constraint is not None:
            dates.add(one.constraint.start_date)
    yield source.ConditionalPrice(prices=model.get_prices(BEGINNING))
    for date in sorted(dates):
        prices = model.get_prices(datetime.combine(date, time(), UTC))
        yield source.ConditionalPrice(source.StartDateConstraint(date), prices=prices)


def service_tiers(model: source.ModelInfo) -> dict[str, dict[str, str]]:
    """The service tiers that have prices of their own, each with what selects it there.

    Prices by other circumstances than a tier (a route, a kind of search) are left out.
    """
    found: dict[str, dict[str, str]] = {}
    for variant in model.price_variants or ():
        names = {tier_named(name) for key, name in variant.when.items() if key in TIER_KEYS}
        if len(variant.when) == 1 and names and names != {""}:
            found[names.pop()] = variant.when
    return found


def digest(content: Any) -> str:
    """Eight characters that are the same for the same data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def clause(match: source.MatchLogic) -> dict[str, Any]:
    """A match rule as data: one key, the kind of rule, with text or a list of rules."""
    match match:
        case source.ClauseOr():
            return {"any": [clause(part) for part in match.or_]}
        case source.ClauseAnd():
            return {"all": [clause(part) for part in match.and_]}
        case source.ClauseRegex():
            return {"regex": match.regex}
        case source.ClauseEquals():
            return {"equals": match.equals.lower()}
        case source.ClauseStartsWith():
            return {"starts_with": match.starts_with.lower()}
        case source.ClauseEndsWith():
            return {"ends_with": match.ends_with.lower()}
        case source.ClauseContains():
            return {"contains": match.contains.lower()}


def row_of(provider: str, model: source.ModelInfo) -> dict[str, Any]:
    """One model: the names that are it, the rules for further names, and its prices."""
    rules = match.or_ if isinstance(match := model.match, source.ClauseOr) else [match]
    names = [rule.equals.lower() for rule in rules if isinstance(rule, source.ClauseEquals)]
    further = [clause(rule) for rule in rules if not isinstance(rule, source.ClauseEquals)]
    row: dict[str, Any] = {"id": model.id, "names": names}
    if further:
        row["rules"] = further
    if model.name is not None:
        row["display_name"] = model.name
    if model.context_window is not None:
        row["context_window"] = model.context_window
    row["prices"] = list(dated(provider, model))
    return row


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def license_notice() -> str:
    package = distribution(PACKAGE)
    licenses = [file for file in package.files or () if "licenses" in file.parts]
    return "\n".join(Path(str(package.locate_file(file))).read_text() for file in licenses)


def price_file(made: str, listed: Sequence[source.Provider], version: str = "") -> str:
    """The text of a price file as of a time (RFC 3339): a head, then each provider with one model
    per line. Without a version its content names it, so that the same prices have the same ids.

    Raises ValueError for prices that cannot be told in our words.
    """
    rows = list(provider_rows(listed))
    head = {
        "source": PACKAGE,
        "version": version or digest(rows),
        "made": made,
        "license": license_notice(),
    }
    return "\n".join([compact(head)[:-1] + ',"providers":{', *rows, "}}"]) + "\n"


def provider_rows(listed: Iterable[source.Provider]) -> Iterator[str]:
    for number, provider in enumerate(listed):
        about = {
            "url": provider.api_pattern,
            "fallbacks": provider.fallback_model_providers or [],
        }
        yield ("," if number else "") + f'"{provider.id}":' + compact(about)[:-1] + ',"models":['
        rows = [compact(row_of(provider.id, model)) for model in provider.models]
        yield ",\n".join(rows)
        yield "]}"


def packaged(made: str) -> str:
    """The price file of the installed package."""
    return price_file(made, providers, distribution(PACKAGE).version)


def main() -> None:
    if packaged(PriceBook.load().made) == TARGET.read_text(encoding="utf-8"):
        print(f"{TARGET.name}: the prices of the installed package, as before")
        return
    text = packaged(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    TARGET.write_text(text, encoding="utf-8")
    models = sum(len(provider.models) for provider in providers)
    print(f"{TARGET.name}: {len(providers)} providers, {models} models, {len(text)} characters")


if __name__ == "__main__":
    main()
