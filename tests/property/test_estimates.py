"""The bound holds: no usage that a request allows costs more, at any price, tier or markup."""

import json
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from math import ceil
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingress.capacities import Capacities
from ingress.estimates import bound_of_plan, output_limit, upper_bound
from ingress.measure import Measure, measure
from ingress.routing import Router
from schemas.call import Target
from schemas.catalog import Catalog
from schemas.config import Config
from schemas.usage import Price, Rates, Tier, Usage, cost_of, marked_up

CAPACITIES = Capacities(Router(Config(), Catalog.load()))
WINDOW = 200_000

rate = st.integers(0, 10**11)
maybe = st.none() | rate
rates = st.builds(
    Rates,
    input=rate,
    output=rate,
    cached_input=maybe,
    cache_write=maybe,
    cache_write_1h=maybe,
    audio_input=maybe,
    image_input=maybe,
    reasoning=maybe,
    audio_output=maybe,
    image_output=maybe,
)
prices = st.builds(
    Price,
    id=st.just("p"),
    rates=rates,
    tiers=st.lists(st.builds(Tier, above=st.integers(0, 3000), rates=rates), max_size=3).map(
        lambda tiers: tuple(sorted(tiers, key=lambda tier: tier.above))
    ),
    per_request=rate,
)
percents = st.floats(0, 1000, allow_nan=False).map(lambda number: round(number, 4))


def tiles_of_gpt_4o(width: int, height: int) -> int:
    """Tokens of one image of that size, as OpenAI explains them."""
    shrink = min(Fraction(1), Fraction(2048, max(width, height)))
    w, h = width * shrink, height * shrink
    shrink = min(Fraction(1), Fraction(768) / min(w, h))
    return 85 + 170 * ceil(w * shrink / 512) * ceil(h * shrink / 512)


def parts(data: st.DataObject, total: int, count: int) -> list[int]:
    """A number cut into several, none below zero."""
    cuts = sorted(data.draw(st.integers(0, total)) for _ in range(count - 1))
    return [high - low for low, high in zip([0, *cuts], [*cuts, total], strict=True)]


@given(
    texts=st.lists(st.text(max_size=200), min_size=1, max_size=5),
    images=st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), max_size=3),
    seconds=st.lists(st.integers(1, 120), max_size=2),
    choices=st.integers(1, 4),
    output=st.integers(1, 5000),
    price=prices,
    percent=percents,
    data=st.data(),
)
def test_no_usage_that_a_request_allows_costs_more_than_the_bound(
    texts: list[str],
    images: list[tuple[int, int]],
    seconds: list[int],
    choices: int,
    output: int,
    price: Price,
    percent: float,
    data: st.DataObject,
) -> None:
    media: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": "https://example.com/x"}} for _ in images
    ]
    # MP3 at 64 kbit/s, as base64.
    media += [
        {"type": "input_audio", "input_audio": {"format": "mp3", "data": "A" * (10_667 * long)}}
        for long in seconds
    ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": text} for text in texts]
    messages.append({"role": "user", "content": media})
    body = {"messages": messages, "n": choices, "max_tokens": output}

    text_tokens = sum(len(text.encode()) + 8 for text in texts) + 50
    seen = sum(tiles_of_gpt_4o(width, height) for width, height in images)
    heard = sum(10 * long for long in seconds)
    into_images, into_plain = parts(data, data.draw(st.integers(0, seen)), 2)
    plain = parts(data, data.draw(st.integers(0, text_tokens)) + into_plain, 4)
    out = parts(data, data.draw(st.integers(0, choices * output)), 4)
    usage = Usage(
        input=plain[0],
        cached_input=plain[1],
        cache_write=plain[2],
        cache_write_1h=plain[3],
        audio_input=data.draw(st.integers(0, heard)),
        image_input=into_images,
        output=out[0],
        reasoning=out[1],
        audio_output=out[2],
        image_output=out[3],
        status="reported",
    )
    charged = marked_up(price, percent)
    measured = measure(json.dumps(body, ensure_ascii=data.draw(st.booleans())).encode())
    bound = upper_bound(measured, Target("openai", "gpt-4o", "openai", charged), output, WINDOW)
    assert bound is not None
    assert cost_of(usage, charged).total <= bound


@given(st.lists(st.text(max_size=50), max_size=4), st.lists(st.text(max_size=50), max_size=4))
def test_a_longer_request_never_has_a_lower_bound(some: list[str], more: list[str]) -> None:
    target = Target("local", "x", "local", Price(id="p", rates=Rates(input=10**9, output=10**9)))

    def bound(texts: list[str]) -> int:
        messages = [{"role": "user", "content": text} for text in texts]
        found = upper_bound(measure(json.dumps({"messages": messages}).encode()), target, 1, 1)
        assert found is not None
        return found

    assert bound(some) <= bound([*some, *more])


@given(
    measured=st.builds(
        Measure,
        text_bytes=st.integers(0, 10_000),
        messages=st.integers(1, 5),
        choices=st.integers(1, 3),
    ),
    plan=st.lists(prices, min_size=1, max_size=3).map(
        lambda prices: tuple(Target("local", "x", "local", price) for price in prices)
    ),
    max_cost=st.integers(0, 10**9),
)
def test_the_output_that_max_cost_pays_for_is_all_that_it_pays_for(
    measured: Measure, plan: tuple[Target, ...], max_cost: int
) -> None:
    limit = output_limit(measured, "x", plan, CAPACITIES)
    paid = output_limit(measured, "x", plan, CAPACITIES, max_cost)

    def bound(output: int) -> int:
        return bound_of_plan(measured, plan, output, CAPACITIES) or 0

    assert 64 <= paid <= limit
    assert paid == 64 or bound(paid) <= max_cost
    assert paid == limit or bound(paid + 1) > max_cost


@given(price=prices, percent=percents)
def test_a_markup_is_on_every_rate_rounded_half_up(price: Price, percent: float) -> None:
    charged = marked_up(price, percent)
    if not percent:
        assert charged is price
        return

    def more(amount: int | None) -> int | None:
        if amount is None:
            return None
        exact = Decimal(amount) * (100 + Decimal(str(percent))) / 100
        return int(exact.to_integral_value(rounding=ROUND_HALF_UP))

    pairs = [
        (price.rates, charged.rates),
        *zip(
            [tier.rates for tier in price.tiers],
            [tier.rates for tier in charged.tiers],
            strict=True,
        ),
    ]
    for before, after in pairs:
        for name in Rates.__struct_fields__:
            assert getattr(after, name) == more(getattr(before, name)), name
    assert charged.per_request == more(price.per_request)
    assert [tier.above for tier in charged.tiers] == [tier.above for tier in price.tiers]
    assert charged.id.startswith("p+") and charged.id.endswith("%")
    assert float(charged.id[2:-1]) == percent


@given(st.text(max_size=300), st.booleans())
def test_escapes_do_not_change_the_measure(text: str, ascii_only: bool) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": text}]}, ensure_ascii=ascii_only)
    assert measure(body.encode()).text_bytes == len(text.encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["content", "x", "audio"]), json_values), max_size=3),
    st.dictionaries(st.sampled_from(["tools", "functions", "plugins", "prediction"]), json_values),
)
def test_whatever_stands_in_a_message_is_measured(
    messages: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    body = {"messages": [{"role": "user", **message} for message in messages], **fields}
    assert measure(json.dumps(body).encode()).messages == len(messages)
