"""How the anthropic adapter asks each generation of models to think."""

from typing import Any

import pytest

from tests.contract.anthropic_asked import (
    CALL,
    NEW,
    OLD,
    THOUGHT,
    WEATHER,
    asked,
    refused,
    result,
    user,
)
from tests.contract.anthropic_stage import anthropic_at, message, text_block
from tests.upstream import Upstream, json_reply
from workers.http import Http
from workers.providers.base import Provider


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    upstream.script(json_reply(message(text_block("x"))))
    return anthropic_at(upstream.url, http)


@pytest.mark.parametrize(
    ("effort", "theirs"),
    [
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "xhigh"),
        ("max", "max"),
    ],
)
async def test_newer_models_think_by_effort(
    provider: Provider, upstream: Upstream, effort: str, theirs: str
) -> None:
    sent = await asked(provider, upstream, reasoning_effort=effort)
    assert sent["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert sent["output_config"] == {"effort": theirs}


@pytest.mark.parametrize(
    ("effort", "limit", "budget"),
    [
        ("minimal", 20_000, 2000),
        ("low", 20_000, 4000),
        ("medium", 20_000, 10_000),
        ("high", 20_000, 16_000),
        ("xhigh", 20_000, 18_000),
        ("low", None, 1024),
        ("low", 1025, 1024),
    ],
)
async def test_older_models_think_within_a_budget_that_leaves_room_for_the_answer(
    provider: Provider, upstream: Upstream, effort: str, limit: int | None, budget: int
) -> None:
    sent = await asked(provider, upstream, OLD, reasoning_effort=effort, max_tokens=limit)
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert budget < sent["max_tokens"] and "output_config" not in sent


@pytest.mark.parametrize(
    ("engine", "by_effort"),
    [
        ("claude-3-7-sonnet-20250219", False),
        ("claude-3-7-sonnet-latest", False),
        ("claude-sonnet-4-20250514", False),
        ("claude-opus-4-1", False),
        ("claude-opus-4-5-20251101", False),
        ("claude-haiku-4-5", False),
        ("anthropic/claude-sonnet-4.5", False),
        ("claude-2.1", False),
        ("claude-instant-1.2", False),
        ("claude-opus-4-6", True),
        ("claude-sonnet-4-6", True),
        ("claude-sonnet-4.6", True),
        ("claude-sonnet-5", True),
        ("claude-sonnet-5@20260601", True),
        ("claude-sonnet-5-20260601", True),
        ("claude-fable-5-2", True),
        ("claude-mythos-preview", True),
        ("claude-opus-10", True),
        ("some-other-model", True),
    ],
)
async def test_how_a_model_thinks_follows_from_its_version(
    provider: Provider, upstream: Upstream, engine: str, by_effort: bool
) -> None:
    sent = await asked(provider, upstream, engine, reasoning_effort="high", max_tokens=9000)
    assert sent["thinking"]["type"] == ("adaptive" if by_effort else "enabled")
    sent = await asked(provider, upstream, engine, reasoning_effort="none")
    assert sent.get("thinking") == ({"type": "disabled"} if by_effort else None)


async def test_an_effort_that_cannot_be_is_refused_or_left_out(
    provider: Provider, upstream: Upstream
) -> None:
    await refused(provider, "reasoning_effort", reasoning_effort="infinite")
    said = await refused(provider, "reasoning_effort", OLD, reasoning_effort="low", max_tokens=1024)
    assert "1024" in said and "max_tokens" in said
    for engine, effort in ((NEW, "infinite"), (OLD, "low")):
        sent = await asked(
            provider, upstream, engine, reasoning_effort=effort, max_tokens=1024, drop_params=True
        )
        assert "thinking" not in sent and "output_config" not in sent


async def test_older_models_do_not_think_before_a_call_that_is_demanded(
    provider: Provider, upstream: Upstream
) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice, thinks in (("required", False), (named, False), ("auto", True), ("none", True)):
        sent = await asked(
            provider,
            upstream,
            OLD,
            tools=[WEATHER],
            tool_choice=choice,
            reasoning_effort="low",
            max_tokens=5000,
        )
        assert ("thinking" in sent) is thinks


async def test_older_models_do_not_begin_to_think_between_a_call_and_its_result(
    provider: Provider, upstream: Upstream
) -> None:
    def row(**said: Any) -> list[dict[str, Any]]:
        turn = {"role": "assistant", "tool_calls": [CALL], **said}
        return [user("Weather?"), turn, result("call_1", "Rain"), result("call_1", "Sun")]

    async def thinks(engine: str, messages: list[dict[str, Any]]) -> bool:
        sent = await asked(
            provider, upstream, engine, messages=messages, reasoning_effort="low", max_tokens=5000
        )
        return "thinking" in sent

    assert not await thinks(OLD, row())
    assert await thinks(OLD, row(thinking_blocks=[THOUGHT]))
    assert await thinks(OLD, [*row(), user("And now?")])
    assert await thinks(NEW, row())


async def test_anthropics_own_words_for_thinking_and_output_pass_as_they_are(
    provider: Provider, upstream: Upstream
) -> None:
    thinking = {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}
    sent = await asked(
        provider,
        upstream,
        thinking=thinking,
        output_config={"effort": "max"},
        reasoning_effort="low",
        max_tokens=3000,
    )
    assert sent["thinking"] == thinking and sent["output_config"] == {"effort": "max"}
    await refused(provider, "output_config", output_config=["effort"])
