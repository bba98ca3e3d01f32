"""Embeddings through the whole gateway: asked with the OpenAI SDK, measured, billed and refused."""

import asyncio
import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from ledger.connection import Connection
from ledger.reader import read_subject
from schemas import subjects
from schemas.config import BusConfig
from schemas.events import RequestStart, decode_event
from tests.flow.gateway import KEY, Gateway, refusal, running_gateway, until
from tests.ledger_facts import ends
from tests.upstream import json_reply

BUDGETS = """
  embedder: {provider: up, engine: embed-1, input_cost: 0.00000002, output_cost: 0}
budgets:
  - {scope: global, period: day, limit_usd: 5}
"""
PATHS = ["/v1/embeddings", "/ai/v1/embeddings", "/api/v1/embeddings"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("embeddings"), BUDGETS) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def vectors(*rows: list[float], as_base64: bool = False, tokens: int = 8) -> dict[str, Any]:
    """OpenAI's answer."""
    packed = [base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode() for row in rows]
    shown: Any = packed if as_base64 else rows
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(shown)
        ],
        "model": "embed-1-2026",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def test_texts_come_back_as_vectors_in_their_order(gateway: Gateway, client: OpenAI) -> None:
    gateway.up.script(json_reply(vectors([0.5, -0.25], [1.0, 0.0], as_base64=True)))
    answer = client.embeddings.create(model="embedder", input=["Hello world", "Goodbye world"])
    assert [one.embedding for one in answer.data] == [[0.5, -0.25], [1.0, 0.0]]
    assert (answer.model, answer.usage.prompt_tokens) == ("embedder", 8)
    arrived = gateway.up.request
    assert arrived.path == "/v1/embeddings"
    assert arrived.json == {
        "model": "embed-1",
        "input": ["Hello world", "Goodbye world"],
        "encoding_format": "base64",
    }


@pytest.mark.parametrize("path", PATHS)
def test_plain_numbers_come_with_their_cost(gateway: Gateway, path: str) -> None:
    gateway.up.script(json_reply(vectors([0.5, 0.5], tokens=1000)))
    answer = gateway.post(path, json={"model": "embedder", "input": "Hello", "dimensions": 2})
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["data"][0]["embedding"] == [0.5, 0.5]
    assert shown["usage"] == {"prompt_tokens": 1000, "total_tokens": 1000}
    assert shown["cost"]["total_cost"] == 0.00002
    assert shown["provider"] == "up"
    assert gateway.up.request.json["dimensions"] == 2


def test_the_ledger_has_them_as_embeddings_and_the_hold_ends(gateway: Gateway) -> None:
    gateway.up.script(json_reply(vectors([0.5], tokens=100)))
    answer = gateway.post(PATHS[0], json={"model": "embedder", "input": "x" * 400})
    call_id = answer.headers["x-request-id"].removeprefix("req_")
    events: list[Any] = []

    def ended() -> bool:
        events[:] = asyncio.run(_facts(gateway, call_id))
        return bool(ends(events))

    until(ended)
    (start,) = (event for event in events if isinstance(event, RequestStart))
    (end,) = ends(events)
    assert start.operation == end.operation == "embeddings"
    # 400 bytes are at most 400 tokens, beside what a template may add; a token costs 20 nano.
    assert 400 * 20 <= start.hold_nano <= 600 * 20
    assert end.cost_nano == 100 * 20
    assert end.prompt_estimate == 104


async def _facts(gateway: Gateway, call_id: str) -> list[Any]:
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    try:
        stored = await read_subject(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
    finally:
        await connection.close()
    events = [decode_event(record.data) for record in stored]
    return [event for event in events if getattr(event, "call_id", "") == call_id]


def test_without_reported_usage_it_is_estimated(gateway: Gateway) -> None:
    silent = vectors([0.5])
    del silent["usage"]
    gateway.up.script(json_reply(silent))
    shown = gateway.post(PATHS[0], json={"model": "embedder", "input": ["abcd" * 10, [1, 2]]})
    assert shown.json()["usage"] == {"prompt_tokens": 12, "total_tokens": 12}


def test_the_mock_embeds_the_same_text_the_same(client: OpenAI) -> None:
    texts = ["a cat sat", "a cat sat", "a cat sat down", "bread"]
    answer = client.embeddings.create(model="mock", input=texts, dimensions=64)
    one, same, near, far = (row.embedding for row in answer.data)
    assert one == same and len(one) == 64

    def alike(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert alike(one, one) == pytest.approx(1, abs=1e-6)
    assert alike(one, near) > alike(one, far)
    assert answer.usage.prompt_tokens == 11


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"model": "mock"}, "input", "missing_input"),
        ({"input": "x"}, "model", "missing_model"),
        ({"model": "mock", "input": ""}, "input", "invalid_value"),
        ({"model": "mock", "input": []}, "input", "invalid_value"),
        ({"model": "mock", "input": [""]}, "input", "invalid_value"),
        ({"model": "mock", "input": [[]]}, "input", "invalid_value"),
        ({"model": "mock", "input": [-1]}, "input", "invalid_value"),
        ({"model": "mock", "input": {"text": "x"}}, "input", "invalid_value"),
        ({"model": "mock", "input": "x", "dimensions": 0}, "dimensions", "invalid_value"),
        ({"model": "mock", "input": "x", "dimensions": 10**9}, "dimensions", "invalid_value"),
        ({"model": "mock", "input": "x", "encoding_format": "hex"}, "encoding_format", None),
        ({"model": "mock", "input": "x", "stream": True}, "stream", "invalid_value"),
        ({"model": "mock", "input": "x", "budget": {"max": 1}}, "budget.max", "invalid_value"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(
    gateway: Gateway, body: dict[str, Any], param: str, code: str | None
) -> None:
    answer = gateway.post(PATHS[0], content=json.dumps(body).encode())
    error = refusal(answer, 400, "invalid_request_error", code or "invalid_value")
    assert error["param"] == param


def test_a_refusal_of_the_provider_reaches_the_client(gateway: Gateway, client: OpenAI) -> None:
    gateway.up.script(json_reply({"error": {"message": "Too long", "param": "input"}}, 400))
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="embedder", input="x")
    assert caught.value.param == "input"


def test_a_chat_where_embeddings_should_be_is_a_broken_answer(
    gateway: Gateway, client: OpenAI
) -> None:
    gateway.up.script(json_reply({"object": "chat.completion", "choices": []}))
    with pytest.raises(openai.InternalServerError) as caught:
        client.embeddings.create(model="embedder", input="x")
    assert caught.value.status_code == 502


def test_max_cost_is_kept(gateway: Gateway) -> None:
    asked = {"model": "embedder", "input": "x" * 10_000, "budget": {"max_cost": 0.0001}}
    answer = gateway.post(PATHS[0], json=asked)
    refusal(answer, 400, "invalid_request_error", "max_cost_exceeded")
