"""The anthropic adapter keeps the contract of providers, and says all that both sides can say."""

from collections.abc import AsyncIterator

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.anthropic_stage import KEY, AnthropicStage
from tests.contract.provider_contract import ProviderContract, Stage
from tests.upstream import Upstream
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The anthropic adapter, at the scripted server."""
    config = ProviderConfig(
        dialect="anthropic",
        base_url=upstream.url,
        api_key=KEY,
        headers={"anthropic-beta": "context-1m-2025-08-07"},
    )
    return make("anthropic", config, http, Clock())


class TestAnthropic(ProviderContract):
    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        yield AnthropicStage(provider, upstream)
