"""The gemini adapter keeps the contract of providers, and asks as generateContent wants it."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.gemini_stage import KEY, GeminiStage, chat_answer, error_of
from tests.contract.provider_contract import (
    CLIENT_KEY,
    ProviderContract,
    Stage,
    ask_of,
    both,
    outcome,
    read,
)
from tests.token_issuer import RSA_KEY, private_pem
from tests.upstream import Recorded, Reply, Upstream, event, event_stream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Ask, Provider
from workers.providers.gemini import Gemini

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XD"
    "SwAAAABJRU5ErkJggg=="
)
GOPHER = {"type": "image_url", "image_url": "gopher:"}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}


def config_of(upstream: Upstream, **changes: Any) -> ProviderConfig:
    """AI Studio at the scripted server."""
    said = {
        "base_url": upstream.url,
        "api_key": KEY,
        "headers": {"X-Org": "ours"},
        "options": {"stored_files": "true"},
        **changes,
    }
    return ProviderConfig(dialect="gemini", **said)


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    return make("google", config_of(upstream), http, Clock())


@pytest.fixture
def vertex(upstream: Upstream, http: Http) -> Provider:
    """Vertex AI at the scripted server, with a token that does not change."""
    options = {
        "project": "acme",
        "access_token": "ya29.token-0123456789",
        "stored_files": "true",
    }
    config = config_of(upstream, api_key="", options=options)
    return make("vertex", config, http, Clock())


class TestGemini(ProviderContract):
    arguments_in_pieces = False

    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        yield GeminiStage(provider, upstream)


async def sent(provider: Provider, upstream: Upstream, ask: Ask) -> Any:
    """The body that goes out for this chat."""
    upstream.script(json_reply(chat_answer({"text": "x"})))
    await provider.complete(ask)
    return upstream.requests[-1].json


async def asked(
    provider: Provider, upstream: Upstream, engine: str = "gemini-2.5-flash", **fields: Any
) -> Any:
    return await sent(provider, upstream, ask_of(**fields)._replace(engine=engine))


async def test_a_chat_goes_to_its_model_with_the_gateways_key(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply(chat_answer({"text": "x"})))
    client = {"X-Trace": "abc", "Authorization": "Bearer theirs", "X-Goog-Api-Key": "theirs"}
    await provider.complete(ask_of(client))
    upstream.script(event_stream(event(chat_answer({"text": "x"}))))
    await read(provider, ask_of(stream=True))
    whole, stream = upstream.requests
    assert whole.path == "/models/the-engine:generateContent"
    assert stream.path == "/models/the-engine:streamGenerateContent?alt=sse"
    assert whole.json == {"contents": [{"role": "user", "parts": [{"text": "Tell me"}]}]}
    assert whole.json == stream.json
    assert whole.headers["x-goog-api-key"] == KEY
    assert (whole.headers["X-Trace"], whole.headers["X-Org"]) == ("abc", "ours")
    assert not {"Authorization", "Cookie"} & set(whole.headers)


@pytest.mark.parametrize(
    ("engine", "path"),
    [
        ("models/gemini-2.5-flash", "/models/gemini-2.5-flash:generateContent"),
        ("tunedModels/mine", "/tunedModels/mine:generateContent"),
        ("../../files", "/models/..%2F..%2Ffiles:generateContent"),
        ("a?b#c", "/models/a%3Fb%23c:generateContent"),
        ("", "/models/the-clients-name:generateContent"),
    ],
)
async def test_a_models_name_stays_within_its_place_in_the_path(
    provider: Provider, upstream: Upstream, engine: str, path: str
) -> None:
    await sent(provider, upstream, ask_of()._replace(engine=engine))
    assert upstream.requests[0].path == path


async def test_a_conversation_with_calls_and_results(
    provider: Provider, upstream: Upstream
) -> None:
    google = {"google": {"thought_signature": "c2ln"}}

    def called(number: int, arguments: str, **more: Any) -> dict[str, Any]:
        function = {"name": f"f{number}", "arguments": arguments}
        return {"id": f"call_{number}", "type": "function", "function": function, **more}

    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "Hm.",
            "tool_calls": [
                called(1, '{"city": "Paris", "big": 12345678901234567890}', extra_content=google),
                called(2, ""),
            ],
        },
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "rain"}]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"t": 21}'},
        {"role": "assistant", "content": "Warm.", "extra_content": google},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "Thanks"},
    ]
    body = await asked(provider, upstream, messages=messages)
    assert body == {
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Weather?"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "I look."},
                    {
                        "functionCall": {
                            "id": "call_1",
                            "name": "f1",
                            "args": {"city": "Paris", "big": 12345678901234567890},
                        },
                        "thoughtSignature": "c2ln",
                    },
                    {"functionCall": {"id": "call_2", "name": "f2", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "call_1", "name": "f1", "response": {"t": 21}}},
                    {
                        "functionResponse": {
                            "id": "call_2",
                            "name": "f2",
                            "response": {"output": "rain"},
                        }
                    },
                ],
            },
            {"role": "model", "parts": [{"text": "Warm.", "thoughtSignature": "c2ln"}]},
            {"role": "user", "parts": [{"text": "Thanks"}]},
        ],
    }


async def test_vertex_knows_no_ids_of_calls_and_newer_models_want_a_signature(
    vertex: Provider, upstream: Upstream
) -> None:
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": f"toolu_{n}", "type": "function", "function": function} for n in (1, 2)]
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "a"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "[1]"},
    ]
    body = await asked(vertex, upstream, "gemini-3-pro-preview", messages=messages)
    assert body["contents"][1:] == [
        {
            "role": "model",
            "parts": [
                {
                    "functionCall": {"name": "f", "args": {}},
                    "thoughtSignature": "skip_thought_signature_validator",
                },
                {"functionCall": {"name": "f", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"output": "a"}}},
                {"functionResponse": {"name": "f", "response": {"output": "[1]"}}},
            ],
        },
    ]


async def test_images_sounds_and_files_go_as_bytes_or_as_googles_own(
    vertex: Provider, upstream: Upstream
) -> None:
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "image_url", "image_url": "gs://bucket/cat.jpg"},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg=="}},
        {"type": "file", "file": {"file_data": "YSxi", "filename": "table.csv"}},
        {"type": "file", "file": {"file_id": "gs://bucket/film.mp4"}},
    ]
    body = await asked(vertex, upstream, messages=[{"role": "user", "content": content}])
    assert body["contents"][0]["parts"] == [
        {"text": "What is this?"},
        {"inlineData": {"mimeType": "image/png", "data": PIXEL}},
        {"fileData": {"fileUri": "gs://bucket/cat.jpg", "mimeType": "image/jpeg"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}},
        {"inlineData": {"mimeType": "text/csv", "data": "YSxi"}},
        {"fileData": {"fileUri": "gs://bucket/film.mp4", "mimeType": "video/mp4"}},
    ]


async def test_a_remote_image_is_fetched_and_its_bytes_are_sent(
    http: Http, upstream: Upstream
) -> None:
    def reply(request: Recorded) -> Reply:
        if request.method == "GET":
            return Reply(headers={"Content-Type": "image/png"}, steps=(base64.b64decode(PIXEL),))
        return json_reply(chat_answer({"text": "x"}))

    upstream.script(reply)
    config = config_of(upstream, options={"fetch_private": "true"})
    image = {"type": "image_url", "image_url": {"url": f"{upstream.url}/cat.png"}}
    ask = ask_of(messages=[{"role": "user", "content": [image]}])
    await make("google", config, http, Clock()).complete(ask)
    fetched, chat = upstream.requests
    assert fetched.path == "/cat.png" and "x-goog-api-key" not in fetched.headers
    assert chat.json["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": PIXEL}}
    ]


async def test_every_parameter_has_its_word(provider: Provider, upstream: Upstream) -> None:
    body = await asked(
        provider,
        upstream,
        max_completion_tokens=99,
        max_tokens=1000,
        temperature=0,
        top_p=0.5,
        top_k=40,
        stop=["a", "b"],
        n=2,
        seed=7,
        presence_penalty=0.25,
        frequency_penalty=-0.25,
        logprobs=True,
        top_logprobs=3,
        modalities=["text", "image"],
        response_format={"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}},
        generationConfig={"maxOutputTokens": 5, "candidateCount": 8, "mediaResolution": "LOW"},
        safety_settings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        cachedContent="cachedContents/x",
        user="ann",
    )
    del body["contents"]
    assert body == {
        "generationConfig": {
            "maxOutputTokens": 99,
            "temperature": 0,
            "topP": 0.5,
            "topK": 40,
            "stopSequences": ["a", "b"],
            "candidateCount": 2,
            "seed": 7,
            "presencePenalty": 0.25,
            "frequencyPenalty": -0.25,
            "responseLogprobs": True,
            "logprobs": 3,
            "responseModalities": ["TEXT", "IMAGE"],
            "responseMimeType": "application/json",
            "responseJsonSchema": WEATHER,
            "mediaResolution": "LOW",
        },
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        "cachedContent": "cachedContents/x",
    }


async def test_a_schema_goes_as_it_was_written(provider: Provider, upstream: Upstream) -> None:
    schema = b'{"$defs":{"A":{"type":["string","null"]}},"$ref":"#/$defs/A","x":1.10}'
    wanted = b'{"type":"json_schema","json_schema":{"name":"a","strict":true,"schema":%b}}' % schema
    body = b'{"messages":[{"role":"user","content":"x"}],"response_format":%b}' % wanted
    await sent(provider, upstream, ask_of()._replace(body=body))
    assert b'"responseJsonSchema":' + schema in upstream.requests[0].body
    body = body.replace(wanted, b'{"type":"json_object"}')
    assert (await sent(provider, upstream, ask_of()._replace(body=body)))["generationConfig"] == {
        "responseMimeType": "application/json"
    }


@pytest.mark.parametrize(
    ("choice", "calling"),
    [
        ("auto", {"mode": "AUTO"}),
        ("required", {"mode": "ANY"}),
        ("none", {"mode": "NONE"}),
        (
            {"type": "function", "function": {"name": "get_weather"}},
            {"mode": "ANY", "allowedFunctionNames": ["get_weather"]},
        ),
    ],
)
async def test_tools_and_which_of_them_to_call(
    provider: Provider, upstream: Upstream, choice: Any, calling: dict[str, Any]
) -> None:
    bare = {"type": "function", "function": {"name": "now", "description": "The time"}}
    body = await asked(provider, upstream, tools=[TOOL, bare], tool_choice=choice)
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "get_weather", "parametersJsonSchema": WEATHER},
                {"name": "now", "description": "The time"},
            ]
        }
    ]
    assert body["toolConfig"] == {"functionCallingConfig": calling}


async def test_googles_own_tools_go_beside_functions(
    provider: Provider, upstream: Upstream
) -> None:
    search = {"googleSearch": {"excludeDomains": ["a.example"]}}
    near = {"retrievalConfig": {"latLng": {"latitude": 1.5, "longitude": 2}}}
    body = await asked(provider, upstream, tools=[search, {"urlContext": {}}])
    assert body["tools"] == [search, {"urlContext": {}}] and "toolConfig" not in body
    body = await asked(
        provider, upstream, tools=[search, TOOL], toolConfig=near, tool_choice="auto"
    )
    own = {"functionCallingConfig": {"mode": "VALIDATED", "streamFunctionCallArguments": True}}
    declared = {"functionDeclarations": [{"name": "get_weather", "parametersJsonSchema": WEATHER}]}
    assert body["tools"] == [declared, search]
    assert body["toolConfig"] == {**near, "functionCallingConfig": {"mode": "AUTO"}}
    body = await asked(provider, upstream, tools=[TOOL], toolConfig=own)
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}


@pytest.mark.parametrize(
    ("engine", "effort", "thinking"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0, "includeThoughts": False}),
        ("gemini-2.5-flash", "minimal", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-flash-lite", "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-flash", "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
        ("gemini-2.5-pro", "high", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-2.5-pro", "xhigh", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128, "includeThoughts": False}),
        ("gemini-3-pro-preview", "none", {"thinkingLevel": "LOW", "includeThoughts": False}),
        ("gemini-3-pro-preview", "medium", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-3.1-pro", "medium", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-3-flash", "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-flash-latest", "low", {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3.5-flash", "high", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-2.0-flash", "none", None),
        ("gemini-" + "9" * 5000, "low", {"thinkingLevel": "LOW", "includeThoughts": True}),
    ],
)
async def test_an_effort_is_a_budget_or_a_level_by_the_models_family(
    provider: Provider, upstream: Upstream, engine: str, effort: str, thinking: Any
) -> None:
    body = await asked(provider, upstream, engine, reasoning_effort=effort)
    assert body.get("generationConfig", {}).get("thinkingConfig") == thinking


@both
@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("logit_bias", {"logit_bias": {"1": 5}}),
        ("parallel_tool_calls", {"parallel_tool_calls": False}),
        ("service_tier", {"service_tier": "flex"}),
        ("verbosity", {"verbosity": "low"}),
        ("reasoning_effort", {"reasoning_effort": "utmost"}),
        ("tool_choice", {"tool_choice": "sometimes", "tools": [TOOL]}),
        ("generationConfig", {"generationConfig": 1}),
        ("toolConfig", {"toolConfig": []}),
        ("functionCallingConfig", {"toolConfig": {"functionCallingConfig": 1}, "tools": [TOOL]}),
        ("response_format", {"response_format": {"type": "grammar"}}),
        ("modalities", {"modalities": [1]}),
        ("tools", {"tools": [{"type": "web_search"}]}),
        ("messages", {"messages": []}),
        ("messages", {"messages": [{"role": "user", "content": ""}]}),
        ("messages", {"messages": [{"role": "oracle", "content": "x"}]}),
        ("messages", {"messages": [{"role": "tool", "tool_call_id": "a", "content": "x"}]}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "input_video"}]}]}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        (
            "messages",
            {"messages": [{"role": "user", "content": [GOPHER]}]},
        ),
        (
            "messages",
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"arguments": "[1]"}}]}
                ]
            },
        ),
    ],
)
async def test_what_cannot_be_said_is_refused_by_name(
    provider: Provider, upstream: Upstream, stream: bool, param: str, fields: dict[str, Any]
) -> None:
    failure = await outcome(provider, ask_of(stream=stream, **fields))
    assert (failure.info.status, failure.info.param) == (400, param)
    assert not failure.reached and not upstream.requests


async def test_gemma_takes_its_instructions_from_the_user(
    provider: Provider, upstream: Upstream
) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    body = await asked(provider, upstream, "gemma-3-27b-it", messages=messages)
    assert body == {
        "contents": [
            {"role": "user", "parts": [{"text": "Be brief."}]},
            {"role": "user", "parts": [{"text": "Hi"}]},
        ]
    }


async def test_gs_uris_are_for_vertex(provider: Provider) -> None:
    part = {"type": "image_url", "image_url": {"url": "gs://bucket/cat.jpg"}}
    failure = await outcome(provider, ask_of(messages=[{"role": "user", "content": [part]}]))
    assert failure.info.status == 400 and "Vertex AI" in failure.info.message


def stored(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (stored({"type": "image_url", "image_url": "gs://bucket/theirs.jpg"}), "messages"),
        (stored({"type": "file", "file": {"file_id": "gs://bucket/theirs.pdf"}}), "messages"),
        (stored({"type": "file", "file": {"file_id": "files/theirs"}}), "messages"),
        ({"cachedContent": "cachedContents/theirs"}, "cachedContent"),
        ({"cached_content": "cachedContents/theirs"}, "cached_content"),
    ],
)
async def test_nobody_reads_with_our_key_what_others_have_stored_at_google(
    http: Http, upstream: Upstream, body: dict[str, Any], param: str
) -> None:
    options = {"project": "acme", "access_token": "ya29.token-0123456789"}
    ours = make("vertex", config_of(upstream, api_key="", options=options), http, Clock())
    failure = await outcome(ours, ask_of(**body))
    assert (failure.info.status, failure.info.param) == (400, param)
    assert upstream.requests == []
    upstream.script(json_reply(chat_answer({"text": "x"})))
    await ours.complete(ask_of(**body)._replace(credential=CLIENT_KEY))
    assert len(upstream.requests) == 1


async def test_an_effort_for_a_model_that_cannot_think_is_refused_or_dropped(
    provider: Provider, upstream: Upstream, http: Http
) -> None:
    old = ask_of(reasoning_effort="low")._replace(engine="gemini-2.0-flash")
    failure = await outcome(provider, old)
    assert (failure.info.status, failure.info.param) == (400, "reasoning_effort")
    body = await asked(
        provider, upstream, "gemini-2.0-flash", reasoning_effort="low", drop_params=True
    )
    assert set(body) == {"contents"}


async def test_what_cannot_be_said_is_dropped_where_that_is_wished(
    provider: Provider, upstream: Upstream, http: Http
) -> None:
    odd = {"logit_bias": {"1": 5}, "parallel_tool_calls": False, "seed": 1}
    for_all = make("google", config_of(upstream, drop_params=True), http, Clock())
    for body in (
        await asked(provider, upstream, drop_params=True, **odd),
        await asked(for_all, upstream, **odd),
    ):
        assert body["generationConfig"] == {"seed": 1} and set(body) == {
            "contents",
            "generationConfig",
        }


async def test_a_system_prompt_alone_is_asked_as_the_users(
    provider: Provider, upstream: Upstream
) -> None:
    body = await asked(provider, upstream, messages=[{"role": "system", "content": "Hi"}])
    assert body == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


@both
async def test_the_clients_own_key_goes_in_place_of_all_that_is_the_gateways(
    http: Http, upstream: Upstream, stream: bool
) -> None:
    headers = {"x-goog-user-project": "ours", "X-Copy": f"key={KEY}", "X-Region": "eu"}
    provider = make("google", config_of(upstream, headers=headers), http, Clock())
    answer = chat_answer({"text": "x"})
    upstream.script(event_stream(event(answer)) if stream else json_reply(answer))
    ask = ask_of({"X-Goog-User-Project": "theirs"}, stream=stream)
    ask = ask._replace(credential=CLIENT_KEY)
    if stream:
        assert (await read(provider, ask)).end is not None
    else:
        await provider.complete(ask)
    got = upstream.requests[0].headers
    assert got["x-goog-api-key"] == CLIENT_KEY
    assert (got["x-goog-user-project"], got["X-Region"]) == ("theirs", "eu")
    assert "X-Copy" not in got and "Authorization" not in got
    assert not any(KEY in value or value == "ours" for value in got.values())


@both
@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
async def test_no_failure_shows_a_key_wherever_google_puts_it(
    provider: Provider, upstream: Upstream, stream: bool, status: int
) -> None:
    upstream.script(json_reply(error_of(status, f"No: {CLIENT_KEY} and {KEY}."), status))
    for key in ("", CLIENT_KEY):
        failure = await outcome(provider, ask_of(stream=stream)._replace(credential=key))
        assert KEY not in repr(failure.info)
        assert not key or "own+key" not in repr(failure.info)


async def test_vertex_asks_with_a_token_of_its_service_account(
    http: Http, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reply(request: Recorded) -> Reply:
        if request.path == "/token":
            return json_reply({"access_token": "ya29.fetched", "expires_in": 3600})
        return json_reply(chat_answer({"text": "x"}))

    upstream.script(reply)
    account = {
        "client_email": "robot@acme.iam.gserviceaccount.com",
        "private_key": private_pem(RSA_KEY),
        "token_uri": f"{upstream.url}/token",
    }
    key_file = tmp_path / "account.json"
    key_file.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    config = config_of(upstream, api_key="", options={"project": "acme"})
    provider = make("vertex", config, http, Clock())
    await provider.complete(ask_of({"X-Goog-Api-Key": "theirs"}))
    await provider.complete(ask_of())
    await provider.close()
    token, *chats = upstream.requests
    assert token.path == "/token" and len(chats) == 2
    for chat in chats:
        assert chat.headers["Authorization"] == "Bearer ya29.fetched"
        assert "x-goog-api-key" not in chat.headers


async def test_a_token_that_cannot_be_had_fails_the_attempt_before_it_is_asked(
    http: Http, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script(json_reply({"error": "invalid_grant"}, 400))
    account = {
        "client_email": "robot@acme",
        "private_key": private_pem(RSA_KEY),
        "token_uri": upstream.url,
    }
    key_file = tmp_path / "account.json"
    key_file.write_text(json.dumps(account))
    options = {"project": "acme", "credentials_file": str(key_file)}
    provider = make("vertex", config_of(upstream, api_key="", options=options), http, Clock())
    for stream in (False, True):
        failure = await outcome(provider, ask_of(stream=stream))
        assert (failure.info.status, failure.info.code) == (502, "provider_auth")
        assert not failure.reached and failure.cost_known and failure.falls_back


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "https://generativelanguage.googleapis.com/v1beta/models/m:x"),
        (
            {"base_url": "http://127.0.0.1:9/gemini/v1beta/"},
            "http://127.0.0.1:9/gemini/v1beta/models/m:x",
        ),
        (
            {"options": {"project": "acme", "access_token": "t"}},
            "https://aiplatform.googleapis.com/v1/projects/acme/locations/global/publishers/google/models/m:x",
        ),
        (
            {"options": {"project": "acme", "access_token": "t"}, "region": "europe-west4"},
            "https://europe-west4-aiplatform.googleapis.com/v1/projects/acme/locations/europe-west4/publishers/google/models/m:x",
        ),
        (
            {"options": {"project": "acme", "access_token": "t"}, "region": "eu"},
            "https://aiplatform.eu.rep.googleapis.com/v1/projects/acme/locations/eu/publishers/google/models/m:x",
        ),
    ],
)
async def test_where_the_models_are(http: Http, changes: dict[str, Any], url: str) -> None:
    provider = make("google", ProviderConfig(dialect="gemini", **changes), http, Clock())
    assert isinstance(provider, Gemini)
    ask = ask_of()._replace(engine="m")
    assert provider.url(ask, "x") == url
    own = provider.url(ask._replace(credential=CLIENT_KEY), "x")
    if "options" in changes:
        assert own == "https://aiplatform.googleapis.com/v1/publishers/google/models/m:x"
    else:
        assert own == url


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        ("base_url", {"base_url": "localhost:80"}),
        ("base_url", {"base_url": "https://h/v1?key=x"}),
        ("options.project", {"region": "us-central1"}),
        ("options.project", {"options": {"credentials_file": "x"}}),
        ("region", {"region": "a.b/c", "options": {"project": "acme", "access_token": "t"}}),
        ("options.credentials_file", {"options": {"project": "acme"}}),
        ("options.credentials_file", {"options": {"project": "a", "credentials_file": "/none"}}),
        ("options.fetch_private", {"options": {"fetch_private": "maybe"}}),
    ],
)
async def test_a_wrong_setting_is_named(
    http: Http, setting: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(ValueError, match=rf"providers\.acme\.{setting}"):
        make("acme", ProviderConfig(dialect="gemini", **changes), http, Clock())
