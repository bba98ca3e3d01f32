"""What a client wishes of the place where its call runs: the `routing` block of a request."""

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from schemas.config import Dollars, Strategy
from schemas.money import nano_from_usd

_MOST_NAMES = 16

_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Names = Annotated[tuple[_Name, ...], Meta(max_length=_MOST_NAMES)]
_Milliseconds = Annotated[float, Meta(gt=0, le=86_400_000)]
_Region = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,39}\Z")]


class Wishes(NamedTuple):
    """The wishes of one call; without a strategy the order is that of the configuration.

    `max_per_1k_nano` bounds what 1,000 tokens of the call cost, `max_latency_ms` the measured time
    to the first byte of a stream, or to the end of an answer. Providers that are `preferred` come
    before all others. `fallbacks` are names of models; `region` begins the region of a provider.
    """

    strategy: Strategy | None = None
    max_per_1k_nano: int | None = None
    max_latency_ms: float | None = None
    preferred: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    region: str = ""


class RoutingBlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same as clients write it. An unknown field is an error: a bound with a typo in its name
    would be no bound.

    `enable_caching` is document 003's and without effect as long as nothing is cached.
    """

    strategy: Strategy | None = None
    max_cost_per_1k_tokens: Dollars | None = None
    max_latency_ms: _Milliseconds | None = None
    preferred_providers: _Names | None = None
    fallback_models: _Names | None = None
    enable_caching: bool | None = None
    region: _Region | None = None

    def read(self) -> Wishes:
        most = self.max_cost_per_1k_tokens
        return Wishes(
            strategy=self.strategy,
            max_per_1k_nano=None if most is None else nano_from_usd(most),
            max_latency_ms=self.max_latency_ms,
            preferred=self.preferred_providers or (),
            fallbacks=self.fallback_models or (),
            region=self.region or "",
        )
