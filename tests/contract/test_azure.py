"""The azure adapter keeps the contract of providers, finds deployments, and signs in three ways."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncAzureOpenAI

from schemas.catalog import Catalog
from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import Usage, cost_of
from tests.contract.openai_stage import OpenAIStage
from tests.contract.provider_contract import (
    CLIENT_KEY,
    ProviderContract,
    Stage,
    ask_of,
    outcome,
    read,
)
from tests.upstream import (
    DONE,
    Recorded,
    Reply,
    Upstream,
    chat_answer,
    chat_chunk,
    chat_stream,
    event,
    event_stream,
    json_reply,
    usage,
)
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider

FIXTURES = Path(__file__).parents[1] / "fixtures" / "azure"
SAYS: Any = [{"role": "user", "content": "Hi"}]
KEY = "azure-resource-key-0123456789"
SECRET = "entra~client.secret-0123456789"
ENTRA = {"tenant_id": "tenant", "client_id": "app", "client_secret": SECRET}
TOKEN = "eyJ0eXAiOiJKV1Qi.entra.token"


def azure(http: Http, base_url: str, api_key: str = KEY, **options: str) -> Provider:
    config = ProviderConfig(dialect="azure", base_url=base_url, api_key=api_key, options=options)
    return make("azure", config, http, Clock())


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    return azure(http, upstream.url)


class TestAzure(ProviderContract):
    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        yield OpenAIStage(provider, upstream)


class TestAzureWithDeployments(ProviderContract):
    @pytest.fixture
    async def stage(self, http: Http, upstream: Upstream) -> AsyncIterator[Stage]:
        provider = azure(http, upstream.url, api_version="2024-10-21")
        yield OpenAIStage(provider, upstream)


@pytest.mark.parametrize("path", ["", "/", "/openai", "/openai/v1", "/openai/v1/"])
async def test_without_an_api_version_the_deployment_is_the_model(
    http: Http, upstream: Upstream, path: str
) -> None:
    upstream.script(json_reply(chat_answer()))
    await azure(http, upstream.url + path).complete(ask_of())
    arrived = upstream.requests[0]
    assert arrived.path == "/openai/v1/chat/completions"
    assert arrived.json["model"] == "the-engine"
    assert arrived.headers["api-key"] == KEY
    assert "Authorization" not in arrived.headers


@pytest.mark.parametrize(
    ("engine", "place"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("", "the-clients-name"),
        ("a/b c?d#e", "a%2Fb%20c%3Fd%23e"),
    ],
)
async def test_with_an_api_version_the_deployment_stands_in_the_path(
    http: Http, upstream: Upstream, engine: str, place: str
) -> None:
    upstream.script(json_reply(chat_answer()), json_reply(vectors()))
    provider = azure(http, upstream.url, api_version="2024-10-21")
    await provider.complete(ask_of()._replace(engine=engine))
    await provider.embed(ask_of(input="x")._replace(engine=engine))
    base = f"/openai/deployments/{place}"
    assert [arrived.path for arrived in upstream.requests] == [
        f"{base}/chat/completions?api-version=2024-10-21",
        f"{base}/embeddings?api-version=2024-10-21",
    ]


def vectors() -> dict[str, Any]:
    row = {"object": "embedding", "index": 0, "embedding": [0.5]}
    return {"object": "list", "data": [row], "usage": {"prompt_tokens": 5, "total_tokens": 5}}


async def test_embeddings_know_their_usage(provider: Provider, upstream: Upstream) -> None:
    upstream.script(json_reply(vectors()))
    answer = await provider.embed(ask_of(input="x"))
    assert json.loads(answer.body)["data"] == vectors()["data"]
    assert answer.usage == Usage(input=5, status="reported")


async def test_an_entra_token_is_sent_as_it_is(http: Http, upstream: Upstream) -> None:
    upstream.script(json_reply(chat_answer()))
    await azure(http, upstream.url, api_key="", ad_token=TOKEN).complete(ask_of())
    assert upstream.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert "api-key" not in upstream.requests[0].headers


def cloud(request: Recorded) -> Reply:
    """Entra and the resource at one address."""
    if request.path.endswith("/oauth2/v2.0/token"):
        return json_reply({"access_token": TOKEN, "expires_in": 3600})
    return chat_stream("x") if request.json["stream"] else json_reply(chat_answer())


async def test_an_application_signs_in_once_and_uses_its_token(
    http: Http, upstream: Upstream
) -> None:
    upstream.script(cloud)
    provider = azure(http, upstream.url, api_key="", authority=upstream.url, **ENTRA)
    await provider.complete(ask_of())
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None
    signing, *calls = upstream.requests
    assert signing.path == "/tenant/oauth2/v2.0/token"
    assert b"cognitiveservices.azure.com%2F.default" in signing.body
    assert {call.headers["Authorization"] for call in calls} == {f"Bearer {TOKEN}"}
    assert len(calls) == 2
    await provider.close()


async def test_a_refused_application_is_the_operators_to_mend_and_shows_no_secret(
    http: Http, upstream: Upstream
) -> None:
    upstream.script(json_reply({"error": "invalid_client", "said": SECRET}, 401))
    provider = azure(http, upstream.url, api_key="", authority=upstream.url, **ENTRA)
    failure = await outcome(provider, ask_of())
    assert (failure.info.status, failure.info.code) == (502, "provider_auth")
    assert SECRET not in failure.info.message
    await provider.close()


async def test_the_clients_own_key_goes_without_our_account(http: Http, upstream: Upstream) -> None:
    upstream.script(json_reply(chat_answer()))
    for provider in (
        azure(http, upstream.url),
        azure(http, upstream.url, api_key="", ad_token=TOKEN),
        azure(http, upstream.url, api_key="", authority=upstream.url, **ENTRA),
    ):
        await provider.complete(ask_of()._replace(credential=CLIENT_KEY))
    assert [arrived.headers["api-key"] for arrived in upstream.requests] == [CLIENT_KEY] * 3
    assert not any("Authorization" in arrived.headers for arrived in upstream.requests)


async def test_what_the_content_filter_adds_passes_through(
    provider: Provider, upstream: Upstream
) -> None:
    # learn.microsoft.com/azure/ai-foundry/openai/concepts/content-streaming
    graded = {"hate": {"filtered": False, "severity": "safe"}}
    first = chat_chunk({}, choices=[])
    first["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": graded}]
    cut = chat_chunk({}, finish_reason="content_filter")
    cut["choices"][0]["content_filter_results"] = graded
    upstream.script(
        event_stream(
            event(first),
            event(chat_chunk("Hi")),
            event(cut),
            event(chat_chunk({}, choices=[], usage=usage(7, 3))),
            DONE,
        )
    )
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None and told.end.finish_reason == "content_filter"
    assert told.chunks[0]["prompt_filter_results"][0]["content_filter_results"] == graded
    assert told.chunks[-1]["choices"][0]["content_filter_results"] == graded
    assert told.text() == "Hi"


async def test_a_filtered_prompt_is_the_clients_to_mend(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply(recorded("filtered.json"), 400))
    failure = await outcome(provider, ask_of())
    info = failure.info
    assert (info.status, info.code, info.param) == (400, "content_filter", "prompt")


@pytest.fixture
async def sdk(upstream: Upstream) -> AsyncIterator[AsyncAzureOpenAI]:
    """Microsoft's way to ask, with the OpenAI SDK."""
    async with AsyncAzureOpenAI(
        azure_endpoint=upstream.url, api_key=KEY, api_version="2024-10-21", max_retries=0
    ) as client:
        yield client


def recorded(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


async def test_a_whole_answer_says_what_the_sdk_reads_and_is_asked_for_at_the_same_place(
    http: Http, upstream: Upstream, sdk: AsyncAzureOpenAI
) -> None:
    upstream.script(json_reply(recorded("chat.json")))
    direct = await sdk.chat.completions.create(model="the-engine", messages=SAYS)
    answer = await azure(http, upstream.url, api_version="2024-10-21").complete(ask_of())
    shown = json.loads(answer.body)
    by_sdk, ours = upstream.requests
    assert (ours.path, ours.headers["api-key"]) == (by_sdk.path, by_sdk.headers["api-key"])
    assert direct.usage is not None
    assert shown["choices"][0]["message"]["content"] == direct.choices[0].message.content
    assert answer.finish_reason == direct.choices[0].finish_reason
    assert shown["prompt_filter_results"][0]["content_filter_results"]["jailbreak"]
    assert answer.usage == Usage(input=176, cached_input=1024, output=19, status="reported")
    assert answer.usage.prompt == direct.usage.prompt_tokens


async def test_a_stream_says_what_the_sdk_reads(
    http: Http, upstream: Upstream, sdk: AsyncAzureOpenAI
) -> None:
    upstream.script(event_stream(recorded("stream.sse")))
    direct = await sdk.chat.completions.create(model="the-engine", messages=SAYS, stream=True)
    texts = [part.delta.content or "" async for chunk in direct for part in chunk.choices]
    told = await read(azure(http, upstream.url), ask_of(stream=True))
    assert told.end is not None
    assert told.text() == "".join(texts) == "Grüße aus der Wolke ☁"
    assert told.end.usage == Usage(input=12, output=6, status="reported")
    assert told.finish_reasons() == {0: "stop"}


async def test_embeddings_are_what_the_sdk_reads(
    http: Http, upstream: Upstream, sdk: AsyncAzureOpenAI
) -> None:
    upstream.script(json_reply(recorded("embeddings.json")))
    direct = await sdk.embeddings.create(
        model="the-engine", input=["a", "b"], encoding_format="float"
    )
    answer = await azure(http, upstream.url).embed(ask_of(input=["a", "b"]))
    rows = json.loads(answer.body)["data"]
    assert [row["embedding"] for row in rows] == [row.embedding for row in direct.data]
    assert answer.usage == Usage(input=direct.usage.prompt_tokens, status="reported")


async def test_cached_tokens_cost_what_azure_asks_for_them(
    provider: Provider, upstream: Upstream
) -> None:
    # azure.microsoft.com/pricing/details/cognitive-services/openai-service: GPT-4o 2024-08-06
    # global, per million: input 2.50, cached input 1.25, output 10.00 USD.
    upstream.script(json_reply(recorded("chat.json")))
    price = Catalog.load().price("azure", "gpt-4o-2024-08-06")
    assert price is not None
    cost = cost_of((await provider.complete(ask_of())).usage, price)
    assert cost.input == 176 * 2_500 + 1024 * 1_250
    assert cost.output == 19 * 10_000


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (ProviderConfig(dialect="azure", base_url="name.openai.azure.com"), "base_url"),
        (
            ProviderConfig(
                dialect="azure",
                base_url="https://n.openai.azure.com",
                options={"tenant_id": "t", "client_id": "c"},
            ),
            "options.client_secret",
        ),
    ],
)
async def test_a_wrong_setting_is_named(http: Http, config: ProviderConfig, named: str) -> None:
    with pytest.raises(ValueError, match=rf"providers\.azure\.{named}: "):
        make("azure", config, http, Clock())
