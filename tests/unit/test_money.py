"""Money is exact: what is written as a decimal is what is charged, at any number of tokens."""

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.own_prices import nano_per_million
from schemas.money import NANO, divide_half_up, format_usd, nano_from_usd
from schemas.usage import MILLION, Price, Rates, Tier, Usage, cost_of

AMOUNTS = st.integers(min_value=0, max_value=10**15)
COUNTS = st.integers(min_value=0, max_value=10**9)
RATES = st.integers(min_value=0, max_value=10**13)
MAYBE_RATES = st.none() | RATES
USAGES = st.builds(
    Usage,
    input=COUNTS,
    cached_input=COUNTS,
    cache_write=COUNTS,
    cache_write_1h=COUNTS,
    audio_input=COUNTS,
    image_input=COUNTS,
    output=COUNTS,
    reasoning=COUNTS,
    audio_output=COUNTS,
    image_output=COUNTS,
)
RATE_CARDS = st.builds(
    Rates,
    input=RATES,
    output=RATES,
    cached_input=MAYBE_RATES,
    cache_write=MAYBE_RATES,
    cache_write_1h=MAYBE_RATES,
    audio_input=MAYBE_RATES,
    image_input=MAYBE_RATES,
    reasoning=MAYBE_RATES,
    audio_output=MAYBE_RATES,
    image_output=MAYBE_RATES,
)
INPUTS = (
    "input",
    "cached_input",
    "cache_write",
    "cache_write_1h",
    "audio_input",
    "image_input",
)
OUTPUTS = ("output", "reasoning", "audio_output", "image_output")


def exact(usage: Usage, rates: Rates, classes: tuple[str, ...]) -> Decimal:
    """The cost of some classes in nano-dollars, unrounded; the first is the plain one."""
    total = sum(getattr(usage, name) * rate_of(rates, name, classes[0]) for name in classes)
    return Decimal(total) / MILLION


def rate_of(rates: Rates, name: str, plain: str) -> int:
    """A class's own rate, else that of the class which stands for it."""
    rate: int | None = getattr(rates, name)
    if rate is not None or name == plain:
        return rate or 0
    return rate_of(rates, "cache_write" if name == "cache_write_1h" else plain, plain)


def rounded(amount: Decimal) -> int:
    return int(amount.to_integral_value(rounding=ROUND_HALF_UP))


@given(AMOUNTS)
def test_an_amount_survives_the_way_to_dollars_and_back(nano: int) -> None:
    assert nano_from_usd(format_usd(nano)) == nano


@given(AMOUNTS)
def test_a_negative_amount_differs_by_its_sign_only(nano: int) -> None:
    assert format_usd(-nano - 1) == f"-{format_usd(nano + 1)}"


@given(st.decimals(min_value=0, max_value=1_000_000, places=9))
def test_every_decimal_of_nine_places_is_exact(usd: Decimal) -> None:
    assert Decimal(nano_from_usd(usd)) == usd * NANO


@given(st.integers(min_value=0, max_value=10_000_000))
def test_a_float_counts_as_the_decimal_that_it_prints_as(nano_per_token: int) -> None:
    as_yaml_reads_it = float(Decimal(nano_per_token) / NANO)
    assert nano_per_million(as_yaml_reads_it) == nano_per_token * MILLION


@pytest.mark.parametrize(
    ("usd_per_token", "nano"),
    [
        (0.0000025, 2_500_000_000),
        (0.00001, 10_000_000_000),
        (1e-7, 100_000_000),
        (2.5e-08, 25_000_000),
        (0, 0),
    ],
)
def test_costs_per_token_become_nano_dollars_per_million(usd_per_token: float, nano: int) -> None:
    assert nano_per_million(usd_per_token) == nano


@pytest.mark.parametrize("nonsense", ["", "ten", "1,5", "NaN", "-Infinity", float("nan")])
def test_what_is_not_a_number_is_not_money(nonsense: str | float) -> None:
    with pytest.raises(ValueError, match="not an amount of money"):
        nano_from_usd(nonsense)


@given(AMOUNTS, st.integers(min_value=1, max_value=10**9))
def test_division_rounds_half_up(amount: int, divisor: int) -> None:
    quotient = (Decimal(amount) / divisor).quantize(Decimal(1), ROUND_HALF_UP)
    assert divide_half_up(amount, divisor) == quotient


@given(USAGES, RATE_CARDS)
def test_each_side_of_a_call_is_rounded_once(usage: Usage, rates: Rates) -> None:
    cost = cost_of(usage, Price(id="p", rates=rates))
    assert cost.input == rounded(exact(usage, rates, INPUTS))
    assert cost.output == rounded(exact(usage, rates, OUTPUTS))


@given(USAGES, RATES, RATES)
def test_a_class_without_a_rate_costs_what_its_side_costs(
    usage: Usage, input_rate: int, output_rate: int
) -> None:
    plain = Usage(input=usage.prompt, output=usage.completion)
    price = Price(id="p", rates=Rates(input=input_rate, output=output_rate))
    assert cost_of(usage, price).total == cost_of(plain, price).total


@given(USAGES, RATE_CARDS, RATE_CARDS, st.integers(min_value=0, max_value=10**9))
def test_a_tier_holds_for_the_whole_call_once_its_prompt_is_longer(
    usage: Usage, base: Rates, tier: Rates, above: int
) -> None:
    tiered = Price(id="p", rates=base, tiers=(Tier(above=above, rates=tier),))
    valid = tier if usage.prompt > above else base
    assert cost_of(usage, tiered) == cost_of(usage, Price(id="p", rates=valid))


@given(USAGES, RATE_CARDS, AMOUNTS)
def test_a_price_per_request_is_added_once(usage: Usage, rates: Rates, fee: int) -> None:
    with_fee = cost_of(usage, Price(id="p", rates=rates, per_request=fee))
    assert with_fee.total == cost_of(usage, Price(id="p", rates=rates)).total + fee


@given(USAGES, RATE_CARDS)
def test_savings_are_what_cached_tokens_would_have_cost_more(usage: Usage, rates: Rates) -> None:
    dear = rates.input
    cheap = dear if rates.cached_input is None else rates.cached_input
    saved = Decimal(usage.cached_input * max(0, dear - cheap)) / MILLION
    assert cost_of(usage, Price(id="p", rates=rates)).cache_savings == rounded(saved)


def test_nothing_used_costs_nothing() -> None:
    cost = cost_of(Usage(), Price(id="p", rates=Rates(input=10**12, output=10**12)))
    assert (cost.input, cost.output, cost.total, cost.cache_savings) == (0, 0, 0, 0)
