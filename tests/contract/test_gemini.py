"""The gemini adapter keeps the contract of providers, and translates what generateContent knows."""

from collections.abc import AsyncIterator

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.gemini_stage import KEY, GeminiStage
from tests.contract.provider_contract import ProviderContract, Stage
from tests.upstream import Upstream
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The gemini adapter, at the scripted server."""
    config = ProviderConfig(
        dialect="gemini", base_url=upstream.url, api_key=KEY, headers={"X-Org": "ours"}
    )
    return make("google", config, http, Clock())


class TestGemini(ProviderContract):
    arguments_in_pieces = False

    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        yield GeminiStage(provider, upstream)
