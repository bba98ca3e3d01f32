"""Providers of other packages: what a class of document 001 may give, raise and do."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.openai_stage import KEY, OpenAIStage
from tests.contract.provider_contract import (
    ProviderContract,
    Stage,
)
from tests.plugin import installed
from tests.upstream import Upstream
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider

# With somebody else's client, as such classes are written.
CLASS = """
    import openai

    class Acme:
        def __init__(self, api_key, base_url):
            self.client = openai.AsyncOpenAI(api_key=api_key, base_url=base_url, max_retries=0)

        async def complete(self, messages, model, **kwargs):
            return await self.client.chat.completions.create(
                messages=messages, model=model, **kwargs
            )

        async def stream(self, messages, model, **kwargs):
            return await self.client.chat.completions.create(
                messages=messages, model=model, stream=True,
                stream_options={"include_usage": True}, **kwargs
            )

        def count_tokens(self, text, model):
            return -(-len(text.encode()) // 4)

        async def close(self):
            await self.client.close()
"""


class Plugins:
    """Installs packages and makes providers of them, until the test ends."""

    def __init__(self, folder: Path, http: Http) -> None:
        self._folder = folder
        self._http = http
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> "Plugins":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    def install(self, code: str, name: str = "Acme", dialect: str = "acme", **more: Any) -> str:
        return self._exits.enter_context(installed(self._folder, code, {dialect: name}, **more))

    def make(self, code: str, /, **settings: Any) -> Provider:
        """The provider of a package with this code, under the name `mine`."""
        self.install(code)
        provider = make("mine", ProviderConfig(dialect="acme", **settings), self._http, Clock())
        self._exits.push_async_callback(provider.close)
        return provider


@pytest.fixture
async def plugins(tmp_path: Path, http: Http) -> AsyncIterator[Plugins]:
    async with Plugins(tmp_path, http) as plugins:
        yield plugins


class TestAClassOfDocument001(ProviderContract):
    @pytest.fixture
    async def stage(self, plugins: Plugins, upstream: Upstream) -> AsyncIterator[Stage]:
        provider = plugins.make(CLASS, api_key=KEY, base_url=f"{upstream.url}/v1")
        yield OpenAIStage(provider, upstream)
