"""Where an Ollama server is, and whose key it gets."""

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.ollama_stage import KEY, OllamaStage
from tests.contract.provider_contract import (
    CLIENT_KEY,
    Scene,
    ask_of,
    both,
    read,
)
from tests.upstream import Upstream
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider
from workers.providers.ollama import Ollama


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The ollama adapter, at the scripted server."""
    config = ProviderConfig(
        dialect="ollama", base_url=upstream.url, api_key=KEY, headers={"X-Org": "ours"}
    )
    return make("ollama", config, http, Clock())


@both
async def test_the_clients_own_key_goes_in_place_of_the_gateways(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    OllamaStage(provider, upstream).play(Scene())
    ask = ask_of({"X-Trace": "abc"}, stream=stream)
    for one in (ask._replace(credential=CLIENT_KEY), ask):
        if stream:
            assert (await read(provider, one)).end is not None
        else:
            await provider.complete(one)
    sent = [request.headers["Authorization"] for request in upstream.requests]
    assert sent == [f"Bearer {CLIENT_KEY}", f"Bearer {KEY}"]
    headers = upstream.requests[0].headers
    assert headers["X-Trace"] == "abc" and headers["X-Org"] == "ours"
    assert KEY not in str(headers) and CLIENT_KEY.encode() not in upstream.requests[0].body


async def test_a_server_of_ones_own_needs_no_key(upstream: Upstream, http: Http) -> None:
    config = ProviderConfig(dialect="ollama", base_url=f"{upstream.url}/v1")
    provider = make("ollama", config, http, Clock())
    OllamaStage(provider, upstream).play(Scene())
    await provider.complete(ask_of())
    assert "Authorization" not in upstream.requests[0].headers
    assert upstream.requests[0].path == "/api/chat"


def test_base_urls_are_completed_and_checked(http: Http) -> None:
    def url_of(base_url: str) -> str:
        config = ProviderConfig(dialect="ollama", base_url=base_url)
        provider = make("mine", config, http, Clock())
        assert isinstance(provider, Ollama)
        return provider.chat_url

    assert url_of("http://127.0.0.1:11434") == "http://127.0.0.1:11434/api/chat"
    assert url_of("http://127.0.0.1:11434/v1/") == "http://127.0.0.1:11434/api/chat"
    assert url_of("https://h/ollama/v1") == "https://h/ollama/api/chat"
    for wrong in ("", "localhost:80", "ftp://host/v1"):
        with pytest.raises(ValueError, match=r"providers\.mine\.base_url"):
            url_of(wrong)


def test_a_wrong_option_is_named(http: Http) -> None:
    config = ProviderConfig(
        dialect="ollama", base_url="http://h", options={"fetch_private": "perhaps"}
    )
    with pytest.raises(ValueError, match=r"providers\.mine\.options\.fetch_private"):
        make("mine", config, http, Clock())
