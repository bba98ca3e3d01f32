"""What the anthropic adapter counts, and what that costs at the prices that Anthropic publishes."""

from pathlib import Path
from typing import Any

import pytest

from schemas.catalog import Catalog
from schemas.usage import Cost, Usage, cost_of
from tests.contract.anthropic_stage import (
    AnthropicStage,
    anthropic_at,
    event,
    message,
    message_events,
    text_block,
)
from tests.contract.provider_contract import Scene, ask_of, both, read
from tests.upstream import Upstream, event_stream, json_reply
from workers.http import Http
from workers.providers.base import Provider

FIXTURES = Path(__file__).parents[1] / "fixtures" / "anthropic"


ALL_CLASSES = Usage(
    input=10,
    cached_input=2_000,
    cache_write=300_000,
    cache_write_1h=40_000_000,
    output=500,
    reasoning=6_000,
    status="reported",
)


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    return anthropic_at(upstream.url, http)


async def whole(provider: Provider, upstream: Upstream, body: Any) -> Usage:
    """The usage of a whole answer."""
    upstream.script(json_reply(body))
    return (await provider.complete(ask_of())).usage


async def streamed(provider: Provider, upstream: Upstream, *events: bytes) -> Usage:
    """The usage of a stream."""
    upstream.script(event_stream(*events))
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None
    return told.end.usage


@both
async def test_tokens_come_in_disjoint_classes(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    AnthropicStage(provider, upstream).play(Scene(usage=ALL_CLASSES))
    if stream:
        told = await read(provider, ask_of(stream=True))
        assert told.end is not None and told.end.usage == ALL_CLASSES
    else:
        assert (await provider.complete(ask_of())).usage == ALL_CLASSES


async def test_a_cache_that_was_written_is_counted_once(
    provider: Provider, upstream: Upstream
) -> None:
    """The breakdown by durations and the sum are the same tokens, and none of them is input."""
    usage = await whole(provider, upstream, (FIXTURES / "cache.json").read_bytes())
    assert usage == Usage(
        input=2048,
        cached_input=1800,
        cache_write=148,
        cache_write_1h=100,
        output=503,
        status="reported",
    )
    assert usage.prompt == 2048 + 1800 + 248


async def test_of_the_counts_of_a_stream_the_last_ones_stand(
    provider: Provider, upstream: Upstream
) -> None:
    """What is not told again at the end, the durations of the cache, stands from the beginning."""
    usage = await streamed(provider, upstream, (FIXTURES / "cache.sse").read_bytes())
    assert usage == Usage(
        input=12,
        cached_input=1900,
        cache_write=148,
        cache_write_1h=100,
        output=503,
        status="reported",
    )


@pytest.mark.parametrize(
    ("classes", "nano"),
    [
        (Usage(input=1), 1_000),
        (Usage(cached_input=1), 100),
        (Usage(cache_write=1), 1_250),
        (Usage(cache_write_1h=1), 2_000),
        (Usage(output=1), 5_000),
        (Usage(reasoning=1), 5_000),
        (ALL_CLASSES, 10_000 + 200_000 + 375_000_000 + 80_000_000_000 + 2_500_000 + 30_000_000),
    ],
)
async def test_each_class_costs_what_anthropic_publishes(
    provider: Provider, upstream: Upstream, classes: Usage, nano: int
) -> None:
    """Claude Haiku 4.5, in USD per million tokens: input 1, cache hits 0.10, cache writes 1.25 for
    five minutes and 2 for an hour, output 5 (platform.claude.com/docs/en/about-claude/pricing)."""
    price = Catalog.load().price("anthropic", "claude-haiku-4-5-20251001")
    assert price is not None
    AnthropicStage(provider, upstream).play(Scene(usage=classes))
    answer = await provider.complete(ask_of())
    assert cost_of(answer.usage, price).total == nano


async def test_a_cache_saves_nine_tenths_of_what_was_read_from_it(
    provider: Provider, upstream: Upstream
) -> None:
    price = Catalog.load().price("anthropic", "claude-haiku-4-5-20251001")
    assert price is not None
    usage = await whole(provider, upstream, (FIXTURES / "cache.json").read_bytes())
    assert cost_of(usage, price) == Cost(
        input=2_048_000 + 180_000 + 185_000 + 200_000,
        output=2_515_000,
        cache_savings=1_620_000,
    )


@pytest.mark.parametrize(
    ("counts", "understood"),
    [
        ({"input_tokens": -1, "output_tokens": 3}, Usage()),
        ({"input_tokens": "7", "output_tokens": 3}, Usage()),
        ({"input_tokens": 7, "output_tokens": 10**13}, Usage()),
        ({"input_tokens": 7, "output_tokens": 3.5}, Usage()),
        ({"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": "x"}, Usage()),
        ("many", Usage()),
        ([], Usage()),
        (
            {
                "input_tokens": 7,
                "output_tokens": 3,
                "cache_read_input_tokens": None,
                "cache_creation": None,
                "output_tokens_details": {"thinking_tokens": 99},
                "server_tool_use": {"web_search_requests": 1},
            },
            Usage(input=7, reasoning=3, status="reported"),
        ),
        (
            {
                "input_tokens": 7,
                "output_tokens": 3,
                "cache_creation_input_tokens": 5,
                "cache_creation": {"ephemeral_1h_input_tokens": 99},
            },
            Usage(input=7, cache_write_1h=5, output=3, status="reported"),
        ),
        ({"output_tokens": 3}, Usage(input=2, output=1, status="estimated")),
        ({"input_tokens": 7}, Usage(input=2, output=1, status="estimated")),
        (None, Usage(input=2, output=1, status="estimated")),
    ],
)
async def test_counts_that_make_no_sense_are_unknown_and_missing_ones_estimated(
    provider: Provider, upstream: Upstream, counts: Any, understood: Usage
) -> None:
    usage = await whole(provider, upstream, message(text_block("x"), usage=counts))
    assert usage == understood
    events = message_events([(text_block(""), [{"type": "text_delta", "text": "x"}])], told=None)
    end = event("message_delta", delta={"stop_reason": "end_turn"}, usage=counts)
    usage = await streamed(provider, upstream, *events[:-2], end, events[-1])
    assert usage == understood


async def test_the_output_that_a_stream_begins_with_is_not_its_output(
    provider: Provider, upstream: Upstream
) -> None:
    events = message_events([(text_block(""), [{"type": "text_delta", "text": "x" * 40}])])
    end = event("message_delta", delta={"stop_reason": "end_turn"})
    usage = await streamed(provider, upstream, *events[:-2], end, events[-1])
    assert usage == Usage(input=2, output=10, status="estimated")
