"""botocore at the scripted Bedrock, beside our adapter: both read the same, and ask the same."""

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, EventStreamError
from botocore.session import Session

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.bedrock_stage import (
    BEGIN,
    SIGNATURE,
    converse_answer,
    ending,
    event_stream,
    exception,
    text_block,
    thought_block,
    token_usage,
    tool_block,
)
from tests.contract.provider_contract import ask_of, outcome, read
from tests.upstream import Recorded, Upstream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Ask, Provider

KEY_ID, SECRET, TOKEN = "AKIDEXAMPLE", "secret/with+odd=signs0123456789", "session//token+=="
ENGINES = [
    "anthropic.claude-3-haiku-20240307-v1:0",
    "us.anthropic.claude-sonnet-4-20250514-v1:0",
    "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.amazon.nova-pro-v1:0",
    "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/a1b2c3d4e5f6",
]


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The adapter with an access key, as botocore has it."""
    options = {"access_key_id": KEY_ID, "secret_access_key": SECRET, "session_token": TOKEN}
    config = ProviderConfig(
        dialect="bedrock", base_url=upstream.url, region="eu-central-1", options=options
    )
    return make("acme", config, http, Clock())


@pytest.fixture
def client(upstream: Upstream) -> Iterator[Any]:
    """A client of botocore at the scripted server; it blocks, so each use has a thread."""
    made = Session().create_client(
        "bedrock-runtime",
        region_name="eu-central-1",
        endpoint_url=upstream.url,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        aws_session_token=TOKEN,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=10, proxies={}),
    )
    yield made
    made.close()


def asked(engine: str, **fields: Any) -> Ask:
    return ask_of(**fields)._replace(engine=engine)


def with_bytes(body: Any) -> Any:
    """A request as botocore takes it: blobs are bytes there."""
    if isinstance(body, list):
        return [with_bytes(one) for one in body]
    if not isinstance(body, dict):
        return body
    return {
        name: base64.b64decode(value) if name in ("bytes", "redactedContent") else with_bytes(value)
        for name, value in body.items()
    }


def resigned(request: Recorded) -> str:
    """What botocore would sign of a request as it arrived, at the time that it tells."""
    signed_names = request.headers["Authorization"].partition("SignedHeaders=")[2].split(",")[0]
    headers = {name: request.headers[name] for name in signed_names.split(";")}
    for name in ("x-amz-date", "x-amz-security-token"):
        headers.pop(name)
    again = AWSRequest(
        method=request.method,
        url=f"http://{request.headers['Host']}{request.path}",
        headers=headers,
        data=request.body,
    )
    key = Credentials(KEY_ID, SECRET, TOKEN)
    moment = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    with patch.object(botocore.auth, "get_current_datetime", lambda: moment):
        botocore.auth.SigV4Auth(key, "bedrock", "eu-central-1").add_auth(again)
    return str(again.headers["Authorization"])


@pytest.mark.parametrize("engine", [*ENGINES, "odd name/ü~*'()%2F?#"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_arrives_is_what_was_signed(
    provider: Provider, upstream: Upstream, engine: str, stream: bool
) -> None:
    upstream.script(event_stream(*ending()) if stream else json_reply(converse_answer()))
    ask = asked(engine, stream=stream, says="ünïcode")._replace(
        headers={"X-Trace": "a  b", "X-Amz-Target": "theirs", "X-Amzn-Trace-Id": "theirs"}
    )
    if stream:
        assert (await read(provider, ask)).end is not None
    else:
        await provider.complete(ask)
    (request,) = upstream.requests
    assert request.headers["Authorization"] == resigned(request)
    assert request.headers["X-Amz-Security-Token"] == TOKEN
    assert request.headers["X-Trace"] == "a  b"
    assert "theirs" not in str(request.headers)


@pytest.mark.parametrize("engine", ENGINES)
async def test_botocore_asks_for_the_same_at_the_same_place(
    provider: Provider, upstream: Upstream, client: Any, engine: str
) -> None:
    upstream.script(json_reply(converse_answer({"text": "ok"})))
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":[1,"é"]}'}}
    thought = {"type": "redacted_thinking", "data": "aGk="}
    messages = [
        {"role": "system", "content": "Be kind"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call],
            "thinking_blocks": [thought],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    schema = {"name": "x", "schema": {"type": "object"}}
    await provider.complete(
        asked(
            engine,
            messages=messages,
            tools=tools,
            tool_choice="required",
            temperature=0.25,
            max_tokens=9,
            stop="x",
            response_format={"type": "json_schema", "json_schema": schema},
            additionalModelRequestFields={"a": {"b": [1, None]}},
        )
    )
    ours = upstream.requests[0]
    await asyncio.to_thread(client.converse, modelId=engine, **with_bytes(ours.json))
    theirs = upstream.requests[1]
    assert (ours.method, ours.path) == (theirs.method, theirs.path)
    assert ours.json == theirs.json
    for name in ("Content-Type", "Host", "X-Amz-Security-Token"):
        assert ours.headers[name] == theirs.headers[name]


async def test_botocore_reads_the_same_answer(
    provider: Provider, upstream: Upstream, client: Any
) -> None:
    thought = {"reasoningText": {"text": "Hm", "signature": SIGNATURE}}
    blocks = [
        {"reasoningContent": thought},
        {"reasoningContent": {"redactedContent": "aGk="}},
        {"text": "Grüße"},
        {"toolUse": {"toolUseId": "tooluse_1", "name": "f", "input": {"a": [1, 2.5, None]}}},
    ]
    upstream.script(json_reply(converse_answer(*blocks, stop="tool_use")))
    theirs = await asyncio.to_thread(client.converse, modelId="m", messages=[])
    answer = await provider.complete(ask_of())
    message = json.loads(answer.body)["choices"][0]["message"]
    content = theirs["output"]["message"]["content"]
    assert message["content"] == content[2]["text"]
    assert message["reasoning_content"] == content[0]["reasoningContent"]["reasoningText"]["text"]
    hidden = content[1]["reasoningContent"]["redactedContent"]
    assert base64.b64decode(message["thinking_blocks"][1]["data"]) == hidden == b"hi"
    (call,) = message["tool_calls"]
    use = content[3]["toolUse"]
    assert (call["id"], call["function"]["name"]) == (use["toolUseId"], use["name"])
    assert json.loads(call["function"]["arguments"]) == use["input"]
    usage = theirs["usage"]
    assert (answer.usage.input, answer.usage.output) == (
        usage["inputTokens"],
        usage["outputTokens"],
    )
    assert theirs["stopReason"] == "tool_use" and answer.finish_reason == "tool_calls"


async def test_botocore_reads_the_same_stream(
    provider: Provider, upstream: Upstream, client: Any
) -> None:
    steps = [
        BEGIN,
        *thought_block(0, "H", "m"),
        *text_block(1, "Grü", "ße 😀"),
        *tool_block(2, "tooluse_1", "f", '{"a"', ": 1}"),
        *ending("tool_use", token_usage()),
    ]
    upstream.script(event_stream(*steps))

    def by_botocore() -> list[dict[str, Any]]:
        with closing(client.converse_stream(modelId="m", messages=[])["stream"]) as events:
            return list(events)

    theirs = await asyncio.to_thread(by_botocore)
    assert len(theirs) == len(steps), "each event of the stage is one that botocore knows"
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None
    pieces = [one["contentBlockDelta"]["delta"] for one in theirs if "contentBlockDelta" in one]
    deltas = [chunk["choices"][0]["delta"] for chunk in told.chunks]
    assert told.text() == "".join(piece.get("text", "") for piece in pieces) == "Grüße 😀"
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "".join(
        piece.get("reasoningContent", {}).get("text", "") for piece in pieces
    )
    arguments = "".join(
        call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls", ())
    )
    assert arguments == "".join(piece.get("toolUse", {}).get("input", "") for piece in pieces)
    usage = theirs[-1]["metadata"]["usage"]
    assert told.end.usage.input == usage["inputTokens"]
    assert told.end.usage.output == usage["outputTokens"]


async def test_botocore_meets_the_same_exceptions(
    provider: Provider, upstream: Upstream, client: Any
) -> None:
    upstream.script(event_stream(BEGIN, exception("throttlingException", "Too fast")))

    def stream() -> list[Any]:
        with closing(client.converse_stream(modelId="m", messages=[])["stream"]) as events:
            return list(events)

    with pytest.raises(EventStreamError, match="Too fast"):
        await asyncio.to_thread(stream)
    failure = await outcome(provider, ask_of(stream=True))
    assert (failure.info.status, failure.info.message) == (429, "Too fast")
    upstream.script(
        json_reply({"message": "No such"}, 404, {"x-amzn-ErrorType": "ResourceNotFoundException"})
    )
    with pytest.raises(ClientError, match=r"ResourceNotFoundException.*No such"):
        await asyncio.to_thread(client.converse, modelId="m", messages=[])
    failure = await outcome(provider, ask_of())
    assert (failure.info.status, failure.info.message) == (404, "No such")
