"""Which service tier an answer says it had, in the words of each vendor that has tiers."""

import json
from typing import Any

import pytest
from msgspec import Raw

from schemas.call import Timeouts
from schemas.ids import Clock
from workers.exchange import Whole
from workers.failures import Failures
from workers.providers.anthropic.usage import Tally
from workers.providers.base import Ask
from workers.providers.bedrock.answer import converse_answer
from workers.providers.gemini.answers import read_usage

FAILURES = Failures("acme", (), Clock())
ASK = Ask("call", "m", "e", b"{}", False, 1, {}, Timeouts())


def raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("told", "tier"),
    [
        ({}, ""),
        ({"service_tier": "standard"}, ""),
        ({"service_tier": "priority"}, "priority"),
        ({"service_tier": "batch"}, "batch"),
        ({"service_tier": "standard", "speed": "fast"}, "fast"),
        ({"service_tier": None, "speed": 7}, ""),
    ],
)
def test_anthropic_tells_it_with_its_usage(told: dict[str, Any], tier: str) -> None:
    tally = Tally()
    tally.begin(raw({"input_tokens": 5, "output_tokens": 1, **told}))
    tally.count(raw({"output_tokens": 3}))
    usage = tally.usage()
    assert usage is not None and (usage.output, usage.tier) == (3, tier)


@pytest.mark.parametrize(
    ("told", "tier"),
    [
        ({}, ""),
        ({"trafficType": "ON_DEMAND"}, ""),
        ({"trafficType": "ON_DEMAND_FLEX"}, "flex"),
        ({"trafficType": "ON_DEMAND_PRIORITY"}, "priority"),
        ({"trafficType": ["odd"]}, ""),
    ],
)
def test_vertex_tells_it_by_the_type_of_traffic(told: dict[str, Any], tier: str) -> None:
    usage = read_usage(raw({"promptTokenCount": 5, "candidatesTokenCount": 3, **told}))
    assert usage is not None and (usage.input, usage.tier) == (5, tier)


@pytest.mark.parametrize(
    ("told", "tier"),
    [
        ({}, ""),
        ({"serviceTier": {"type": "default"}}, ""),
        ({"serviceTier": {"type": "priority"}}, "priority"),
        ({"serviceTier": {}}, ""),
    ],
)
def test_bedrock_tells_it_beside_its_usage(told: dict[str, Any], tier: str) -> None:
    body = {
        "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 5, "outputTokens": 3, "totalTokens": 8},
        **told,
    }
    answer = converse_answer(Whole(json.dumps(body).encode(), 0.0, 0.0), ASK, FAILURES)
    assert (answer.usage.input, answer.usage.tier) == (5, tier)
