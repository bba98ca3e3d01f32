"""Tokens by class, and what they cost.

The classes are disjoint: a prompt is the sum of its six input classes, a completion the sum of its
four output classes. So money is a plain sum of products and nothing is counted twice.
"""

import re
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

import msgspec

from schemas.money import divide_half_up

UsageStatus = Literal["reported", "estimated", "unknown"]

MILLION = 1_000_000
# What vendors call the tier that costs the listed price.
STANDARD_TIERS = frozenset({"auto", "default", "on_demand", "on-demand", "standard"})
_TIER = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Token counts of one attempt; `status` says who counted (unknown is not zero).

    `cache_write_1h` is what was written to a cache that keeps it for an hour, where a vendor asks
    more for that than for `cache_write`. `tier` is the service tier that the answer reports
    (`batch`, `flex`, `priority`, `fast`, ...), empty for the usual one: see `tier_named`.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    audio_input: int = 0
    image_input: int = 0
    output: int = 0
    reasoning: int = 0
    audio_output: int = 0
    image_output: int = 0
    status: UsageStatus = "unknown"
    tier: str = ""

    @property
    def prompt(self) -> int:
        """All tokens that went in."""
        return (
            self.input
            + self.cached_input
            + self.cache_write
            + self.cache_write_1h
            + self.audio_input
            + self.image_input
        )

    @property
    def completion(self) -> int:
        """All tokens that came out."""
        return self.output + self.reasoning + self.audio_output + self.image_output


TOKEN_CLASSES = tuple(
    field.name for field in msgspec.structs.fields(Usage) if field.name not in ("status", "tier")
)


def tier_named(told: object) -> str:
    """A vendor's word for the service tier of an answer as the price book has it; empty for the
    usual tier and for what is no such word.

    OpenAI: `service_tier`; Anthropic: `usage.speed`, else `usage.service_tier`; Google:
    `usageMetadata.trafficType` (`ON_DEMAND_FLEX`); Bedrock: `serviceTier.type`.
    """
    if not isinstance(told, str):
        return ""
    name = told.lower().removeprefix("on_demand_")
    return name if name not in STANDARD_TIERS and _TIER.fullmatch(name) else ""


class Rates(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nano-dollars per million tokens of each class (2.5 USD per million is 2_500_000_000).

    A class without a rate of its own is billed as plain input or plain output, a cache write for an
    hour as any other.
    """

    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    audio_input: int | None = None
    image_input: int | None = None
    reasoning: int | None = None
    audio_output: int | None = None
    image_output: int | None = None


class Tier(msgspec.Struct, frozen=True):
    """Rates that apply to the whole call once its prompt is longer than `above` tokens."""

    above: int
    rates: Rates


class Variant(msgspec.Struct, frozen=True, omit_defaults=True):
    """What calls cost that were served in another service tier than the usual one.

    `unasked`: a call that names no tier may be served in it, because the vendor lets an account
    choose what such calls get.
    """

    tier: str
    rates: Rates
    tiers: tuple[Tier, ...] = ()
    unasked: bool = False


class Price(msgspec.Struct, frozen=True, omit_defaults=True):
    """One version of one model's price; `id` goes into every event that used it.

    `tiers` are by the length of the prompt, the longest last, `variants` by service tier.
    """

    id: str
    rates: Rates
    tiers: tuple[Tier, ...] = ()
    per_request: int = 0
    variants: tuple[Variant, ...] = ()

    def served(self, tier: str) -> "Price":
        """What a call costs that was served in a tier, said in its id (`...@flex`); this very price
        for the usual tier and for one that has no rates of its own."""
        if tier:
            for variant in self.variants:
                if variant.tier == tier:
                    return Price(
                        id=f"{self.id}@{tier}",
                        rates=variant.rates,
                        tiers=variant.tiers,
                        per_request=self.per_request,
                    )
        return self


class Cost(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nano-dollars of one attempt; `cache_savings` is what cached input would have cost more."""

    input: int = 0
    output: int = 0
    cache_savings: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output


def cost_of(usage: Usage, price: Price) -> Cost:
    """What `usage` costs at `price` in the tier that served it: each side rounded once, half up,
    to the nano-dollar."""
    price = price.served(usage.tier)
    rates = price.rates
    for tier in price.tiers:
        if usage.prompt > tier.above:
            rates = tier.rates
    plain_in, plain_out = rates.input, rates.output
    cached = plain_in if rates.cached_input is None else rates.cached_input
    written = plain_in if rates.cache_write is None else rates.cache_write
    written_1h = written if rates.cache_write_1h is None else rates.cache_write_1h
    heard = plain_in if rates.audio_input is None else rates.audio_input
    seen = plain_in if rates.image_input is None else rates.image_input
    thought = plain_out if rates.reasoning is None else rates.reasoning
    spoken = plain_out if rates.audio_output is None else rates.audio_output
    drawn = plain_out if rates.image_output is None else rates.image_output
    went_in = (
        usage.input * plain_in
        + usage.cached_input * cached
        + usage.cache_write * written
        + usage.cache_write_1h * written_1h
        + usage.audio_input * heard
        + usage.image_input * seen
    )
    came_out = (
        usage.output * plain_out
        + usage.reasoning * thought
        + usage.audio_output * spoken
        + usage.image_output * drawn
    )
    return Cost(
        input=divide_half_up(went_in, MILLION) + price.per_request,
        output=divide_half_up(came_out, MILLION),
        cache_savings=divide_half_up(max(0, usage.cached_input * (plain_in - cached)), MILLION),
    )


def marked_up(price: Price, percent: float) -> Price:
    """A price with so many percent on top, said in its id (`...+7.5%`); 0 leaves it as it is.

    Every rate is rounded half up to the nano-dollar per million. `percent` is read as the decimal
    that it prints as.
    """
    if not percent:
        return price
    more = Decimal(str(percent))
    factor = 1 + more.scaleb(-2)
    return Price(
        id=f"{price.id}+{more.normalize():f}%",
        rates=_rates_times(price.rates, factor),
        tiers=_tiers_times(price.tiers, factor),
        per_request=_times(price.per_request, factor),
        variants=tuple(
            [
                Variant(
                    variant.tier,
                    _rates_times(variant.rates, factor),
                    _tiers_times(variant.tiers, factor),
                    variant.unasked,
                )
                for variant in price.variants
            ]
        ),
    )


def _tiers_times(tiers: tuple[Tier, ...], factor: Decimal) -> tuple[Tier, ...]:
    return tuple([Tier(tier.above, _rates_times(tier.rates, factor)) for tier in tiers])


def _rates_times(rates: Rates, factor: Decimal) -> Rates:
    by_class: dict[str, int | None] = msgspec.structs.asdict(rates)
    return msgspec.structs.replace(
        rates,
        **{name: _times(rate, factor) for name, rate in by_class.items() if rate is not None},
    )


def _times(amount: int, factor: Decimal) -> int:
    return int((amount * factor).to_integral_value(rounding=ROUND_HALF_UP))
