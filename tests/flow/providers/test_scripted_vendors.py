"""Vendors whom llmock does not know, and the others beside them, as a scripted server plays them:
through the whole gateway, asked with the OpenAI SDK."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from schemas.catalog import Catalog
from schemas.usage import Usage, cost_of
from tests.contract.provider_contract import Scene
from tests.flow.providers.dialects import WEATHER, put_together
from tests.flow.providers.vendors import VENDORS, Scripted, Vendor
from tests.upstream import Reply

TEXT = "wörd0 wörd1 wörd2 "
VECTORS = ((0.5, -0.25, 1.0), (0.0, 2.0, -1.5))
every = pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
unknown_to_llmock = pytest.mark.parametrize(
    "vendor",
    [one for one in VENDORS if one.name in ("azure", "bedrock", "ollama")],
    ids=lambda vendor: vendor.name,
)
embedding = pytest.mark.parametrize(
    "vendor",
    [one for one in VENDORS if one.name not in ("anthropic", "bedrock", "groq", "vertex")],
    ids=lambda vendor: vendor.name,
)


@pytest.fixture(scope="module")
def sdk(scripted: Scripted) -> Iterator[OpenAI]:
    with scripted.client() as client:
        yield client


def ask(sdk: OpenAI, vendor: Vendor, **more: Any) -> Any:
    talk = [{"role": "user", "content": "Tell me"}]
    return sdk.chat.completions.create(**{"model": vendor.model, "messages": talk, **more})


@every
def test_a_chat(scripted: Scripted, sdk: OpenAI, vendor: Vendor) -> None:
    scripted.play(vendor, Scene())
    answer = ask(sdk, vendor)
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == (TEXT, "stop")
    assert (answer.model, answer.provider) == (vendor.model, vendor.name)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 3)
    assert scripted.upstream.request.path == vendor.path


@every
def test_a_stream(scripted: Scripted, sdk: OpenAI, vendor: Vendor) -> None:
    scripted.play(vendor, Scene())
    chunks = list(ask(sdk, vendor, stream=True, stream_options={"include_usage": True}))
    assert put_together(chunks) == {"text": TEXT, "calls": [], "reason": "stop"}
    assert {(chunk.model, chunk.provider) for chunk in chunks} == {(vendor.model, vendor.name)}
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 3)


@every
@both
def test_two_calls_of_tools_at_once(
    scripted: Scripted, sdk: OpenAI, vendor: Vendor, stream: bool
) -> None:
    scripted.play(vendor, Scene(tool="get_weather", calls=2))
    answer = ask(sdk, vendor, stream=stream, tools=[WEATHER])
    if stream:
        said = put_together(list(answer))
        calls, reason = said["calls"], said["reason"]
    else:
        functions = [(one.id, one.function) for one in answer.choices[0].message.tool_calls]
        calls = [[identity, said.name, said.arguments] for identity, said in functions]
        reason = answer.choices[0].finish_reason
    assert [(name, json.loads(text)) for _, name, text in calls] == [
        ("get_weather", {"city": "Paris"})
    ] * 2
    assert len({identity for identity, _, _ in calls if identity}) == 2
    assert reason == "tool_calls"


@every
@both
@pytest.mark.parametrize(
    ("status", "shown", "kind", "tries"),
    [
        (400, 400, "invalid_request_error", 1),
        (401, 502, "provider_error", 1),
        (403, 502, "provider_error", 1),
        (404, 404, "invalid_request_error", 1),
        (429, 429, "rate_limit_error", 3),
        (500, 502, "provider_error", 3),
    ],
)
def test_an_error_is_told_by_the_table(
    scripted: Scripted,
    sdk: OpenAI,
    vendor: Vendor,
    stream: bool,
    status: int,
    shown: int,
    kind: str,
    tries: int,
) -> None:
    """A rate limit that names no time is tried again as a failure is."""
    scripted.play(vendor, Scene(status=status))
    with pytest.raises(openai.APIStatusError) as caught:
        ask(sdk, vendor, stream=stream)
    error = caught.value
    assert (error.status_code, error.type) == (shown, kind)
    assert isinstance(error.body, dict) and error.body["provider"] == vendor.name
    assert (f"Sorry: {status}" in error.message) is (status not in (401, 403))
    assert len(scripted.upstream.requests) == tries


@every
def test_a_rate_limit_is_told_with_its_wait(
    scripted: Scripted, sdk: OpenAI, vendor: Vendor
) -> None:
    scripted.play(vendor, Scene(status=429, retry_after="3600"))
    with pytest.raises(openai.RateLimitError) as caught:
        ask(sdk, vendor)
    assert caught.value.response.headers["retry-after"] == "3600"
    assert len(scripted.upstream.requests) == 1


@every
def test_a_stream_that_is_cut_never_ends_well(
    scripted: Scripted, sdk: OpenAI, vendor: Vendor
) -> None:
    scripted.play(vendor, Scene(chunks=4, cut=2))
    breaks(scripted, sdk, vendor, None)


@unknown_to_llmock
def test_a_stream_that_goes_silent_is_ended_by_the_models_timeout(
    scripted: Scripted, sdk: OpenAI, vendor: Vendor
) -> None:
    scripted.play(vendor, Scene(chunks=4, hang=2))
    breaks(scripted, sdk, vendor, "timeout")


def breaks(scripted: Scripted, sdk: OpenAI, vendor: Vendor, code: str | None) -> None:
    """Reads a stream whose first words arrive, and then an error."""
    chunks: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        for chunk in ask(sdk, vendor, model=f"hasty/{vendor.name}", stream=True):
            chunks.append(chunk)
    assert (caught.value.type, caught.value.code) == ("provider_error", code)
    came = put_together(chunks)
    assert came["text"] and "wörd0 wörd1 wörd2 wörd3".startswith(came["text"].strip())
    assert came["reason"] is None and len(scripted.upstream.requests) == 1


@embedding
@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings(scripted: Scripted, sdk: OpenAI, vendor: Vendor, form: Any) -> None:
    scripted.play(vendor, Scene(vectors=VECTORS, usage=Usage(input=5)))
    # The SDK asks for base64 by itself and reads it; asked for `float`, it passes numbers on.
    more: Any = {"encoding_format": form} if form == "float" else {}
    answer = sdk.embeddings.create(model=vendor.model, input=["Hello", "world"], **more)
    assert [tuple(one.embedding) for one in answer.data] == list(VECTORS)
    assert [one.index for one in answer.data] == [0, 1]
    assert answer.model == vendor.model


@pytest.mark.parametrize("name", ["anthropic", "bedrock"])
def test_who_cannot_embed_says_so(scripted: Scripted, sdk: OpenAI, name: str) -> None:
    (vendor,) = (one for one in VENDORS if one.name == name)
    scripted.upstream.script(Reply(status=500))
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.embeddings.create(model=vendor.model, input="Hello")
    assert "embed" in caught.value.message and scripted.upstream.requests == []


@every
@both
def test_cached_and_thought_tokens_are_shown_and_paid_by_the_price_book(
    scripted: Scripted, sdk: OpenAI, vendor: Vendor, stream: bool
) -> None:
    told = Usage(input=1000, cached_input=400, output=50, reasoning=20)
    scripted.play(vendor, Scene(usage=told))
    answer = ask(sdk, vendor, stream=stream)
    shown = [chunk for chunk in answer if chunk.choices][-1] if stream else answer
    usage = shown.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (1400, 70, 1470)
    assert usage.cache_hit_tokens == usage.prompt_tokens_details.cached_tokens == 400
    price = Catalog.load().price(vendor.name, vendor.engine)
    if price is None:
        assert vendor.name in ("dated", "ollama") and shown.cost["total_cost"] is None
        return
    cost = cost_of(told, price)
    assert round(shown.cost["total_cost"] * 1e9) == cost.total > 0
    assert round((shown.cost.get("cache_savings") or 0) * 1e9) == cost.cache_savings
