"""The bedrock adapter keeps the contract of providers, in Bedrock's own words."""

from collections.abc import AsyncIterator

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.bedrock_stage import (
    KEY,
    BedrockStage,
)
from tests.contract.provider_contract import (
    ProviderContract,
    Stage,
)
from tests.upstream import Upstream
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The bedrock adapter, with an API key, at the scripted server."""
    config = ProviderConfig(
        dialect="bedrock", base_url=upstream.url, region="us-east-1", api_key=KEY
    )
    return make("acme", config, http, Clock())


class TestBedrock(ProviderContract):
    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        yield BedrockStage(provider, upstream)
