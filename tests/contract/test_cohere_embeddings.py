"""Embeddings of Cohere: as many requests as it takes, in one answer."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import Price, Rates, Usage, cost_of
from tests.contract.cohere_stage import KEY, CohereStage
from tests.contract.provider_contract import (
    Scene,
    ask_of,
)
from tests.upstream import Reply, Upstream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Ask, AttemptFailed, Provider
from workers.providers.cohere import TEXTS_AT_ONCE

FIXTURES = Path(__file__).parents[1] / "fixtures" / "cohere"
# cohere.com/pricing: Embed 4, 0.12 dollars per million tokens of text.
EMBED_4 = Price("embed-v4.0", Rates(input=120_000_000, output=0))


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The cohere adapter, at the scripted server."""
    config = ProviderConfig(
        dialect="cohere", base_url=upstream.url, api_key=KEY, headers={"X-Org": "ours"}
    )
    return make("cohere", config, http, Clock())


def embedding_of(texts: list[str] | str, **fields: Any) -> Ask:
    body = json.dumps({"model": "the-clients-name", "input": texts, **fields}).encode()
    return ask_of()._replace(body=body)


def vectors_of(body: bytes) -> list[Any]:
    return [item["embedding"] for item in json.loads(body)["data"]]


async def test_documented_embeddings(provider: Provider, upstream: Upstream) -> None:
    upstream.script(json_reply((FIXTURES / "embed.json").read_bytes()))
    answer = await provider.embed(embedding_of(["hello", "goodbye"]))
    shown = json.loads(answer.body)
    assert upstream.requests[0].path == "/v2/embed"
    assert upstream.requests[0].json == {
        "model": "the-engine",
        "texts": ["hello", "goodbye"],
        "input_type": "search_document",
        "embedding_types": ["float"],
    }
    assert (shown["object"], shown["model"]) == ("list", "the-clients-name")
    assert [item["index"] for item in shown["data"]] == [0, 1]
    assert vectors_of(answer.body)[0] == [0.016296387, -0.008354187, -0.04699707, -0.07104492]
    assert answer.usage == Usage(input=2, status="reported")
    assert cost_of(answer.usage, EMBED_4).total == 240


async def test_embeddings_with_dimensions_and_coheres_own_parameters(
    provider: Provider, upstream: Upstream
) -> None:
    CohereStage(provider, upstream).play(Scene(vectors=((0.5, -2.0),)))
    native = {"input_type": "search_query", "truncate": "START", "max_tokens": 9, "priority": 1}
    ask = embedding_of("one", dimensions=256, encoding_format="base64", user="u", **native)
    (vector,) = vectors_of((await provider.embed(ask)).body)
    assert struct.unpack("<2f", base64.b64decode(vector)) == (0.5, -2.0)
    asked = upstream.requests[0].json
    assert asked["output_dimension"] == 256 and asked["texts"] == ["one"]
    assert {name: asked[name] for name in native} == native


async def test_more_texts_than_cohere_takes_go_in_several_requests_and_come_back_in_order(
    provider: Provider, upstream: Upstream
) -> None:
    count = 2 * TEXTS_AT_ONCE + 8
    vectors = tuple((float(at), 0.5) for at in range(count))
    CohereStage(provider, upstream).play(Scene(vectors=vectors))
    answer = await provider.embed(embedding_of([f"text {at}" for at in range(count)]))
    assert vectors_of(answer.body) == [list(vector) for vector in vectors]
    assert [item["index"] for item in json.loads(answer.body)["data"]] == list(range(count))
    texts = [request.json["texts"] for request in upstream.requests]
    assert [len(some) for some in texts] == [96, 96, 8]
    assert [one for some in texts for one in some] == [f"text {at}" for at in range(count)]
    assert answer.usage == Usage(input=2 * count, status="reported")
    assert 0 < answer.sent <= answer.first_byte


async def test_a_later_request_that_fails_leaves_the_cost_unknown(
    provider: Provider, upstream: Upstream
) -> None:
    good = {"embeddings": {"float": [[1.0]] * TEXTS_AT_ONCE}, "id": "x"}
    upstream.script(json_reply(good), json_reply({"message": "slow down"}, 429))
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_of(["x"] * (TEXTS_AT_ONCE + 1)))
    assert caught.value.info.status == 429 and not caught.value.cost_known
    upstream.script(json_reply({"message": "slow down"}, 429))
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_of(["x"]))
    assert caught.value.cost_known


async def test_embeddings_without_reported_usage_are_estimated(
    provider: Provider, upstream: Upstream
) -> None:
    CohereStage(provider, upstream).play(Scene(vectors=((1.0,),), reports_usage=False))
    assert (await provider.embed(embedding_of("x"))).usage.status == "estimated"


@pytest.mark.parametrize(
    ("texts", "fields", "param"),
    [
        ([1, 2, 3], {}, "input"),
        ([], {}, "input"),
        ("x", {"dimensions": 0}, "dimensions"),
        ("x", {"embedding_types": ["int8"]}, "embedding_types"),
    ],
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
        json_reply({"embeddings": {"float": [[1.0], [2.0]]}}),
        json_reply({"embeddings": {"float": [["a"]]}}),
        json_reply({"embeddings": {"float": [[1e300]]}}),
        json_reply({"embeddings": [[1.0]]}),
        json_reply({"message": "no credits", "id": "x"}),
    ],
)
async def test_embeddings_that_are_none_are_a_provider_error(
    provider: Provider, upstream: Upstream, reply: Reply
) -> None:
    upstream.script(reply)
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_of("x", encoding_format="base64"))
    assert (caught.value.info.status, caught.value.info.type) == (502, "provider_error")
