"""What servers report in OpenAI's shape of the tokens they count, as disjoint classes."""

from typing import Annotated

import msgspec
from msgspec import Raw

from schemas.usage import Usage, tier_named
from workers.providers.base import NOT_AS_ASKED

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000)]


class _PromptDetails(msgspec.Struct):
    """The last two are OpenRouter's and LiteLLM's."""

    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    cache_creation_tokens: Count | None = None
    audio_tokens: Count | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: Count | None = None
    audio_tokens: Count | None = None


class _Usage(msgspec.Struct):
    """`prompt_cache_hit_tokens` is DeepSeek's (api-docs.deepseek.com/guides/kv_cache),
    `cached_tokens` Moonshot's, and the last two are Perplexity's."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count | None = None
    prompt_cache_hit_tokens: Count | None = None
    cached_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    citation_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class _EmbeddingUsage(msgspec.Struct):
    prompt_tokens: Count


_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_embedding_usage = msgspec.json.Decoder(_EmbeddingUsage).decode


def read_usage(reported: Raw | bytes, tier: Raw | None = None) -> Usage:
    """OpenAI's usage as disjoint classes, and its `service_tier`; status unknown for what makes no
    sense.

    The details are parts of their totals. Some servers count reasoning beside the completion
    instead: the sum shows it. Perplexity counts beside prompt and completion, and outside of the
    sum, what its research has read, which costs what input does, and thought
    (docs.perplexity.ai/getting-started/pricing).
    """
    try:
        usage = _decode_usage(reported)
    except NOT_AS_ASKED:
        return Usage()
    prompt = usage.prompt_tokens_details or _PromptDetails()
    completion = usage.completion_tokens_details or _CompletionDetails()
    went_in, came_out = usage.prompt_tokens, usage.completion_tokens
    reasoning = completion.reasoning_tokens or 0
    if usage.citation_tokens is not None:
        reasoning = usage.reasoning_tokens or 0
        came_out += reasoning
        went_in += usage.citation_tokens
    elif reasoning > came_out or usage.total_tokens == went_in + came_out + reasoning:
        came_out += reasoning
    hits = prompt.cached_tokens or usage.prompt_cache_hit_tokens or usage.cached_tokens or 0
    cached = min(hits, went_in)
    into_cache = prompt.cache_write_tokens or prompt.cache_creation_tokens or 0
    written = min(into_cache, went_in - cached)
    heard = min(prompt.audio_tokens or 0, went_in - cached - written)
    spoken = min(completion.audio_tokens or 0, came_out - reasoning)
    return Usage(
        input=went_in - cached - written - heard,
        cached_input=cached,
        cache_write=written,
        audio_input=heard,
        output=came_out - reasoning - spoken,
        reasoning=reasoning,
        audio_output=spoken,
        status="reported",
        tier=_tier(tier),
    )


def _tier(told: Raw | None) -> str:
    # Nearly every answer says that its tier was the usual one.
    if told is None or bytes(told) in (b'"default"', b"null"):
        return ""
    try:
        return tier_named(msgspec.json.decode(told))
    except NOT_AS_ASKED:
        return ""


def embedding_usage(reported: Raw) -> Usage:
    """The usage of embeddings: what went in is all there is."""
    try:
        return Usage(input=_decode_embedding_usage(reported).prompt_tokens, status="reported")
    except NOT_AS_ASKED:
        return Usage()
