"""What each class of tokens costs at each provider, to the nano-dollar: the vendor's own words for
its usage, through its adapter and the price book, against the price that the vendor publishes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

import genai_prices
import pytest

from schemas.call import Target
from schemas.catalog import Catalog
from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import TOKEN_CLASSES, Usage, cost_of
from tests.contract import (
    anthropic_stage,
    bedrock_stage,
    cohere_stage,
    gemini_stage,
    ollama_stage,
)
from tests.contract.provider_contract import ask_of, read
from tests.upstream import (
    DONE,
    Upstream,
    chat_answer,
    chat_chunk,
    event,
    event_stream,
    json_reply,
)
from workers.costs import cost_at
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider

TODAY = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CATALOG = Catalog.load(Clock(now_ns=lambda: int(TODAY.timestamp()) * 1_000_000_000))
OUTPUT = ("output", "reasoning", "audio_output", "image_output")


class Case(NamedTuple):
    """What a vendor reports, and how many tokens of which class it charges for, each with its
    published price in USD per million."""

    provider: str
    engine: str
    reported: dict[str, Any]
    charged: dict[str, tuple[int, str]]
    per_request: str = "0"
    extractor: str = ""


def openai_usage(
    prompt: int, completion: int, total: int | None = None, **more: Any
) -> dict[str, Any]:
    total = prompt + completion if total is None else total
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        **more,
    }


# Of each vendor one usage by class, then what its own rule makes difficult. The rule stands before
# it, with the page where vendor and price were read.
CASES = {
    # developers.openai.com/api/docs/pricing, gpt-5.4: 2.50, cached 0.25, output 15. Cached tokens
    # are part of the prompt (guides/prompt-caching), reasoning is part of the completion and costs
    # what output does (guides/reasoning).
    "openai input": Case(
        "openai", "gpt-5.4", openai_usage(1_000, 0), {"input": (1_000, "2.50")}, extractor="chat"
    ),
    "openai cached input": Case(
        "openai",
        "gpt-5.4",
        openai_usage(2_006, 0, prompt_tokens_details={"cached_tokens": 1_920, "audio_tokens": 0}),
        {"input": (86, "2.50"), "cached_input": (1_920, "0.25")},
        extractor="chat",
    ),
    "openai output": Case(
        "openai", "gpt-5.4", openai_usage(0, 300), {"output": (300, "15")}, extractor="chat"
    ),
    "openai reasoning": Case(
        "openai",
        "gpt-5.4",
        openai_usage(9, 1_186, completion_tokens_details={"reasoning_tokens": 1_024}),
        {"input": (9, "2.50"), "output": (162, "15"), "reasoning": (1_024, "15")},
        extractor="chat",
    ),
    # The same page, gpt-6-sol: cache writes 2.50 where input is 2, told in `cache_write_tokens`.
    "openai cache write": Case(
        "openai",
        "gpt-6-sol",
        openai_usage(
            2_000, 0, prompt_tokens_details={"cached_tokens": 500, "cache_write_tokens": 1_400}
        ),
        {"input": (100, "2"), "cached_input": (500, "0.20"), "cache_write": (1_400, "2.50")},
        extractor="chat",
    ),
    # The same page, gpt-audio: text 2.50 and 10, audio 32 in and 64 out.
    "openai audio": Case(
        "openai",
        "gpt-audio",
        openai_usage(
            150,
            90,
            prompt_tokens_details={"audio_tokens": 120, "cached_tokens": 0},
            completion_tokens_details={"audio_tokens": 70, "reasoning_tokens": 0},
        ),
        {
            "input": (30, "2.50"),
            "audio_input": (120, "32"),
            "output": (20, "10"),
            "audio_output": (70, "64"),
        },
        extractor="chat",
    ),
    # More than 272,000 tokens of prompt, the cached ones among them: all of the call at the higher
    # price (docs/models/gpt-5.4).
    "openai at the limit of a long context": Case(
        "openai",
        "gpt-5.4",
        openai_usage(272_000, 100, prompt_tokens_details={"cached_tokens": 200_000}),
        {"input": (72_000, "2.50"), "cached_input": (200_000, "0.25"), "output": (100, "15")},
        extractor="chat",
    ),
    "openai long context": Case(
        "openai",
        "gpt-5.4",
        openai_usage(272_001, 100, prompt_tokens_details={"cached_tokens": 200_000}),
        {"input": (72_001, "5"), "cached_input": (200_000, "0.50"), "output": (100, "22.50")},
        extractor="chat",
    ),
    # azure.microsoft.com/pricing/details/cognitive-services/openai-service, gpt-4o: 2.50, 1.25, 10;
    # usage as OpenAI's (learn.microsoft.com/azure/ai-services/openai/how-to/prompt-caching).
    "azure": Case(
        "azure",
        "gpt-4o",
        openai_usage(1_566, 300, prompt_tokens_details={"cached_tokens": 1_408}),
        {"input": (158, "2.50"), "cached_input": (1_408, "1.25"), "output": (300, "10")},
    ),
    # platform.claude.com/docs/en/about-claude/pricing, Haiku 4.5: 1, cache hits 0.10, writes 1.25
    # and 2 (an hour), output 5. `input_tokens` is beside what was read and written, and the two
    # durations are parts of `cache_creation_input_tokens`: counted once (build-with-claude/
    # prompt-caching). Thinking is part of the output (build-with-claude/extended-thinking).
    "anthropic input": Case(
        "anthropic",
        "claude-haiku-4-5",
        {"input_tokens": 2_095, "output_tokens": 0},
        {"input": (2_095, "1")},
        extractor="default",
    ),
    "anthropic cache": Case(
        "anthropic",
        "claude-haiku-4-5",
        {
            "input_tokens": 2_048,
            "cache_read_input_tokens": 1_800,
            "cache_creation_input_tokens": 248,
            "output_tokens": 503,
            "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
        },
        {
            "input": (2_048, "1"),
            "cached_input": (1_800, "0.10"),
            "cache_write": (148, "1.25"),
            "cache_write_1h": (100, "2"),
            "output": (503, "5"),
        },
        extractor="default",
    ),
    "anthropic thinking": Case(
        "anthropic",
        "claude-haiku-4-5",
        {
            "input_tokens": 10,
            "output_tokens": 900,
            "output_tokens_details": {"thinking_tokens": 700},
        },
        {"input": (10, "1"), "output": (200, "5"), "reasoning": (700, "5")},
        extractor="default",
    ),
    # The same page, long context of Sonnet 4.5: above 200,000 tokens, those read from a cache or
    # written to it among them, all of the request costs 6, 0.60, 7.50 and 22.50.
    "anthropic at the limit of a long context": Case(
        "anthropic",
        "claude-sonnet-4-5",
        {
            "input_tokens": 50_000,
            "cache_read_input_tokens": 100_000,
            "cache_creation_input_tokens": 50_000,
            "output_tokens": 1_000,
        },
        {
            "input": (50_000, "3"),
            "cached_input": (100_000, "0.30"),
            "cache_write": (50_000, "3.75"),
            "output": (1_000, "15"),
        },
        extractor="default",
    ),
    "anthropic long context": Case(
        "anthropic",
        "claude-sonnet-4-5",
        {
            "input_tokens": 50_001,
            "cache_read_input_tokens": 100_000,
            "cache_creation_input_tokens": 50_000,
            "output_tokens": 1_000,
        },
        {
            "input": (50_001, "6"),
            "cached_input": (100_000, "0.60"),
            "cache_write": (50_000, "7.50"),
            "output": (1_000, "22.50"),
        },
        extractor="default",
    ),
    # ai.google.dev/gemini-api/docs/pricing, Gemini 2.5 Flash: text 0.30, audio 1.00, cached 0.03,
    # output with thoughts 2.50. What was cached is part of `promptTokenCount`, and counted once;
    # thoughts are beside the candidates (docs/thinking), what tools gave to read beside the prompt.
    "google input and output": Case(
        "google",
        "gemini-2.5-flash",
        {"promptTokenCount": 8, "candidatesTokenCount": 14, "totalTokenCount": 22},
        {"input": (8, "0.30"), "output": (14, "2.50")},
        extractor="default",
    ),
    "google cached input": Case(
        "google",
        "gemini-2.5-flash",
        {
            "promptTokenCount": 696_219,
            "cachedContentTokenCount": 696_190,
            "candidatesTokenCount": 214,
            "totalTokenCount": 696_433,
        },
        {"input": (29, "0.30"), "cached_input": (696_190, "0.03"), "output": (214, "2.50")},
        extractor="default",
    ),
    "google thoughts": Case(
        "google",
        "gemini-2.5-flash",
        {
            "promptTokenCount": 15,
            "candidatesTokenCount": 21,
            "thoughtsTokenCount": 988,
            "totalTokenCount": 1_024,
        },
        {"input": (15, "0.30"), "output": (21, "2.50"), "reasoning": (988, "2.50")},
        extractor="default",
    ),
    "google audio": Case(
        "google",
        "gemini-2.5-flash",
        {
            "promptTokenCount": 320,
            "candidatesTokenCount": 4,
            "totalTokenCount": 324,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 20},
                {"modality": "AUDIO", "tokenCount": 300},
            ],
        },
        {"input": (20, "0.30"), "audio_input": (300, "1.00"), "output": (4, "2.50")},
        extractor="default",
    ),
    "google tools": Case(
        "google",
        "gemini-2.5-flash",
        {
            "promptTokenCount": 10,
            "toolUsePromptTokenCount": 90,
            "candidatesTokenCount": 16,
            "totalTokenCount": 116,
        },
        {"input": (100, "0.30"), "output": (16, "2.50")},
        extractor="default",
    ),
    # The same page, Gemini 2.5 Pro: prompts of more than 200,000 tokens, all of the call.
    "google at the limit of a long context": Case(
        "google",
        "gemini-2.5-pro",
        {
            "promptTokenCount": 200_000,
            "cachedContentTokenCount": 150_000,
            "candidatesTokenCount": 10,
            "totalTokenCount": 200_010,
        },
        {"input": (50_000, "1.25"), "cached_input": (150_000, "0.125"), "output": (10, "10")},
        extractor="default",
    ),
    "google long context": Case(
        "google",
        "gemini-2.5-pro",
        {
            "promptTokenCount": 200_001,
            "cachedContentTokenCount": 150_000,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 5,
            "totalTokenCount": 200_016,
        },
        {
            "input": (50_001, "2.50"),
            "cached_input": (150_000, "0.25"),
            "output": (10, "15"),
            "reasoning": (5, "15"),
        },
        extractor="default",
    ),
    # cohere.com/pricing, Command A: 2.50 and 10. Charged are the billed units, not what is
    # processed with the template around it (docs.cohere.com/docs/how-does-cohere-pricing-work).
    "cohere": Case(
        "cohere",
        "command-a-03-2025",
        {
            "billed_units": {"input_tokens": 5, "output_tokens": 418},
            "tokens": {"input_tokens": 71, "output_tokens": 418},
        },
        {"input": (5, "2.50"), "output": (418, "10")},
        extractor="default",
    ),
    # aws.amazon.com/bedrock/pricing, Claude Sonnet 4.5 in US regions: 3.30, cache reads 0.33,
    # writes 4.125 and 6.60 (an hour), output 16.50. `inputTokens` is what was neither read nor
    # written (userguide/prompt-caching).
    "bedrock": Case(
        "bedrock",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        {
            "inputTokens": 30,
            "outputTokens": 628,
            "totalTokens": 4_358,
            "cacheReadInputTokens": 1_700,
            "cacheWriteInputTokens": 2_000,
            "cacheDetails": [
                {"ttl": "1h", "inputTokens": 500},
                {"ttl": "5m", "inputTokens": 1_500},
            ],
        },
        {
            "input": (30, "3.30"),
            "cached_input": (1_700, "0.33"),
            "cache_write": (1_500, "4.125"),
            "cache_write_1h": (500, "6.60"),
            "output": (628, "16.50"),
        },
        extractor="default",
    ),
    # The same page, Nova Lite: 0.06, cache reads 0.015, output 0.24.
    "bedrock nova": Case(
        "bedrock",
        "amazon.nova-lite-v1:0",
        {"inputTokens": 100, "outputTokens": 50, "totalTokens": 350, "cacheReadInputTokens": 200},
        {"input": (100, "0.06"), "cached_input": (200, "0.015"), "output": (50, "0.24")},
        extractor="default",
    ),
    # docs.mistral.ai/inference/pricing, Mistral Large 4: 0.70, output 2.10; a cached token is part
    # of the prompt and costs a tenth (docs.mistral.ai, Prompt caching).
    "mistral": Case(
        "mistral",
        "mistral-large-4",
        openai_usage(1_200, 80, prompt_tokens_details={"cached_tokens": 1_000}),
        {"input": (200, "0.70"), "cached_input": (1_000, "0.07"), "output": (80, "2.10")},
        extractor="default",
    ),
    # api-docs.deepseek.com/quick_start/pricing, deepseek-chat from 00:30 to 16:30 UTC: cache hits
    # 0.07, misses 0.27, output 1.10. Hits and misses make up the prompt (guides/kv_cache).
    "deepseek": Case(
        "deepseek",
        "deepseek-chat",
        openai_usage(1_000, 50, prompt_cache_hit_tokens=896, prompt_cache_miss_tokens=104),
        {"input": (104, "0.27"), "cached_input": (896, "0.07"), "output": (50, "1.10")},
    ),
    # Told in both ways, the hits count once; what it thinks is part of the completion.
    "deepseek in two ways": Case(
        "deepseek",
        "deepseek-reasoner",
        openai_usage(
            1_000,
            350,
            prompt_cache_hit_tokens=896,
            prompt_cache_miss_tokens=104,
            prompt_tokens_details={"cached_tokens": 896},
            completion_tokens_details={"reasoning_tokens": 300},
        ),
        {
            "input": (104, "0.55"),
            "cached_input": (896, "0.14"),
            "output": (50, "2.19"),
            "reasoning": (300, "2.19"),
        },
        extractor="chat",
    ),
    # console.groq.com/docs/models, gpt-oss-120b: 0.15, output 0.60; cached tokens at half the price
    # (console.groq.com/docs/prompt-caching), reasoning is part of the completion.
    "groq": Case(
        "groq",
        "openai/gpt-oss-120b",
        openai_usage(
            4_641,
            1_817,
            prompt_tokens_details={"cached_tokens": 4_608},
            completion_tokens_details={"reasoning_tokens": 1_000},
            queue_time=0.02,
        ),
        {
            "input": (33, "0.15"),
            "cached_input": (4_608, "0.075"),
            "output": (817, "0.60"),
            "reasoning": (1_000, "0.60"),
        },
        extractor="default",
    ),
    # docs.x.ai/docs/models, Grok 4.3: 1.25, cached 0.20, output 2.50. Cached tokens are part of the
    # prompt; reasoning is beside the completion, in the total, and costs what output does
    # (docs.x.ai, Consumption and rate limits).
    "xai": Case(
        "xai",
        "grok-4.3",
        openai_usage(
            125,
            48,
            373,
            prompt_tokens_details={
                "text_tokens": 125,
                "audio_tokens": 0,
                "image_tokens": 0,
                "cached_tokens": 98,
            },
            completion_tokens_details={"reasoning_tokens": 200, "audio_tokens": 0},
        ),
        {
            "input": (27, "1.25"),
            "cached_input": (98, "0.20"),
            "output": (48, "2.50"),
            "reasoning": (200, "2.50"),
        },
        extractor="chat",
    ),
    # From 200,000 tokens on, not above them as elsewhere.
    "xai long context": Case(
        "xai",
        "grok-4.3",
        openai_usage(200_000, 10),
        {"input": (200_000, "2.50"), "output": (10, "5")},
        extractor="chat",
    ),
    # platform.kimi.ai/docs/pricing/chat, Kimi K2: 0.60, cached 0.15, output 2.50; what was cached
    # stands in the usage itself.
    "moonshot": Case(
        "moonshot",
        "kimi-k2-0905-preview",
        openai_usage(1_000, 20, cached_tokens=768),
        {"input": (232, "0.60"), "cached_input": (768, "0.15"), "output": (20, "2.50")},
    ),
    # docs.perplexity.ai/getting-started/pricing, Sonar Deep Research: 2, citations 2, reasoning 3,
    # output 8; the usage of its reference has the last two beside prompt and completion.
    "perplexity": Case(
        "perplexity",
        "sonar-deep-research",
        openai_usage(
            33, 7_163, citation_tokens=20_016, num_search_queries=22, reasoning_tokens=73_997
        ),
        {"input": (20_049, "2"), "output": (7_163, "8"), "reasoning": (73_997, "3")},
    ),
    # The same page, Sonar: 1 and 1, and a fee for each request: the highest is taken, 12 for a
    # thousand.
    "perplexity fee": Case(
        "perplexity",
        "sonar",
        openai_usage(8, 439, search_context_size="low"),
        {"input": (8, "1"), "output": (439, "1")},
        per_request="0.012",
    ),
    # together.ai/pricing, Llama 3.3 70B: 0.88 both ways.
    "together": Case(
        "together",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        openai_usage(500, 100),
        {"input": (500, "0.88"), "output": (100, "0.88")},
    ),
    # openrouter.ai/docs/use-cases/usage-accounting: cached tokens are part of the prompt.
    "openrouter": Case(
        "openrouter",
        "openai/gpt-4o",
        openai_usage(194, 2, prompt_tokens_details={"cached_tokens": 128}, cost=0.00034),
        {"input": (66, "2.50"), "cached_input": (128, "1.25"), "output": (2, "10")},
        extractor="chat",
    ),
    # docs.z.ai/guides/overview/pricing, GLM-4.6: 0.60, cached 0.11, output 2.20.
    "zai": Case(
        "zai",
        "glm-4.6",
        openai_usage(
            600,
            90,
            prompt_tokens_details={"cached_tokens": 512},
            completion_tokens_details={"reasoning_tokens": 60},
        ),
        {
            "input": (88, "0.60"),
            "cached_input": (512, "0.11"),
            "output": (30, "2.20"),
            "reasoning": (60, "2.20"),
        },
        extractor="chat",
    ),
    # cerebras.ai/pricing, gpt-oss-120b: 0.35 and 0.75; what was cached costs what input does.
    "cerebras": Case(
        "cerebras",
        "gpt-oss-120b",
        openai_usage(300, 40, prompt_tokens_details={"cached_tokens": 256}),
        {"input": (44, "0.35"), "cached_input": (256, "0.35"), "output": (40, "0.75")},
        extractor="chat",
    ),
}


def answer_of(dialect: str, reported: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A whole answer in a dialect, with this usage."""
    if dialect == "anthropic":
        return anthropic_stage.message(anthropic_stage.text_block("x"), usage=reported)
    if dialect == "gemini":
        return gemini_stage.chat_answer({"text": "x"}, usageMetadata=reported)
    if dialect == "cohere":
        return cohere_stage.chat_answer({"type": "text", "text": "x"}, usage=reported)
    if dialect == "bedrock":
        return bedrock_stage.converse_answer({"text": "x"}, usage=reported)
    return chat_answer("x", usage=reported, **more)


def provider_named(name: str, upstream: Upstream, http: Http) -> tuple[Provider, str]:
    """A vendor's adapter at the scripted server, and its dialect."""
    vendor = CATALOG.vendors[name]
    config = ProviderConfig(
        dialect=vendor.dialect,
        base_url=upstream.url,
        api_key="key-of-the-operator",
        region=vendor.region or "us-east-1",
        quirks=vendor.quirks,
    )
    return make(name, config, http, Clock()), vendor.dialect


def nano(tokens: Mapping[str, tuple[int, str]], classes: tuple[str, ...]) -> int:
    """The published price of these classes, rounded once, half up."""
    usd = sum((Decimal(rate) * count for name, (count, rate) in tokens.items() if name in classes))
    return int((Decimal(usd) * 1000).to_integral_value(rounding=ROUND_HALF_UP))


@pytest.mark.parametrize("name", CASES)
async def test_each_class_is_counted_once_and_costs_what_its_vendor_publishes(
    name: str, upstream: Upstream, http: Http
) -> None:
    case = CASES[name]
    provider, dialect = provider_named(case.provider, upstream, http)
    upstream.script(json_reply(answer_of(dialect, case.reported)))
    usage = (await provider.complete(ask_of())).usage
    assert usage.status == "reported"
    counted = {kind: getattr(usage, kind) for kind in TOKEN_CLASSES if getattr(usage, kind)}
    assert counted == {kind: count for kind, (count, _) in case.charged.items()}
    price = CATALOG.price(case.provider, case.engine)
    assert price is not None
    cost = cost_of(usage, price)
    inward = tuple(kind for kind in TOKEN_CLASSES if kind not in OUTPUT)
    fee = int(Decimal(case.per_request) * 10**9)
    assert cost.input == nano(case.charged, inward) + fee
    assert cost.output == nano(case.charged, OUTPUT)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.extractor])
async def test_the_costs_are_those_of_a_reader_of_usage_that_is_not_ours(
    name: str, upstream: Upstream, http: Http
) -> None:
    """`genai_prices` reads the same answer and prices it; each of our sides is rounded once."""
    case = CASES[name]
    provider, dialect = provider_named(case.provider, upstream, http)
    answer = answer_of(dialect, case.reported)
    upstream.script(json_reply(answer))
    price = CATALOG.price(case.provider, case.engine)
    assert price is not None
    cost = cost_of((await provider.complete(ask_of())).usage, price)
    theirs = genai_prices.extract_usage(
        {**answer, "model": case.engine, "modelVersion": case.engine},
        provider_id=CATALOG.vendors[case.provider].prices or case.provider,
        api_flavor=case.extractor,
    )
    told = genai_prices.calc_price(
        theirs.usage,
        case.engine,
        provider_id=price.id.split("/")[1],
        genai_request_timestamp=TODAY,
    )
    assert abs(cost.total - told.total_price * 10**9) <= 2


@pytest.mark.parametrize(
    ("tier", "charged"),
    [
        # developers.openai.com/api/docs/pricing, gpt-5.4: flex is half the price (cached input
        # 0.13), priority twice.
        ("default", {"input": (900, "2.50"), "cached_input": (100, "0.25"), "output": (50, "15")}),
        ("flex", {"input": (900, "1.25"), "cached_input": (100, "0.13"), "output": (50, "7.50")}),
        ("priority", {"input": (900, "5"), "cached_input": (100, "0.50"), "output": (50, "30")}),
        # Paid for beforehand: there is no other price per token than the listed one.
        ("scale", {"input": (900, "2.50"), "cached_input": (100, "0.25"), "output": (50, "15")}),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_tier_that_served_a_call_is_what_it_costs(
    tier: str,
    charged: dict[str, tuple[int, str]],
    stream: bool,
    upstream: Upstream,
    http: Http,
) -> None:
    """The answer says which tier it was, whatever was asked for."""
    provider, _ = provider_named("openai", upstream, http)
    reported = openai_usage(1_000, 50, prompt_tokens_details={"cached_tokens": 100})
    usage = await used(provider, upstream, reported, tier, stream=stream)
    price = CATALOG.price("openai", "gpt-5.4")
    assert price is not None
    cost = cost_of(usage, price)
    assert cost.input == nano(charged, ("input", "cached_input"))
    assert cost.output == nano(charged, ("output",))
    target = Target("openai", "gpt-5.4", "openai", price)
    has_own = tier in ("flex", "priority")
    assert cost_at(target, usage) == (cost, f"{price.id}@{tier}" if has_own else price.id)


@pytest.mark.parametrize("told", [None, 7, "", {"a": 1}, "x" * 1000, "\n", "auto"])
async def test_what_names_no_tier_costs_the_listed_price(
    told: Any, upstream: Upstream, http: Http
) -> None:
    provider, _ = provider_named("openai", upstream, http)
    for stream in (False, True):
        usage = await used(provider, upstream, openai_usage(10, 5), told, stream=stream)
        assert usage == Usage(input=10, output=5, status="reported")


async def used(
    provider: Provider, upstream: Upstream, reported: dict[str, Any], tier: Any, *, stream: bool
) -> Usage:
    if not stream:
        upstream.script(json_reply(chat_answer("x", usage=reported, service_tier=tier)))
        return (await provider.complete(ask_of())).usage
    chunks = [
        chat_chunk("x", service_tier=tier),
        chat_chunk({}, finish_reason="stop", service_tier=tier),
        {**chat_chunk("", service_tier=tier), "choices": [], "usage": reported},
    ]
    upstream.script(event_stream(*map(event, chunks), DONE))
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None
    return told.end.usage


async def test_a_model_on_ones_own_machine_has_no_price_and_no_cost_of_zero(
    upstream: Upstream, http: Http
) -> None:
    provider, _ = provider_named("ollama", upstream, http)
    answer = {**ollama_stage.answer_of("x"), "prompt_eval_count": 26, "eval_count": 298}
    upstream.script(json_reply(answer))
    usage = (await provider.complete(ask_of())).usage
    assert (usage.prompt, usage.completion) == (26, 298)
    assert CATALOG.price("ollama", "llama3.2") is None
