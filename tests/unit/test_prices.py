"""Prices by service tier and by length of the prompt, what they bound, and what overrides them."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from genai_prices import types as source
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from compose.generate_catalog import (
    dated,
    packaged,
    price_file,
    service_tiers,
)
from ingress.calibration import Ratios
from ingress.estimates import estimate, upper_bound
from ingress.measure import measure
from ingress.own_prices import own_price
from ingress.routing import Router
from schemas.call import Target
from schemas.catalog import Catalog
from schemas.config import Config, ModelConfig, PricingConfig, ProviderConfig
from schemas.ids import Clock
from schemas.prices import BrokenPrices, DatedPrice, PriceBook
from schemas.usage import Cost, Price, Rates, Tier, Usage, Variant, cost_of, marked_up, tier_named
from tests.given_settings import complaint
from tests.measured_calls import body

TODAY = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CATALOG = Catalog.load(Clock(now_ns=lambda: int(TODAY.timestamp()) * 1_000_000_000))
LONG = Tier(above=1_000, rates=Rates(input=4_000_000, output=6_000_000, cached_input=400_000))
PRICE = Price(
    id="p",
    rates=Rates(input=2_000_000, output=4_000_000, cached_input=200_000),
    tiers=(LONG,),
    per_request=7,
    variants=(
        Variant("flex", Rates(input=1_000_000, output=2_000_000)),
        Variant("priority", Rates(input=8_000_000, output=16_000_000), unasked=True),
        Variant("fast", Rates(input=32_000_000, output=64_000_000)),
    ),
)
MADE = "2026-11-21T12:00:00Z"


def listed(provider: str, engine: str) -> Price:
    found = CATALOG.price(provider, engine)
    assert found is not None
    return found


# --- by service tier


def test_a_call_costs_what_the_tier_costs_that_served_it() -> None:
    usage = Usage(input=100, cached_input=10, output=5)
    assert cost_of(usage, PRICE) == Cost(input=200 + 2 + 7, output=20, cache_savings=18)
    flex = msgspec.structs.replace(usage, tier="flex")
    assert cost_of(flex, PRICE) == Cost(input=100 + 10 + 7, output=10)
    fast = msgspec.structs.replace(usage, tier="fast")
    assert cost_of(fast, PRICE).total == 3200 + 320 + 7 + 320


def test_a_tier_without_a_price_of_its_own_costs_the_listed_price() -> None:
    usage = Usage(input=100, output=5)
    scale = msgspec.structs.replace(usage, tier="scale")
    assert cost_of(scale, PRICE) == cost_of(usage, PRICE)
    assert PRICE.served("scale") is PRICE and PRICE.served("") is PRICE


def test_the_id_of_a_price_says_which_tier_it_is_of() -> None:
    assert PRICE.served("flex").id == "p@flex"
    assert marked_up(PRICE, 5).served("flex").id == "p+5%@flex"


def test_a_markup_is_on_every_tier() -> None:
    dearer = marked_up(PRICE, 50)
    for usage in (Usage(input=2_000, output=10), Usage(input=10, output=10)):
        for tier in ("", "flex", "priority", "fast"):
            served = msgspec.structs.replace(usage, tier=tier)
            plain, more = cost_of(served, PRICE), cost_of(served, dearer)
            assert more.output == plain.output * 3 // 2
    assert [variant.unasked for variant in dearer.variants] == [False, True, False]


@pytest.mark.parametrize(
    ("told", "tier"),
    [
        ("flex", "flex"),
        ("priority", "priority"),
        ("batch", "batch"),
        ("ON_DEMAND_FLEX", "flex"),
        ("ON_DEMAND_PRIORITY", "priority"),
        ("ON_DEMAND", ""),
        ("PROVISIONED_THROUGHPUT", "provisioned_throughput"),
        ("default", ""),
        ("standard", ""),
        ("auto", ""),
        ("on_demand", ""),
        ("", ""),
        (None, ""),
        (3, ""),
        ("flex\n", ""),
        ("x" * 33, ""),
    ],
)
def test_vendors_words_for_tiers_are_read(told: object, tier: str) -> None:
    assert tier_named(told) == tier


def test_the_prices_of_every_tier_are_those_of_their_source() -> None:
    """At each day on which one of them changes, and on the day before."""
    book = PriceBook.load()
    compared = 0
    for provider in providers:
        for model in provider.models:
            tiers = service_tiers(model)
            row = next(row for row in book.models(provider.id) if row.id == model.id)
            for tier, when in tiers.items():
                for moment in moments(model):
                    theirs = model.get_prices(moment, when)
                    if theirs.input_mtok is None:
                        continue
                    version = row.price_at(int(moment.timestamp()))
                    assert version.rates is not None
                    price = Price("", version.rates, version.tiers, 0, version.variants)
                    usage = Usage(input=1_000, cached_input=500, output=300, tier=tier)
                    reported = source.Usage(
                        input_tokens=1_500, cache_read_tokens=500, output_tokens=300
                    )
                    usd = theirs.calc_price(reported)["total_price"]
                    assert abs(cost_of(usage, price).total - usd * 10**9) <= 2, (model.id, tier)
                    compared += 1
    assert compared > 300


def moments(model: source.ModelInfo) -> list[datetime]:
    found = [TODAY, TODAY.replace(year=2030)]
    conditions = model.prices if isinstance(model.prices, list) else []
    for one in (*conditions, *(model.price_variants or ())):
        if isinstance(one.constraint, source.StartDateConstraint):
            day = datetime.combine(one.constraint.start_date, datetime.min.time(), UTC)
            found += [day, datetime.fromtimestamp(day.timestamp() - 1, UTC)]
    return found


def test_a_price_by_a_route_or_a_kind_of_search_is_not_taken_for_a_tier() -> None:
    sonar = CATALOG.price("openrouter", "mistralai/mistral-large-4-0")
    assert sonar is not None and sonar.variants == ()


def test_a_price_by_the_hour_and_by_tier_is_refused_and_not_guessed() -> None:
    night = source.TimeOfDateConstraint(
        datetime(2026, 1, 1, 0).time(), datetime(2026, 1, 1, 6).time()
    )
    model = source.ModelInfo(
        id="m",
        match=source.ClauseEquals("m"),
        prices=source.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2)),
        price_variants=[
            source.PriceVariant(
                {"processing": "batch"}, source.ModelPrice(input_mtok=Decimal("0.5")), night
            )
        ],
    )
    with pytest.raises(ValueError, match="m: a price by the hour"):
        list(dated("acme", model))


# --- by length


def test_a_long_prompt_raises_the_price_of_the_whole_call_and_of_what_was_cached() -> None:
    short = Usage(input=500, cached_input=500, output=10)
    long = Usage(input=501, cached_input=500, output=10)
    assert cost_of(short, PRICE) == Cost(input=1_000 + 100 + 7, output=40, cache_savings=900)
    assert cost_of(long, PRICE) == Cost(input=2_004 + 200 + 7, output=60, cache_savings=1_800)


# --- bounds


def bound_of(price: Price, output: int = 100, text: str = "Hi", **asked: Any) -> int:
    target = Target("openai", "x", "openai", price)
    found = upper_bound(measure(body(text, **asked)), target, output, 1_000)
    assert found is not None
    return found


def test_a_bound_is_of_the_dearest_tier_that_the_request_may_be_served_in() -> None:
    listed_alone = msgspec.structs.replace(PRICE, variants=())
    plain = bound_of(listed_alone)
    assert bound_of(PRICE, service_tier="default") == plain
    assert bound_of(PRICE, service_tier="standard_only") == plain
    assert bound_of(PRICE, service_tier="flex") == plain
    assert bound_of(PRICE) > 2 * plain
    for asked in ("auto", "scale", None):
        assert bound_of(PRICE, service_tier=asked) > 2 * plain
    assert bound_of(PRICE, service_tier="priority") == bound_of(PRICE)
    fast = bound_of(PRICE, service_tier="fast")
    assert fast > 2 * bound_of(PRICE)
    assert bound_of(PRICE, speed="fast") >= fast
    assert bound_of(PRICE, speed="fast", service_tier="auto") >= fast


def test_no_way_of_writing_a_tier_lowers_a_bound() -> None:
    spelt = body("Hi").replace(b'"messages"', b'"speed": "f\\u0061st", "messages"')
    target = Target("anthropic", "x", "anthropic", PRICE)
    found = upper_bound(measure(spelt), target, 100, 1_000)
    assert found is not None and found >= bound_of(PRICE, speed="FAST") > bound_of(PRICE)
    for odd in (7, [], {"a": ["b"]}, ""):
        assert bound_of(PRICE, service_tier=odd) >= bound_of(PRICE, service_tier=None)


@given(
    asked=st.sampled_from(["", "auto", "default", "flex", "priority", "fast"]),
    downgraded=st.booleans(),
    tokens=st.integers(0, 5_000),
    output=st.integers(0, 100),
)
def test_no_tier_that_a_call_may_be_served_in_costs_more_than_its_bound(
    asked: str, downgraded: bool, tokens: int, output: int
) -> None:
    served = "priority" if asked in ("", "auto") else asked
    usage = Usage(input=tokens, output=output, tier="" if downgraded else served)
    given_tier: dict[str, Any] = {"service_tier": asked} if asked else {}
    assert cost_of(usage, PRICE).total <= bound_of(PRICE, text="x" * tokens, **given_tier)


def test_an_estimate_is_of_the_tier_that_is_asked_for() -> None:
    def cost(**asked: Any) -> int:
        target = Target("openai", "x", "openai", PRICE)
        return estimate(measure(body("Hi", **asked)), target, 100, Ratios()).cost_nano or 0

    assert cost(service_tier="flex") < cost() == cost(service_tier="auto") < cost(speed="fast")


# --- overrides


def test_given_costs_replace_those_of_the_book_at_any_length_and_in_any_tier() -> None:
    book = listed("openai", "gpt-5.4")
    entry = ModelConfig(input_cost=0.000002, cached_input_cost=0.0000001)
    price = own_price("gpt-5.4", entry, book)
    assert price is not None and price.id.startswith("config/gpt-5.4/")
    for mine, theirs in (
        (price.rates, book.rates),
        (price.tiers[0].rates, book.tiers[0].rates),
        (price.variants[0].rates, book.variants[0].rates),
    ):
        assert (mine.input, mine.cached_input) == (2_000_000_000, 100_000_000)
        assert mine.output == theirs.output


@pytest.mark.parametrize("name", Rates.__struct_fields__)
def test_every_class_has_a_cost_of_its_own_in_the_configuration(name: str) -> None:
    entry = msgspec.convert({f"{name}_cost": 0.0000075}, ModelConfig)
    price = own_price("m", entry, Price(id="p", rates=Rates(input=1, output=1)))
    assert price is not None and getattr(price.rates, name) == 7_500_000_000


def test_the_id_of_a_price_that_is_given_in_part_changes_with_the_book() -> None:
    entry = ModelConfig(input_cost=0.000002)
    ids = [
        own_price("m", entry, Price(id=str(rate), rates=Rates(input=1, output=rate)))
        for rate in (5, 5, 6)
    ]
    first, second, third = (price.id if price else "" for price in ids)
    assert first == second != third


def test_without_a_listed_price_both_sides_have_to_be_given() -> None:
    assert own_price("m", ModelConfig(output_cost=0.000001), None) is None
    whole = own_price("m", ModelConfig(input_cost=0.000001, output_cost=0.000002), None)
    assert whole is not None and whole.rates == Rates(input=10**9, output=2 * 10**9)


@pytest.mark.usefixtures("in_an_empty_folder")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "models: {m: {provider: ollama, cached_input_cost: 0.1e-6}}",
            "models.m.input_cost: missing, and the price book does not know 'm' of ollama;",
        ),
        (
            "models: {gpt-4o: {cached_input_cost: -1}}",
            "models.gpt-4o.cached_input_cost: expected a number >= 0.0, got -1",
        ),
        (
            "models: {gpt-4o: {reasoning_cost: 15}}",
            "models.gpt-4o.reasoning_cost: expected a number <= 0.01, got 15",
        ),
        (
            "models: {gpt-4o: {cached_cost: 0.1e-6}}",
            "models.gpt-4o.cached_cost: unknown setting",
        ),
    ],
)
def test_a_cost_that_cannot_be_used_is_named(text: str, message: str) -> None:
    assert complaint(text).startswith(message)


@pytest.fixture
def in_an_empty_folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- the file


def test_the_same_prices_have_the_same_ids_whenever_they_are_made() -> None:
    early, late = (
        PriceBook.checked(price_file(made, providers).encode())
        for made in ("2026-01-01T00:00:00Z", MADE)
    )
    assert early.edition == late.edition and early.made < late.made
    seconds = int(TODAY.timestamp())
    for provider in early.providers:
        for model in early.models(provider):
            before = early.price(provider, model.id, seconds)
            after = late.price(provider, model.id, seconds)
            assert (before and before.id) == (after and after.id)


def test_other_prices_have_another_id_and_edition() -> None:
    acme = source.Provider(id="acme", name="Acme", api_pattern="https://acme\\.test", models=[])

    def of(usd: str) -> PriceBook:
        model = source.ModelInfo(
            id="m",
            match=source.ClauseEquals("m"),
            prices=source.ModelPrice(input_mtok=Decimal(usd), output_mtok=Decimal(2)),
        )
        acme.models = [model]
        return PriceBook.checked(price_file(MADE, [acme]).encode())

    cheap, dear = of("1"), of("1.1")
    first, second = cheap.price("acme", "m", 0), dear.price("acme", "m", 0)
    assert first is not None and second is not None
    assert cheap.edition != dear.edition and first.id != second.id
    assert first.id.rpartition("/")[2] != second.id.rpartition("/")[2]


def model_of(**prices: Any) -> dict[str, Any]:
    version = {"digest": "0" * 8, "rates": {"input": 1, "output": 1}, **prices}
    return {"id": "m", "names": ["m"], "prices": [version]}


def file_of(*models: Any, **changes: Any) -> bytes:
    head = {"source": "acme", "version": "1", "made": MADE, "license": ""}
    acme = {"url": "https://acme", "fallbacks": [], "models": list(models)}
    return json.dumps({**head, "providers": {"acme": acme}, **changes}).encode()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"null",
        file_of()[:-20],
        file_of(providers={}),
        file_of(made="today"),
        file_of(made=None),
        file_of(source="a/b"),
        file_of(version="1\n"),
        file_of({"id": "m"}),
        file_of({"id": "m", "prices": []}),
        file_of({"id": "m", "prices": "free"}),
        file_of(model_of(rates={"input": -1, "output": 1})),
        file_of(model_of(rates={"input": 1.5, "output": 1})),
        file_of(model_of(rates={"input": 10**14, "output": 1})),
        file_of(model_of(per_request=-1)),
        file_of(model_of(tiers=[{"above": 1, "rates": {"input": -5, "output": 1}}])),
        file_of(model_of(variants=[{"tier": "flex", "rates": {"input": 1, "output": -2}}])),
        file_of({**model_of(), "rules": [{"regex": "("}]}),
        file_of({**model_of(), "rules": [{"any": [{"regex": "["}]}]}),
        file_of(providers={"acme": {"url": "(", "fallbacks": [], "models": []}}),
    ],
)
def test_a_broken_file_is_refused_whole(broken: bytes) -> None:
    with pytest.raises(BrokenPrices):
        PriceBook.checked(broken)


def test_a_sound_file_is_a_book() -> None:
    book = PriceBook.checked(file_of(model_of()))
    price = book.price("acme", "m", 0)
    assert price is not None and price.id == "acme-1/acme/m/00000000"
    assert book.models("acme")[0].prices == (DatedPrice(None, None, "0" * 8, Rates(1, 1)),)


def test_the_packages_own_file_is_sound() -> None:
    assert PriceBook.checked(packaged(MADE).encode()).edition == PriceBook.load().edition


def test_a_price_by_tier_reaches_the_plan_of_a_call() -> None:
    config = Config(
        providers={"openai": ProviderConfig(api_key="k")}, pricing=PricingConfig(markup_percent=10)
    )
    routes = Router(config, CATALOG, Clock(now_ns=lambda: int(TODAY.timestamp()) * 10**9))
    (target,) = routes.plan("openai/gpt-5.4")
    assert target.price is not None
    assert target.price.served("flex").rates.input == 1_375_000_000
