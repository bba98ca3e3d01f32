"""What a call may cost is told before it runs: measured, bounded, estimated, limited, marked up."""

import json
import sys
from typing import Any

import pytest

from ingress import models
from ingress.calibration import Ratios
from ingress.call_budget import CallBudget, priced, require_within
from ingress.capacities import DEFAULT_OUTPUT, LARGEST_WINDOW, Capacities
from ingress.dialects import openai
from ingress.estimates import bound_of_plan, estimate, largest_prompt, output_limit, upper_bound
from ingress.measure import Measure, measure
from ingress.routing import Router
from ledger.connection import Connection
from schemas import subjects
from schemas.call import Target
from schemas.catalog import Catalog
from schemas.config import (
    BusConfig,
    Config,
    ModelConfig,
    PricingConfig,
    ProviderConfig,
    TargetConfig,
)
from schemas.errors import InvalidRequest
from schemas.events import RequestComplete, encode_event
from schemas.usage import Price, Rates, Tier, Usage, marked_up

CATALOG = Catalog.load()
KEYED = {
    "openai": ProviderConfig(base_url="https://api.openai.com/v1", api_key="k"),
    "anthropic": ProviderConfig(base_url="https://api.anthropic.com/v1", api_key="k"),
    "local": ProviderConfig(base_url="http://127.0.0.1:8001/v1"),
}
PRICE = Price(id="p", rates=Rates(input=1_000_000_000, output=2_000_000_000))
TARGET = Target("local", "llama", "local", PRICE)


def router(models: dict[str, ModelConfig] | None = None, **settings: Any) -> Router:
    return Router(Config(providers=KEYED, models=models or {}, **settings), CATALOG)


def body(*contents: Any, **fields: Any) -> bytes:
    messages = [{"role": "user", "content": content} for content in contents]
    return json.dumps({"model": "m", "messages": messages, **fields}).encode()


def image(detail: str | None = None, url: str = "https://example.com/a.png") -> dict[str, Any]:
    wishes = {"detail": detail} if detail else {}
    return {"type": "image_url", "image_url": {"url": url, **wishes}}


def sound(form: str, data: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"format": form, "data": data}}


def bound(measured: Measure) -> int:
    """What the prompt alone may cost at TARGET."""
    found = upper_bound(measured, TARGET, 0, 1000)
    assert found is not None
    return found


def test_text_is_measured_in_utf8_bytes_however_it_is_escaped() -> None:
    text = 'a"b\n\u00e9\u4e2d\U0001f600'
    escaped = body(text)
    plain = json.dumps(
        {"messages": [{"role": "user", "content": text}]}, ensure_ascii=False
    ).encode()
    assert measure(escaped).text_bytes == measure(plain).text_bytes == len(text.encode())


def test_what_is_no_text_of_the_prompt_is_not_counted() -> None:
    settings = {"temperature": 1, "metadata": {"a": "b" * 500}, "stop": ["x"], "stream": True}
    assert measure(body("Hi", **settings)).text_bytes == 2


def test_a_field_that_nobody_knows_counts_as_text() -> None:
    assert measure(body("Hi", documents=["d" * 100])).text_bytes > 100


def test_a_role_that_nobody_knows_counts_as_text() -> None:
    message = {"role": "r" * 1000, "content": "Hi"}
    assert measure(json.dumps({"messages": [message]}).encode()).text_bytes == 1002


def test_tool_definitions_and_tool_calls_count_as_text() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "d" * 300}}
    found = measure(body("Hi", tools=[tool, tool]))
    assert found.tools == 2 and found.text_bytes > 600 and not found.unmeasured
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "a" * 400}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    asked = json.dumps({"messages": [message]}).encode()
    assert 400 < measure(asked).text_bytes < 600


def test_images_are_counted_by_detail_and_not_by_their_bytes() -> None:
    data = "data:image/png;base64," + "A" * 100_000
    found = measure(
        body([image(), image("auto"), image("high", data), image("low"), image("original")])
    )
    assert (found.images, found.low_images, found.original_images) == (3, 1, 1)
    assert found.text_bytes == 0


def test_the_seconds_of_a_sound_are_the_most_that_its_bytes_can_hold() -> None:
    assert measure(body([sound("mp3", "A" * 40_000)])).audio_seconds == 31
    assert measure(body([sound("flac", "A" * 40_000)])).unmeasured == 1


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
        {"type": "something_new", "payload": "A" * 100},
        {"type": "input_audio", "input_audio": "not an object"},
        {"type": "input_audio", "input_audio": {"format": ["mp3"], "data": "AAAA"}},
        {"no": "type"},
        image(url="data:application/pdf;base64,AAAA"),
    ],
)
def test_a_part_that_cannot_be_measured_counts_as_a_whole_window(part: Any) -> None:
    found = measure(body(["text", part]))
    assert found.unmeasured == 1
    assert largest_prompt(found, "llama", 5000).unknown == 5000


@pytest.mark.parametrize(
    "fields",
    [
        {"web_search_options": {}},
        {"plugins": [{"id": "web"}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    ],
)
def test_a_search_of_the_provider_counts_as_a_whole_window(fields: Any) -> None:
    assert measure(body("Hi", **fields)).unmeasured == 1
    assert not measure(body("Hi", plugins=None, enable_search=False)).unmeasured


def test_a_reference_to_an_earlier_answer_in_sound_cannot_be_measured() -> None:
    message = {"role": "assistant", "audio": {"id": "audio_1"}}
    assert measure(json.dumps({"messages": [message]}).encode()).unmeasured == 1


def test_the_larger_of_two_output_limits_counts() -> None:
    assert measure(body("Hi")).max_tokens is None
    assert measure(body("Hi", max_tokens=None)).max_tokens is None
    found = measure(body("Hi", max_tokens=10, max_completion_tokens=20, n=3))
    assert (found.max_tokens, found.choices) == (20, 3)


@pytest.mark.parametrize(
    "content",
    [17, True, None, {"a": "b"}, [17, None, "text", ["nested"]], [{"type": ["text"]}], ""],
)
def test_content_of_any_shape_is_measured(content: Any) -> None:
    assert measure(body(content)).messages == 1


def test_messages_nested_too_deeply_are_the_clients_error() -> None:
    depth = sys.getrecursionlimit() + 100
    nested = b'{"messages":[{"role":"user","content":' + b"[" * depth + b"]" * depth + b"}]}"
    with pytest.raises(InvalidRequest):
        measure(nested)
    for depth in (100, 500, 900):
        deep = b'{"messages":[{"role":"user","x":' + b'[{"a":' * depth + b"1" + b"}]" * depth
        try:
            measure(deep + b"}]}")
        except InvalidRequest as error:
            assert error.info.param == "messages"


@pytest.mark.parametrize("number", [b"1e999", b"9" * 5000])
def test_a_number_in_a_message_that_nothing_holds_is_the_clients_error(number: bytes) -> None:
    asked = b'{"messages":[{"role":"user","content":' + number + b"}]}"
    with pytest.raises(InvalidRequest):
        measure(asked)


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


def test_max_cost_shortens_the_answer_as_far_as_it_is_worth_something() -> None:
    routes = router()
    capacities, plan = Capacities(routes), routes.plan("gpt-4o")
    one = measure(body("Hello!"))

    def limit(max_cost_nano: int) -> int:
        return output_limit(one, "gpt-4o", plan, capacities, max_cost_nano)

    ten_cents = limit(100_000_000)
    assert 5000 < ten_cents < 16_384
    assert (bound_of_plan(one, plan, ten_cents, capacities) or 0) <= 100_000_000
    assert (bound_of_plan(one, plan, ten_cents + 1, capacities) or 0) > 100_000_000
    assert limit(1_000_000_000) == 16_384
    too_little = bound_of_plan(one, plan, limit(10_000), capacities)
    with pytest.raises(InvalidRequest) as caught:
        require_within(CallBudget(max_cost_nano=10_000), too_little)
    info = caught.value.info
    assert (info.status, info.code, info.param) == (400, "max_cost_exceeded", "budget.max_cost")
    assert "0.00001 USD" in info.message


def test_an_own_output_limit_is_never_shortened() -> None:
    routes = router()
    found = measure(body("Hi", max_tokens=5))
    plan = routes.plan("gpt-4o")
    assert output_limit(found, "gpt-4o", plan, Capacities(routes), 1) == 5


def test_a_cost_within_max_cost_and_one_without_pass() -> None:
    require_within(CallBudget(max_cost_nano=None), 10**12)
    require_within(CallBudget(max_cost_nano=10), 10)
    require_within(CallBudget(max_cost_nano=10), None)
    with pytest.raises(InvalidRequest):
        require_within(CallBudget(max_cost_nano=0), 1)


def test_unknown_prices_are_refused_only_where_money_is_limited_and_the_operator_says_so() -> None:
    unpriced = Target("local", "x", "local")
    refuse, allow = PricingConfig(unknown="refuse"), PricingConfig()
    assert priced((unpriced,), "m", allow, strict=True) == (unpriced,)
    assert priced((unpriced,), "m", refuse, strict=False) == (unpriced,)
    assert priced((unpriced, TARGET), "m", refuse, strict=True) == (TARGET,)
    with pytest.raises(InvalidRequest) as caught:
        priced((unpriced,), "m", refuse, strict=True)
    assert (caught.value.info.status, caught.value.info.code) == (400, "price_unknown")


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


def test_the_budget_block_is_read_in_nano_dollars_and_goes_nowhere() -> None:
    block = {
        "max_cost": 0.5,
        "cost_alert_threshold": 0.4,
        "tracking_id": "order 17",
        "user_id": "auth0|17",
        "project_id": "shop",
    }
    request = openai.parse(body("Hi", budget=block, user="end"))
    budget = request.budget
    assert budget is not None
    assert (budget.max_cost_nano, budget.alert_nano) == (500_000_000, 400_000_000)
    assert (budget.tracking_id, budget.user_id, budget.project_id) == (
        "order 17",
        "auth0|17",
        "shop",
    )
    assert "budget" not in json.loads(request.body)
    assert request.end_user == "end" and json.loads(request.body)["user"] == "end"


def test_an_empty_budget_block_limits_nothing() -> None:
    assert openai.parse(body("Hi")).budget is None
    assert openai.parse(body("Hi", budget=None)).budget is None
    empty = openai.parse(body("Hi", budget={"max_cost": None, "user_id": None})).budget
    assert empty is not None and empty.max_cost_nano is None and empty.user_id == ""


@pytest.mark.parametrize(
    ("block", "param"),
    [
        ({"max_cost": -1}, "budget.max_cost"),
        ({"max_cost": "0.5"}, "budget.max_cost"),
        ({"max_cost": 1e10}, "budget.max_cost"),
        ({"cost_alert_threshold": True}, "budget.cost_alert_threshold"),
        ({"max_costs": 1}, "budget.max_costs"),
        ({"user_id": 17}, "budget.user_id"),
        ({"user_id": "u" * 129}, "budget.user_id"),
        ({"project_id": " shop"}, "budget.project_id"),
        ({"project_id": "a\nb"}, "budget.project_id"),
        ({"tracking_id": "t" * 129}, "budget.tracking_id"),
        ({"tracking_id": "a\tb"}, "budget.tracking_id"),
        ([], "budget"),
        ("much", "budget"),
    ],
)
def test_a_budget_block_that_says_nothing_clear_is_refused(block: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        openai.parse(body("Hi", budget=block))
    info = caught.value.info
    assert (info.status, info.code, info.param) == (400, "invalid_value", param)


@pytest.mark.parametrize("user", [17, {"id": "a"}, None, ["a"]])
def test_a_user_that_is_no_text_is_passed_on_and_names_nobody(user: Any) -> None:
    request = openai.parse(body("Hi", user=user))
    assert request.end_user == "" and json.loads(request.body)["user"] == user


def test_the_default_is_four_bytes_a_token() -> None:
    found = Measure(text_bytes=4000, messages=0)
    assert estimate(found, TARGET, 10, Ratios()).prompt_tokens == 1000


def test_ratios_come_to_what_is_billed_and_follow_when_it_changes() -> None:
    ratios = Ratios()
    for _ in range(300):
        ratios.learn("local", "llama", 1000, 1500)
    assert ratios.of("local", "llama") == pytest.approx(1.5, rel=0.01)
    assert estimate(Measure(text_bytes=4000), TARGET, 0, ratios).prompt_tokens == pytest.approx(
        1500, rel=0.01
    )
    for _ in range(300):
        ratios.learn("local", "llama", 1000, 800)
    assert ratios.of("local", "llama") == pytest.approx(0.8, rel=0.01)
    assert ratios.of("local", "other") == 1.0


def test_one_odd_call_moves_a_learnt_ratio_little_and_never_out_of_bounds() -> None:
    ratios = Ratios()
    for _ in range(100):
        ratios.learn("p", "e", 1000, 1000)
    ratios.learn("p", "e", 10, 500)
    assert ratios.of("p", "e") < 1.05
    ratios.learn("p", "e", 1, 10**12)
    assert ratios.of("p", "e") <= 8
    ratios.learn("p", "f", 0, 10)
    ratios.learn("p", "f", 10, 0)
    assert ratios.of("p", "f") == 1.0


def test_the_targets_that_are_remembered_are_bounded_and_the_oldest_go_first() -> None:
    ratios = Ratios()
    for number in range(600):
        ratios.learn("p", f"e{number}", 1000, 2000)
        ratios.learn("p", "in use", 1000, 2000)
    assert len(ratios) == 512
    assert ratios.of("p", "in use") > 1.5
    assert ratios.of("p", "e0") == 1.0 and ratios.of("p", "e599") > 1.5


async def test_two_ingresses_learn_the_same_from_the_events_they_hear(
    shared_nats_url: str,
) -> None:
    event = RequestComplete(
        event_id="e",
        time="2026-11-21T00:00:00.000000Z",
        v=1,
        provider="calibrated",
        engine="x",
        usage=Usage(input=2000, cached_input=1000, output=5, status="reported"),
        prompt_estimate=1000,
    )
    unknown = RequestComplete(
        event_id="f", time=event.time, v=1, provider="calibrated", engine="y", prompt_estimate=9
    )
    both = (Ratios(), Ratios())
    connection = await Connection.connect(BusConfig(url=shared_nats_url), name="test")
    try:
        for ratios in both:
            ratios.listen(connection)
        for one in (event, unknown):
            connection.publish(subjects.live("model.request.complete"), encode_event(one))
        await connection.flush()
    finally:
        await connection.close()
    assert [len(ratios) for ratios in both] == [1, 1]
    assert both[0].of("calibrated", "x") == both[1].of("calibrated", "x") > 2.5


def test_a_markup_is_in_the_price_of_every_target_that_our_key_pays() -> None:
    entries = {
        "own": ModelConfig(provider="local", engine="x", input_cost=0.000001, output_cost=0.000002),
        "both": ModelConfig(provider="openai", engine="gpt-4o", fallbacks=("own",)),
    }
    plain = router(entries)
    dearer = router(entries, pricing=PricingConfig(markup_percent=7.5))

    def price(routes: Router, model: str, at: int = 0, *brought: str) -> Price:
        found = routes.plan(model, frozenset(brought))[at].price
        assert found is not None
        return found

    before, after = price(plain, "own"), price(dearer, "own")
    assert (after.rates.input, after.rates.output) == (1_075_000_000, 2_150_000_000)
    assert after.id == f"{before.id}+7.5%"
    assert price(dearer, "gpt-4o").rates.input == price(plain, "gpt-4o").rates.input * 1075 // 1000
    assert price(dearer, "both", 1) == after
    assert price(dearer, "both", 0, "openai") == price(plain, "both", 0)
    assert price(dearer, "both", 1, "openai") == after


def test_without_a_markup_prices_and_their_ids_are_as_they_were() -> None:
    assert marked_up(PRICE, 0.0) is PRICE
    zero = router(pricing=PricingConfig(markup_percent=0))
    assert zero.plan("gpt-4o") == router().plan("gpt-4o")


def test_the_id_of_a_marked_up_price_says_by_how_much() -> None:
    ids = [marked_up(PRICE, percent).id for percent in (5, 10.0, 0.25, 1000)]
    assert ids == ["p+5%", "p+10%", "p+0.25%", "p+1000%"]


def test_the_lists_of_models_show_marked_up_prices() -> None:
    dearer = router(pricing=PricingConfig(markup_percent=100))

    def shown(routes: Router) -> dict[str, float]:
        rows = models.models(routes, lambda *names: True)["data"]
        return {row["id"]: row["capabilities"]["cost_per_1k_input_tokens"] for row in rows}

    before, after = shown(router()), shown(dearer)
    assert before["gpt-4o"] and after["gpt-4o"] == 2 * before["gpt-4o"]
    assert before["o3-pro"] and after["o3-pro"] == 2 * before["o3-pro"]
