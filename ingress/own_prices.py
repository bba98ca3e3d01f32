"""Prices that the configuration gives to a model, instead of those in the price book."""

import hashlib
from decimal import Decimal

import msgspec

from schemas.config import ModelConfig
from schemas.money import nano_from_usd
from schemas.usage import MILLION, Price, Rates, Tier, Variant

_FIELDS = {name: f"{name}_cost" for name in Rates.__struct_fields__}
_encode = msgspec.json.Encoder().encode


def given_costs(entry: ModelConfig) -> dict[str, int]:
    """The costs that an entry of `models:` gives: nano-dollars per million tokens, by class."""
    costs = {name: getattr(entry, field) for name, field in _FIELDS.items()}
    return {name: nano_per_million(usd) for name, usd in costs.items() if usd is not None}


def own_price(model: str, entry: ModelConfig, listed: Price | None) -> Price | None:
    """The price of a configured model: what its entry gives, all else as the book has it.

    A given cost holds for prompts of any length and in every service tier. The id changes with the
    figures. None where neither knows what plain input and output cost.
    """
    given = given_costs(entry)
    if not given:
        return listed
    if listed is None:
        if not given.keys() >= {"input", "output"}:
            return None
        listed = Price(id="", rates=Rates(**given))
    price = Price(
        id="",
        rates=_replaced(listed.rates, given),
        tiers=_tiers(listed.tiers, given),
        per_request=listed.per_request,
        variants=tuple(
            [
                Variant(
                    one.tier, _replaced(one.rates, given), _tiers(one.tiers, given), one.unasked
                )
                for one in listed.variants
            ]
        ),
    )
    digest = hashlib.sha256(_encode(price)).hexdigest()
    return msgspec.structs.replace(price, id=f"config/{model}/{digest[:8]}")


def nano_per_million(usd_per_token: float) -> int:
    """USD per token as nano-dollars per million tokens, exactly as the decimal was written."""
    return nano_from_usd(Decimal(str(usd_per_token)) * MILLION)


def _tiers(tiers: tuple[Tier, ...], given: dict[str, int]) -> tuple[Tier, ...]:
    return tuple([Tier(tier.above, _replaced(tier.rates, given)) for tier in tiers])


def _replaced(rates: Rates, given: dict[str, int]) -> Rates:
    return msgspec.structs.replace(rates, **given)
