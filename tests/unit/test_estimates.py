"""What a call may cost at most is told before it runs: its bound, its output limit, its window."""

import json

import pytest

from ingress.calibration import Ratios
from ingress.capacities import DEFAULT_OUTPUT, LARGEST_WINDOW, Capacities
from ingress.dialects import openai
from ingress.estimates import bound_of_plan, estimate, largest_prompt, output_limit, upper_bound
from ingress.measure import Measure, measure
from schemas.call import Target
from schemas.config import ModelConfig, TargetConfig
from schemas.usage import Price, Rates, Tier
from tests.measured_calls import PRICE, TARGET, body, image, router


def bound(measured: Measure) -> int:
    """What the prompt alone may cost at TARGET."""
    found = upper_bound(measured, TARGET, 0, 1000)
    assert found is not None
    return found


def test_a_limit_beyond_all_measure_gives_a_bound_that_can_be_sent() -> None:
    dear = Target("local", "x", "local", Price(id="q", rates=Rates(input=10**14, output=10**14)))
    found = measure(body("Hi", max_tokens=10**30, n=128))
    assert found.max_tokens is not None
    most = upper_bound(found, dear, found.max_tokens, LARGEST_WINDOW)
    assert most is not None and 10**18 < most < 2**63


def test_every_choice_and_a_prediction_count_as_output() -> None:
    one = Measure(messages=1)
    per_token = 2000
    base = bound(one)
    assert upper_bound(one, TARGET, 100, 1000) == base + 100 * per_token
    three = Measure(messages=1, choices=3)
    assert upper_bound(three, TARGET, 100, 1000) == base + 300 * per_token
    predicted = measure(body("Hi", prediction={"type": "content", "content": "p" * 100}))
    assert predicted.predicted_bytes > 100 and predicted.text_bytes == 2
    assert bound(predicted) > base + 100 * per_token


def test_the_dearest_tier_that_may_apply_is_in_the_bound() -> None:
    tier = Tier(above=1000, rates=Rates(input=50_000_000_000, output=2_000_000_000))
    tiered = Target("local", "x", "local", Price(id="p", rates=PRICE.rates, tiers=(tier,)))
    short, long = Measure(text_bytes=10, messages=1), Measure(text_bytes=2000, messages=1)
    assert upper_bound(short, tiered, 10, 1) == upper_bound(short, TARGET, 10, 1)
    assert (upper_bound(long, tiered, 10, 1) or 0) > 2000 * 50_000


def test_a_fee_per_request_is_in_the_bound_and_in_the_estimate() -> None:
    fee = Target("local", "x", "local", Price(id="p", rates=PRICE.rates, per_request=777))
    one = Measure(text_bytes=10, messages=1)
    assert upper_bound(one, fee, 10, 1) == 777 + (upper_bound(one, TARGET, 10, 1) or 0)
    plain = estimate(one, TARGET, 10, Ratios())
    assert estimate(one, fee, 10, Ratios()).cost_nano == 777 + (plain.cost_nano or 0)


@pytest.mark.parametrize(
    ("engine", "detail", "least"),
    [
        ("gpt-4o", "high", 85 + 8 * 170),
        ("gpt-4o-mini", "high", 2833 + 8 * 5667),
        ("gpt-4o-mini", "low", 2833),
        ("o1", "high", 75 + 8 * 150),
        ("gpt-4.1-nano", "high", 3779),
        ("openai/gpt-4o-mini", "auto", 2833 + 8 * 5667),
        ("claude-3-opus-20240229", "high", 1600),
        ("gemini-1.5-pro", "high", 16 * 258),
        ("qwen2-vl-72b", "high", 16_384),
        ("a-deployment", "high", 2833 + 8 * 5667),
    ],
)
def test_an_image_counts_as_the_most_a_provider_makes_of_it(
    engine: str, detail: str, least: int
) -> None:
    assert largest_prompt(measure(body([image(detail)])), engine, 1).images >= least


def test_an_unknown_price_has_no_bound_and_no_cost() -> None:
    unpriced = Target("local", "x", "local")
    assert upper_bound(Measure(messages=1), unpriced, 10, 1) is None
    assert estimate(Measure(messages=1), unpriced, 10, Ratios()).cost_nano is None


def test_a_price_of_zero_has_a_bound_of_zero() -> None:
    free = Target("local", "x", "local", Price(id="p", rates=Rates(input=0, output=0)))
    assert upper_bound(Measure(text_bytes=10**9, messages=1), free, 10**6, 1) == 0


def test_the_bound_of_a_plan_is_that_of_its_dearest_known_target() -> None:
    capacities = Capacities(router())
    dear = Target("local", "x", "local", Price(id="q", rates=Rates(input=10**12, output=10**12)))
    unpriced = Target("local", "y", "local")
    one = Measure(text_bytes=10, messages=1)
    most = upper_bound(one, dear, 10, LARGEST_WINDOW)
    assert bound_of_plan(one, (TARGET, dear, unpriced), 10, capacities) == most
    assert bound_of_plan(one, (unpriced,), 10, capacities) is None


def test_the_output_limit_is_the_clients_then_the_configured_then_the_catalogs() -> None:
    routes = router(
        {
            "small": ModelConfig(provider="openai", engine="gpt-4o", max_tokens=700),
            "own": ModelConfig(provider="local", engine="own-engine"),
        }
    )
    capacities = Capacities(routes)

    def limit(model: str, found: Measure) -> int:
        return output_limit(found, model, routes.plan(model), capacities)

    assert limit("small", Measure(max_tokens=9)) == 9
    assert limit("small", Measure()) == 700
    assert limit("gpt-4-turbo", Measure()) == 4096
    assert limit("o3-pro", Measure()) == 100_000
    assert limit("own", Measure()) == DEFAULT_OUTPUT


def test_no_fallback_is_asked_for_more_output_than_it_can_give() -> None:
    routes = router(
        {
            "long": ModelConfig(
                provider="openai", engine="gpt-4o", max_tokens=16_000, fallbacks=("gpt-4-turbo",)
            ),
            "several": ModelConfig(
                max_tokens=900,
                targets=(
                    TargetConfig(provider="openai", engine="gpt-4o"),
                    TargetConfig(provider="local", engine="x"),
                ),
            ),
        }
    )
    capacities = Capacities(routes)
    assert capacities.output("long", routes.plan("long")) == 4096
    assert capacities.output("several", routes.plan("several")) == 900


def test_windows_come_from_the_catalog_the_price_list_or_are_the_largest() -> None:
    routes = router()
    capacities = Capacities(routes)
    assert capacities.window(routes.plan("gpt-4o")[0]) == 128_000
    listed = routes.listed("openai", "gpt-4.1")
    assert listed is not None and listed.context_window
    assert capacities.window(Target("openai", "gpt-4.1", "openai")) == listed.context_window
    assert capacities.window(Target("local", "nobody-knows", "local")) == LARGEST_WINDOW


def test_prompt_and_output_limit_fit_into_the_window_together() -> None:
    routes = router()
    capacities, plan = Capacities(routes), routes.plan("gpt-4")
    assert (capacities.window(plan[0]), capacities.output("gpt-4", plan)) == (8192, 8192)

    def limit(text_bytes: int) -> int:
        return output_limit(Measure(text_bytes=text_bytes), "gpt-4", plan, capacities)

    assert 8192 - 1000 // 2 < limit(1000) <= 8192 - 1000 // 3
    assert 1500 < limit(20_000) < 8192 - 5000
    assert limit(1_000_000) == 64


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("gpt-4o", "max_tokens"),
        ("gpt-oss-120b", "max_tokens"),
        ("claude-3-opus-20240229", "max_tokens"),
        ("o1-preview", "max_completion_tokens"),
        ("o3-pro", "max_completion_tokens"),
        ("openai/o4-mini", "max_completion_tokens"),
        ("gpt-5-nano", "max_completion_tokens"),
        ("openai/gpt-5.2", "max_completion_tokens"),
    ],
)
def test_a_limit_is_added_under_the_name_that_the_engine_understands(
    engine: str, name: str
) -> None:
    request = openai.parse(body("Hi", max_tokens=None, seed=7))
    sent = json.loads(openai.limited(request, 300, engine).body)
    limits = {key: sent[key] for key in sent if key.startswith("max_")}
    assert limits == {name: 300}
    assert sent["seed"] == 7 and sent["messages"] == [{"role": "user", "content": "Hi"}]
