"""Prompts and answers larger than a message of the bus arrive whole, both ways, also as streams."""

import base64
import hashlib
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ledger.blobs import Blobs
from ledger.connection import Connection
from ledger.publisher import Publisher
from schemas.config import BusConfig
from schemas.ids import Clock
from tests.flow.gateway import Gateway, basic, message, refusal, running_gateway, told
from tests.upstream import (
    DONE,
    Recorded,
    Reply,
    chat_answer,
    chat_chunk,
    chat_stream,
    event,
    event_stream,
    json_reply,
)

MB = 1_000_000
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("large")) as gateway:
        yield gateway


@pytest.fixture
async def inline_limit(gateway: Gateway) -> int:
    """The largest body that travels in one message of the bus."""
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    try:
        return Blobs(connection, Publisher(connection, Clock())).inline_limit
    finally:
        await connection.close()


def noise(size: int, seed: int = 1) -> str:
    """So many characters that nothing can compress or repeat by chance."""
    return base64.b64encode(random.Random(seed).randbytes(size * 3 // 4 + 3)).decode()[:size]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def image_prompt(image: str) -> dict[str, Any]:
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
    return message([{"type": "text", "text": "What is this?"}, url])


def image_of(body: bytes) -> str:
    url: str = json.loads(body)["messages"][0]["content"][1]["image_url"]["url"]
    return url.removeprefix("data:image/png;base64,")


@both
@pytest.mark.parametrize("size", [300_000, 20 * MB, 33 * MB], ids=["300 kB", "20 MB", "33 MB"])
def test_an_image_arrives_whole(gateway: Gateway, size: int, stream: bool) -> None:
    image = noise(size)
    gateway.up.script(chat_stream("A cat") if stream else json_reply(chat_answer("A cat")))
    body = basic(messages=[image_prompt(image)], stream=stream)
    assert gateway.post(json=body).status_code == 200
    assert digest(image_of(gateway.up.request.body)) == digest(image)


def test_many_large_prompts_at_once_are_not_mixed_up(gateway: Gateway) -> None:
    def answer(request: Recorded) -> Reply:
        return json_reply(chat_answer(digest(image_of(request.body))))

    gateway.up.script(answer)
    images = [noise(9 * MB, seed) for seed in range(6)]

    def ask(image: str) -> str:
        answered = gateway.post(json=basic(messages=[image_prompt(image)])).json()
        return str(answered["choices"][0]["message"]["content"])

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(ask, images)) == [digest(image) for image in images]


@pytest.mark.parametrize("beyond", [-2000, -1, 0, 1, 70_000])
def test_a_prompt_around_the_limit_of_the_bus(
    gateway: Gateway, inline_limit: int, beyond: int
) -> None:
    empty = json.dumps(basic(messages=[message("")])).encode()
    body = empty.replace(b'""', b'"%b"' % (b"x" * (inline_limit + beyond - len(empty))))
    assert len(body) == inline_limit + beyond
    gateway.up.script(json_reply(chat_answer()))
    headers = {f"X-Large-{at}": "h" * 4000 for at in range(7)}
    assert gateway.post(content=body, headers=headers).status_code == 200
    assert gateway.up.request.json["messages"] == json.loads(body)["messages"]
    assert headers.items() <= gateway.up.request.headers.items()


@pytest.mark.parametrize("size", [8_300_000, 8_400_000, 20 * MB, 60 * MB])
def test_a_large_answer_comes_whole(gateway: Gateway, size: int) -> None:
    text = noise(size)
    gateway.up.script(json_reply(chat_answer(text)))
    answer = gateway.post(json=basic()).json()
    assert digest(answer["choices"][0]["message"]["content"]) == digest(text)
    assert answer["cost"]["total_cost"] > 0


def test_an_answer_beyond_all_bounds_is_the_providers_fault(gateway: Gateway) -> None:
    gateway.up.script(json_reply(chat_answer("x" * 70 * MB)))
    error = refusal(gateway.post(json=basic()), 502, "provider_error", None)
    assert error["provider"] == "up"
    assert len(gateway.up.requests) == 1, "it would be as long the next time"


@pytest.mark.parametrize(
    ("deltas", "size"),
    [(20, 300_000), (3, 3 * MB), (2, 8_380_000), (2, 15 * MB)],
    ids=["300 kB", "3 MB", "as large as a message", "larger than a message"],
)
def test_large_deltas_come_whole_and_in_order(gateway: Gateway, deltas: int, size: int) -> None:
    texts = [noise(size, seed) for seed in range(deltas)]
    gateway.up.script(chat_stream(*texts))
    *chunks, last = told(gateway.post(json=basic(stream=True)))
    seen = [digest(chunk["choices"][0]["delta"]["content"]) for chunk in chunks]
    assert seen == [digest(text) for text in texts]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert len(gateway.up.requests) == 1


def test_a_large_last_chunk_comes_whole(gateway: Gateway) -> None:
    text = noise(10 * MB)
    last = chat_chunk({"content": text}, finish_reason="stop")
    gateway.up.script(event_stream(event(last), DONE))
    (chunk,) = told(gateway.post(json=basic(stream=True)))
    assert digest(chunk["choices"][0]["delta"]["content"]) == digest(text)


def test_an_event_beyond_all_bounds_ends_the_stream_with_an_error(gateway: Gateway) -> None:
    gateway.up.script(chat_stream("Hello", "x" * 20 * MB))
    first, error = told(gateway.post(json=basic(stream=True)))
    assert first["choices"][0]["delta"]["content"] == "Hello"
    assert error["error"]["type"] == "provider_error"
