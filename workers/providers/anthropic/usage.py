"""Tokens as Anthropic counts them, by the classes that are priced apart."""

from typing import Annotated, Any

import msgspec
from msgspec import Raw

from schemas.usage import Usage, tier_named
from workers.providers.base import NOT_AS_ASKED

ABSENT = Raw(b"null")
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000)]


class _CacheCreation(msgspec.Struct):
    ephemeral_1h_input_tokens: Count | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: Count | None = None


class _Counts(msgspec.Struct):
    input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens: Count | None = None
    output_tokens_details: _OutputDetails | None = None
    service_tier: Any = None
    speed: Any = None


_decode_counts = msgspec.json.Decoder(_Counts).decode


def is_absent(raw: Raw) -> bool:
    """Whether a field is missing, or null."""
    return bytes(raw) == b"null"


class Tally:
    """The counts of one answer. They are cumulative: of each the last one told stands, none is
    ever added (docs: Streaming messages)."""

    def __init__(self) -> None:
        self._counts = _Counts()
        self._garbled = False

    def begin(self, reported: Raw) -> None:
        """Takes what is told before a streamed answer: its output has only begun."""
        self.count(reported)
        self._counts.output_tokens = None

    def count(self, reported: Raw) -> None:
        """Takes a `usage` as it was written."""
        if is_absent(reported):
            return
        try:
            counts = _decode_counts(reported)
        except NOT_AS_ASKED:
            self._garbled = True
            return
        for name in _Counts.__struct_fields__:
            if (count := getattr(counts, name)) is not None:
                setattr(self._counts, name, count)

    def usage(self) -> Usage | None:
        """Disjoint classes; None if either side was not told, status unknown for nonsense.

        `input_tokens` is what is neither read from a cache nor written to one: the three make up
        the prompt (docs: Prompt caching, "Tracking cache performance"). What was written is told as
        a sum, and by how long it is kept: an hour costs more than the usual five minutes.
        `output_tokens` includes thinking, however little of it is shown; `thinking_tokens` is that
        part of it.
        """
        counts = self._counts
        if self._garbled:
            return Usage()
        if counts.input_tokens is None or counts.output_tokens is None:
            return None
        details = counts.output_tokens_details or _OutputDetails()
        kept = counts.cache_creation or _CacheCreation()
        reasoning = min(details.thinking_tokens or 0, counts.output_tokens)
        written = counts.cache_creation_input_tokens or 0
        written_1h = min(kept.ephemeral_1h_input_tokens or 0, written)
        return Usage(
            input=counts.input_tokens,
            cached_input=counts.cache_read_input_tokens or 0,
            cache_write=written - written_1h,
            cache_write_1h=written_1h,
            output=counts.output_tokens - reasoning,
            reasoning=reasoning,
            status="reported",
            tier=tier_named(counts.speed) or tier_named(counts.service_tier),
        )
