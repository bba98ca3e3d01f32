"""Embeddings of Ollama, read by its own client beside the adapter."""

import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import ollama
import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import Usage
from tests.contract.ollama_stage import KEY, OllamaStage
from tests.contract.provider_contract import Scene, ask_of
from tests.upstream import Reply, Upstream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Ask, AttemptFailed, Provider

FIXTURES = Path(__file__).parents[1] / "fixtures" / "ollama"


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The ollama adapter, at the scripted server."""
    config = ProviderConfig(dialect="ollama", base_url=upstream.url, api_key=KEY)
    return make("ollama", config, http, Clock())


@pytest.fixture
async def client(upstream: Upstream) -> AsyncIterator[ollama.AsyncClient]:
    """Ollama's own client, at the scripted server."""
    async with ollama.AsyncClient(host=upstream.url) as client:
        yield client


def embedding_of(texts: Any, **fields: Any) -> Ask:
    body = json.dumps({"model": "the-clients-name", "input": texts, **fields}).encode()
    return ask_of()._replace(body=body)


async def test_documented_embeddings(
    provider: Provider, upstream: Upstream, client: ollama.AsyncClient
) -> None:
    upstream.script(json_reply((FIXTURES / "embed.json").read_bytes()))
    texts = ["Why is the sky blue?", "Why is the grass green?"]
    theirs = await client.embed(model="the-engine", input=texts)
    answer = await provider.embed(embedding_of(texts))
    shown = json.loads(answer.body)
    assert [item["embedding"] for item in shown["data"]] == theirs.embeddings
    assert [item["index"] for item in shown["data"]] == [0, 1]
    assert shown["model"] == "the-clients-name"
    assert upstream.requests[0].json == upstream.requests[1].json
    assert upstream.requests[1].path == "/api/embed"
    assert answer.usage == Usage(input=8, status="reported")


async def test_embeddings_with_dimensions_and_ollamas_own_parameters(
    provider: Provider, upstream: Upstream
) -> None:
    OllamaStage(provider, upstream).play(Scene(vectors=((0.5, -2.0),), reports_usage=False))
    native = {"keep_alive": 0, "truncate": False, "options": {"num_ctx": 512}}
    ask = embedding_of("one", dimensions=2, encoding_format="base64", user="u", **native)
    answer = await provider.embed(ask)
    (item,) = json.loads(answer.body)["data"]
    assert struct.unpack("<2f", base64.b64decode(item["embedding"])) == (0.5, -2.0)
    assert answer.usage.status == "estimated"
    assert upstream.requests[0].json == {
        "model": "the-engine",
        "input": ["one"],
        "dimensions": 2,
        **native,
    }


async def test_many_texts_go_in_one_request(provider: Provider, upstream: Upstream) -> None:
    vectors = tuple((float(at),) for at in range(300))
    OllamaStage(provider, upstream).play(Scene(vectors=vectors))
    answer = await provider.embed(embedding_of([str(at) for at in range(300)]))
    assert [item["embedding"] for item in json.loads(answer.body)["data"]] == [
        list(vector) for vector in vectors
    ]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("texts", "fields", "param"),
    [([1, 2, 3], {}, "input"), ("x", {"dimensions": 0}, "dimensions")],
)
async def test_what_cannot_be_embedded_is_a_400(
    provider: Provider, texts: Any, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_of(texts, **fields))
    assert (caught.value.info.status, caught.value.info.param) == (400, param)


@pytest.mark.parametrize(
    "reply",
    [
        json_reply(b"nonsense"),
        json_reply([]),
        json_reply({}),
        json_reply({"embeddings": [[1.0], [2.0]]}),
        json_reply({"embeddings": [["a"]]}),
        json_reply({"embeddings": [[1e300]]}),
        json_reply({"error": "this model does not support embeddings"}),
    ],
)
async def test_embeddings_that_are_none_are_a_provider_error(
    provider: Provider, upstream: Upstream, reply: Reply
) -> None:
    upstream.script(reply)
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_of("x", encoding_format="base64"))
    assert (caught.value.info.status, caught.value.info.type) == (502, "provider_error")
