"""Any bytes and any JSON give an answer, and of all that this folder sent nothing is left open."""

import asyncio
import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.connection import Connection
from ledger.reader import Stored, read_subject
from schemas import subjects
from schemas.config import BusConfig
from schemas.events import RequestStart, Terminal, decode_event
from tests.flow.bad_input.bodies import CHAT, GOOD, INVALID, SIZE, serves
from tests.flow.gateway import Gateway

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = (
    "messages", "model", "stream", "stream_options", "temperature", "top_p", "max_tokens", "n",
    "frequency_penalty", "presence_penalty", "max_completion_tokens", "tools", "tool_choice",
    "logprobs", "stop", "response", "routing", "budget", "response_format", "user", "seed",
)  # fmt: skip
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "tool", "x"])},
        optional={"content": documents, "tool_calls": documents, "name": documents},
    ),
    min_size=1,
    max_size=3,
)
nearly_good = st.builds(
    lambda fields, texts: {"model": "mock", "messages": texts, **fields},
    st.dictionaries(st.sampled_from(FIELDS), documents, max_size=3),
    messages,
)
often = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def survives(client: httpx.Client, body: bytes) -> None:
    response = client.post(CHAT, content=body, timeout=5)
    if response.status_code == 200:
        return
    assert 400 <= response.status_code < 500, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code", "provider", "request_id"}
    assert error["type"] == INVALID and error["request_id"] == response.headers["x-request-id"]


@often
@given(body=nearly_good)
def test_any_value_of_any_field(client: httpx.Client, body: Any) -> None:
    survives(client, json.dumps(body).encode())


@often
@given(body=documents)
def test_any_json(client: httpx.Client, body: Any) -> None:
    survives(client, json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@often
@given(body=st.binary(max_size=300))
def test_any_bytes(client: httpx.Client, body: bytes) -> None:
    survives(client, body)


@often
@given(data=st.data())
def test_a_good_body_with_a_byte_changed(client: httpx.Client, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, SIZE - 1))
    byte = data.draw(st.integers(0, 255))
    survives(client, GOOD[:at] + bytes([byte]) + GOOD[at + 1 :])


async def test_whatever_was_let_in_has_ended(gateway: Gateway, client: httpx.Client) -> None:
    """The last test of this folder: the ledger knows no call without an end, the queue is empty."""
    assert serves(client)
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")

    async def left_open() -> set[str]:
        records = await read_subject(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
        events = [decode_event(record.data) for record in records]
        begun = {event.call_id for event in events if isinstance(event, RequestStart)}
        ended = [event.call_id for event in events if isinstance(event, Terminal)]
        assert begun and len(ended) == len(set(ended))
        return begun.difference(ended)

    async def waiting() -> list[Stored]:
        return await read_subject(connection, subjects.WORK, subjects.WORK_SUBJECTS)

    try:
        async with asyncio.timeout(10):
            while True:
                if not await left_open() and not await waiting():
                    break
                await asyncio.sleep(0.05)
    finally:
        await connection.close()
