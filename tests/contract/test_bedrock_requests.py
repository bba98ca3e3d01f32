"""What the bedrock adapter asks: a chat in Converse's words, all of it valid by AWS's own model."""

import asyncio
import base64
import json
from functools import lru_cache
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.bedrock_stage import KEY, converse_answer
from tests.contract.provider_contract import ask_of, outcome
from tests.upstream import HANG, Recorded, Reply, Upstream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Ask, Provider

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()
PDF = base64.b64encode(b"%PDF-1.7").decode()
CLAUDE_4 = "us.anthropic.claude-sonnet-4-20250514-v1:0"
CLAUDE_46 = "global.anthropic.claude-opus-4-6-v1"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells the weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
CALLED = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city":"Köln"}'},
            },
            {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": ""}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
    {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "noon"}]},
    {"role": "user", "content": "And now?"},
]


@lru_cache
def converse_shape() -> Any:
    model = Loader().load_service_model("bedrock-runtime", "service-2")
    return ServiceModel(model, "bedrock-runtime").operation_model("Converse").input_shape


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    config = ProviderConfig(
        dialect="bedrock",
        base_url=upstream.url,
        api_key=KEY,
        options={"fetch_private": "true"},
    )
    return make("acme", config, http, Clock())


def to(engine: str, **fields: Any) -> Ask:
    return ask_of(**fields)._replace(engine=engine)


async def sent(provider: Provider, upstream: Upstream, ask: Ask) -> dict[str, Any]:
    """The body that goes out, which the model of the service in botocore accepts."""
    upstream.script(json_reply(converse_answer({"text": "ok"})))
    await provider.complete(ask)
    body: dict[str, Any] = upstream.requests[-1].json
    report = ParamValidator().validate({**body, "modelId": "m"}, converse_shape())
    assert not report.has_errors(), report.generate_report()
    return body


async def refused(provider: Provider, upstream: Upstream, ask: Ask) -> tuple[str, str | None]:
    """The message of a 400 for what is not sent at all, and the parameter that it names."""
    before = len(upstream.requests)
    failure = await outcome(provider, ask)
    assert (failure.info.status, failure.info.type) == (400, "invalid_request_error")
    assert not failure.reached and len(upstream.requests) == before
    return failure.info.message, failure.info.param


async def test_a_plain_chat_is_a_plain_request(provider: Provider, upstream: Upstream) -> None:
    assert await sent(provider, upstream, ask_of()) == {
        "messages": [{"role": "user", "content": [{"text": "Tell me"}]}]
    }


async def test_system_and_developer_messages_stand_apart(
    provider: Provider, upstream: Upstream
) -> None:
    messages = [
        {"role": "system", "content": "Be kind"},
        {"role": "user", "content": "Hi"},
        {
            "role": "developer",
            "content": [
                {"type": "text", "text": "Be short", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": " "},
            ],
        },
    ]
    body = await sent(provider, upstream, ask_of(messages=messages))
    assert body["system"] == [
        {"text": "Be kind"},
        {"text": "Be short"},
        {"cachePoint": {"type": "default"}},
    ]
    assert body["messages"] == [{"role": "user", "content": [{"text": "Hi"}]}]


async def test_roles_take_turns_and_blank_texts_are_left_out(
    provider: Provider, upstream: Upstream
) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": ""}]},
        {"role": "assistant", "content": "  "},
        {"role": "assistant", "content": None, "refusal": "I will not"},
        {"role": "user", "content": "c"},
    ]
    body = await sent(provider, upstream, ask_of(messages=messages))
    assert body["messages"] == [
        {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
        {"role": "assistant", "content": [{"text": "I will not"}]},
        {"role": "user", "content": [{"text": "c"}]},
    ]


async def test_calls_of_tools_and_their_results_are_blocks(
    provider: Provider, upstream: Upstream
) -> None:
    body = await sent(provider, upstream, ask_of(messages=CALLED, tools=TOOLS))
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {
                    "toolUse": {
                        "toolUseId": "call_1",
                        "name": "weather",
                        "input": {"city": "Köln"},
                    }
                },
                {"toolUse": {"toolUseId": "call_2", "name": "time", "input": {}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "call_1", "content": [{"text": "Rain"}]}},
                {"toolResult": {"toolUseId": "call_2", "content": [{"text": "noon"}]}},
                {"text": "And now?"},
            ],
        },
    ]
    spec = TOOLS[0]["function"]
    assert isinstance(spec, dict)
    assert body["toolConfig"] == {
        "tools": [
            {
                "toolSpec": {
                    "name": "weather",
                    "description": "Tells the weather",
                    "inputSchema": {"json": spec["parameters"]},
                }
            }
        ]
    }


async def test_ids_of_calls_from_elsewhere_fit(provider: Provider, upstream: Upstream) -> None:
    odd = "call/ü|" + "x" * 80
    call = {"id": odd, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": odd, "content": "b"},
    ]
    body = await sent(provider, upstream, ask_of(messages=messages, tools=TOOLS))
    used = body["messages"][1]["content"][0]["toolUse"]["toolUseId"]
    assert used == "call___" + "x" * 57
    assert body["messages"][2]["content"][0]["toolResult"]["toolUseId"] == used


@pytest.mark.parametrize("arguments", ["{", "[]", '"x"', "null", '{"a":1} {}'])
async def test_arguments_that_are_no_object_are_refused(
    provider: Provider, upstream: Upstream, arguments: str
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    message, param = await refused(provider, upstream, ask_of(messages=messages))
    assert "'c'" in message and param == "messages"


@pytest.mark.parametrize(
    ("choice", "sends"),
    [
        (None, None),
        ("auto", {"auto": {}}),
        ("required", {"any": {}}),
        ({"type": "function", "function": {"name": "weather"}}, {"tool": {"name": "weather"}}),
    ],
)
async def test_a_choice_of_tools_is_passed_on(
    provider: Provider, upstream: Upstream, choice: Any, sends: Any
) -> None:
    body = await sent(provider, upstream, ask_of(tools=TOOLS, tool_choice=choice))
    assert body["toolConfig"].get("toolChoice") == sends


async def test_without_a_choice_tools_are_left_out_unless_there_were_calls(
    provider: Provider, upstream: Upstream
) -> None:
    assert "toolConfig" not in await sent(
        provider, upstream, ask_of(tools=TOOLS, tool_choice="none")
    )
    body = await sent(provider, upstream, ask_of(messages=CALLED, tools=TOOLS, tool_choice="none"))
    assert list(body["toolConfig"]) == ["tools"]


async def test_a_tool_without_parameters_takes_an_empty_object(
    provider: Provider, upstream: Upstream
) -> None:
    functions = [{"name": "a"}, {"name": "b", "parameters": {}, "strict": True, "description": ""}]
    tools: list[dict[str, Any]] = [{"type": "function", "function": one} for one in functions]
    tools[1]["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
    body = await sent(provider, upstream, ask_of(tools=tools))
    schema = {"json": {"type": "object", "properties": {}}}
    assert body["toolConfig"]["tools"] == [
        {"toolSpec": {"name": "a", "inputSchema": schema}},
        {"toolSpec": {"name": "b", "inputSchema": schema, "strict": True}},
        {"cachePoint": {"type": "default", "ttl": "1h"}},
    ]


async def test_images_documents_and_sound_go_as_bytes(
    provider: Provider, upstream: Upstream
) -> None:
    def reply(request: Recorded) -> Reply:
        if request.path == "/remote.png":
            return Reply(headers={"Content-Type": "image/png"}, steps=(base64.b64decode(PNG),))
        return json_reply(converse_answer({"text": "ok"}))

    pdf = {
        "filename": "Annual_report (2024).pdf",
        "file_data": f"data:application/pdf;base64,{PDF}",
    }
    content = [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "image_url", "image_url": f"{upstream.url}/remote.png"},
        {"type": "image_url", "image_url": {"url": f"{upstream.url}/remote.png"}},
        {"type": "file", "file": pdf, "cache_control": {"type": "ephemeral", "ttl": "5m"}},
        {"type": "file", "file": {"file_data": f"data:text/plain;base64,{PDF}"}},
        {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
    ]
    upstream.script(reply)
    messages = [{"role": "user", "content": content}]
    await provider.complete(ask_of(messages=messages))
    assert len(upstream.requests) == 2, "the same image is fetched once"
    body = upstream.requests[-1].json
    assert not ParamValidator().validate({**body, "modelId": "m"}, converse_shape()).has_errors()
    image = {"image": {"format": "png", "source": {"bytes": PNG}}}
    assert body["messages"][0]["content"] == [
        {"text": "Look"},
        image,
        image,
        image,
        {
            "document": {
                "format": "pdf",
                "name": "Annual report (2024)",
                "source": {"bytes": PDF},
            }
        },
        {"cachePoint": {"type": "default", "ttl": "5m"}},
        {"document": {"format": "txt", "name": "document 2", "source": {"bytes": PDF}}},
        {"audio": {"format": "wav", "source": {"bytes": PNG}}},
    ]


async def test_an_image_may_be_the_result_of_a_tool(provider: Provider, upstream: Upstream) -> None:
    part = {"type": "image_url", "image_url": {"url": f"data:image/webp;base64,{PNG}"}}
    marked = {**part, "cache_control": {"type": "ephemeral"}}
    messages = [
        *CALLED[:2],
        {"role": "tool", "tool_call_id": "call_1", "content": [marked]},
    ]
    body = await sent(provider, upstream, ask_of(messages=messages, tools=TOOLS))
    image = {"image": {"format": "webp", "source": {"bytes": PNG}}}
    assert body["messages"][2]["content"] == [
        {"toolResult": {"toolUseId": "call_1", "content": [image]}},
        {"cachePoint": {"type": "default"}},
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,QUJD"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,?"}},
        {"type": "image_url", "image_url": {"url": "https://no-such-host.invalid/a.png"}},
        {"type": "image_url"},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "data:application/zip;base64,QUJD"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,?"}},
        {"type": "file"},
        {"type": "input_audio"},
        {"type": "video_url"},
    ],
)
async def test_parts_that_cannot_be_sent_are_refused(
    provider: Provider, upstream: Upstream, part: Any
) -> None:
    messages = [{"role": "user", "content": [part]}]
    assert (await refused(provider, upstream, ask_of(messages=messages)))[1] == "messages"


async def test_images_in_messages_of_the_system_and_unknown_roles_are_refused(
    provider: Provider, upstream: Upstream
) -> None:
    image = {"type": "image_url", "image_url": f"data:image/png;base64,{PNG}"}
    for message in ({"role": "system", "content": [image]}, {"role": "judge", "content": "x"}):
        assert (await refused(provider, upstream, ask_of(messages=[message])))[1] == "messages"


async def test_thoughts_with_a_signature_go_back_before_the_text(
    provider: Provider, upstream: Upstream
) -> None:
    thoughts = [
        {"type": "thinking", "thinking": "Hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "aGk="},
        {"type": "thinking", "thinking": "unsigned"},
    ]
    answer = {"role": "assistant", "content": "Yes", "thinking_blocks": thoughts}
    messages = [{"role": "user", "content": "a"}, answer, {"role": "user", "content": "b"}]
    body = await sent(provider, upstream, ask_of(messages=messages))
    assert body["messages"][1]["content"] == [
        {"reasoningContent": {"reasoningText": {"text": "Hm", "signature": "sig"}}},
        {"reasoningContent": {"redactedContent": "aGk="}},
        {"text": "Yes"},
    ]


async def test_limits_temperature_and_stops_are_the_inference_config(
    provider: Provider, upstream: Upstream
) -> None:
    fields = {"max_completion_tokens": 50, "temperature": 0.0, "top_p": 0.5, "stop": ["a", "b"]}
    body = await sent(provider, upstream, ask_of(**fields))
    assert body["inferenceConfig"] == {
        "maxTokens": 50,
        "temperature": 0.0,
        "topP": 0.5,
        "stopSequences": ["a", "b"],
    }
    body = await sent(provider, upstream, ask_of(max_tokens=7, stop="x"))
    assert body["inferenceConfig"] == {"maxTokens": 7, "stopSequences": ["x"]}


async def test_an_answer_by_a_schema_is_asked_for_in_text(
    provider: Provider, upstream: Upstream
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    asked = {"name": "thing", "description": "A thing", "schema": schema, "strict": True}
    body = await sent(
        provider, upstream, ask_of(response_format={"type": "json_schema", "json_schema": asked})
    )
    text_format = body["outputConfig"]["textFormat"]
    definition = text_format["structure"]["jsonSchema"]
    assert text_format["type"] == "json_schema"
    assert json.loads(definition.pop("schema")) == schema
    assert definition == {"name": "thing", "description": "A thing"}
    assert "outputConfig" not in await sent(
        provider, upstream, ask_of(response_format={"type": "text"})
    )


async def test_json_without_a_schema_is_refused_or_dropped(
    provider: Provider, upstream: Upstream
) -> None:
    wanted = {"type": "json_object"}
    message, param = await refused(provider, upstream, ask_of(response_format=wanted))
    assert "json_schema" in message and param == "response_format"
    body = await sent(provider, upstream, ask_of(response_format=wanted, drop_params=True))
    assert set(body) == {"messages"}


@pytest.mark.parametrize(
    ("engine", "fields", "more"),
    [
        (CLAUDE_4, {"reasoning_effort": "low"}, {"type": "enabled", "budget_tokens": 2048}),
        (
            CLAUDE_4,
            {"reasoning_effort": "high", "max_tokens": 4000},
            {"type": "enabled", "budget_tokens": 3999},
        ),
        (CLAUDE_4, {"reasoning_effort": "none"}, None),
        (CLAUDE_46, {"reasoning_effort": "high"}, {"type": "adaptive"}),
        (
            CLAUDE_4,
            {"thinking": {"type": "enabled", "budget_tokens": 1500}},
            {"type": "enabled", "budget_tokens": 1500},
        ),
    ],
)
async def test_claude_thinks_as_it_is_asked(
    provider: Provider, upstream: Upstream, engine: str, fields: dict[str, Any], more: Any
) -> None:
    body = await sent(provider, upstream, to(engine, **fields))
    assert body.get("additionalModelRequestFields", {}).get("thinking") == more
    effort = body.get("outputConfig", {}).get("effort")
    assert effort == ("high" if engine == CLAUDE_46 else None)


async def test_models_of_openai_take_the_effort_as_it_is(
    provider: Provider, upstream: Upstream
) -> None:
    body = await sent(provider, upstream, to("openai.gpt-oss-120b-1:0", reasoning_effort="low"))
    assert body["additionalModelRequestFields"] == {"reasoning_effort": "low"}


@pytest.mark.parametrize(
    ("engine", "fields", "param"),
    [
        ("amazon.nova-pro-v1:0", {"reasoning_effort": "low"}, "reasoning_effort"),
        ("amazon.nova-pro-v1:0", {"top_k": 5}, "top_k"),
        ("amazon.nova-pro-v1:0", {"thinking": {}}, "thinking"),
        (CLAUDE_4, {"reasoning_effort": "huge"}, "reasoning_effort"),
        (CLAUDE_4, {"reasoning_effort": "low", "max_tokens": 1000}, "reasoning_effort"),
        (CLAUDE_4, {"seed": 1}, "seed"),
        (CLAUDE_4, {"n": 2}, "n"),
        (CLAUDE_4, {"logprobs": True}, "logprobs"),
        (CLAUDE_4, {"presence_penalty": 0.5}, "presence_penalty"),
        (CLAUDE_4, {"parallel_tool_calls": False}, "parallel_tool_calls"),
        (CLAUDE_4, {"service_tier": "scale"}, "service_tier"),
    ],
)
async def test_what_a_model_has_no_word_for_is_refused_by_name_or_dropped(
    provider: Provider, upstream: Upstream, engine: str, fields: dict[str, Any], param: str
) -> None:
    message, named = await refused(provider, upstream, to(engine, **fields))
    assert named == param and param in message
    body = await sent(provider, upstream, to(engine, drop_params=True, **fields))
    assert set(body) <= {"messages", "inferenceConfig"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom", "function": {"name": "x"}}]}, "tools"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        ({"additionalModelRequestFields": [1]}, "additionalModelRequestFields"),
        ({"outputConfig": "x"}, "outputConfig"),
        ({"messages": "x"}, "messages"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
async def test_what_is_not_shaped_as_it_should_be_is_refused(
    provider: Provider, upstream: Upstream, fields: dict[str, Any], param: str
) -> None:
    assert (await refused(provider, upstream, ask_of(**fields)))[1] == param


async def test_bedrocks_own_fields_go_on_as_they_are_and_win(
    provider: Provider, upstream: Upstream
) -> None:
    own = {
        "guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"},
        "performanceConfig": {"latency": "optimized"},
        "serviceTier": {"type": "flex"},
        "requestMetadata": {"team": "a"},
        "promptVariables": {"name": {"text": "x"}},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
    }
    more = {"top_k": 9, "anthropic_beta": ["a"]}
    body = await sent(
        provider,
        upstream,
        to(
            CLAUDE_46,
            top_k=5,
            reasoning_effort="low",
            service_tier="priority",
            additionalModelRequestFields=more,
            outputConfig={"effort": "max"},
            **own,
        ),
    )
    assert {name: body[name] for name in own} == own
    assert body["additionalModelRequestFields"] == {**more, "thinking": {"type": "adaptive"}}
    assert body["outputConfig"] == {"effort": "max"}


@pytest.mark.parametrize(
    ("asked", "sends"), [("flex", "flex"), ("default", "default"), ("auto", "")]
)
async def test_a_service_tier_is_one_of_bedrocks(
    provider: Provider, upstream: Upstream, asked: str, sends: str
) -> None:
    body = await sent(provider, upstream, ask_of(service_tier=asked))
    assert body.get("serviceTier", {"type": ""})["type"] == sends


async def test_a_slow_image_is_given_up_with_the_call(
    provider: Provider, upstream: Upstream
) -> None:
    """Cancelling an attempt that still fetches an image closes that connection too."""
    upstream.script(Reply(before=(HANG,)))
    image = {"type": "image_url", "image_url": f"{upstream.url}/a.png"}
    ask = ask_of(messages=[{"role": "user", "content": [image]}], stream=True)
    pieces = provider.stream(ask)
    running = asyncio.ensure_future(anext(pieces))
    request = await upstream.request()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await request.gone.wait()
