"""Chat completions as a client meets them: paths, what passes through, extensions, access."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flow.gateway import (
    ADMIN,
    KEY,
    OTHER_KEY,
    ROOT,
    UP_KEY,
    Gateway,
    basic,
    message,
    refusal,
    running_gateway,
    told,
    until,
)
from tests.upstream import (
    DONE,
    chat_answer,
    chat_chunk,
    chat_stream,
    event,
    event_stream,
    json_reply,
    usage,
)

CHAT = "/v1/chat/completions"
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("chat")) as gateway:
        yield gateway


def play(gateway: Gateway, stream: bool, *texts: str) -> None:
    """The upstream answers with these texts, whole or as one chunk for each."""
    whole = json_reply(chat_answer("".join(texts)))
    gateway.up.script(chat_stream(*texts) if stream else whole)


def said(response: httpx.Response, stream: bool) -> str:
    if not stream:
        return str(response.json()["choices"][0]["message"]["content"])
    deltas = [chunk["choices"][0]["delta"] for chunk in told(response)]
    return "".join(delta.get("content", "") for delta in deltas)


@both
@pytest.mark.parametrize("prefix", ["/v1", "/ai/v1", "/api/v1"])
def test_every_prefix_serves_chat(gateway: Gateway, prefix: str, stream: bool) -> None:
    play(gateway, stream, "Hel", "lo")
    response = gateway.post(f"{prefix}/chat/completions", json=basic(stream=stream))
    assert response.status_code == 200
    assert said(response, stream) == "Hello"


@both
@pytest.mark.parametrize(
    ("path", "name", "engine"),
    [
        ("up-model", "up-model", "engine-1"),
        ("up/other", "up/other", "org/engine-2"),
        ("up%2Fother", "up/other", "org/engine-2"),
        ("spaced%20name%2C%20100%25", "spaced name, 100%", "engine-3"),
        ("up/some/thing:free", "up/some/thing:free", "some/thing:free"),
        ("up-model?model=mock", "up-model", "engine-1"),
    ],
)
def test_the_model_may_be_named_by_the_path(
    gateway: Gateway, path: str, name: str, engine: str, stream: bool
) -> None:
    play(gateway, stream, "Hello")
    body = {"model": "of the body", "messages": [message("Hi")], "stream": stream}
    for fields in (body, {k: v for k, v in body.items() if k != "model"}):
        response = gateway.post(f"/proxy/{path}", json=fields)
        assert said(response, stream) == "Hello"
        answer = told(response)[0] if stream else response.json()
        assert answer["model"] == name
    assert [request.json["model"] for request in gateway.up.requests] == [engine, engine]


def test_what_the_gateway_does_not_use_arrives_byte_for_byte(gateway: Gateway) -> None:
    unused = (
        '"seed":123456789012345678901234567890,"top_k":1.00000000000000000001,'
        '"tiny":1e-999,"logit_bias":{"50256":-100,"50256":7},'
        '"unknown":{"deep":[null,true,{"é\\u00e9\\n":"\\ud83d\\ude00"}] ,"x" : 1.50}'
    )
    sent = (
        '{ "temperature" : 0.70,"messages": [ {"role":"user","content":"Hi \\u0000","name":"n",'
        f'"vendor_part":[1.0]}} ] ,{unused},"model":"up-model","n":2}}'
    )
    play(gateway, False, "Hello")
    assert gateway.post(content=sent.encode()).status_code == 200
    arrived = gateway.up.request.body.decode()
    assert arrived == (
        '{"temperature":0.70,"messages":[ {"role":"user","content":"Hi \\u0000","name":"n",'
        f'"vendor_part":[1.0]}} ],{unused},"model":"engine-1","n":2}}'
    )


def test_every_known_parameter_arrives(gateway: Gateway) -> None:
    fields = {
        "temperature": 2,
        "top_p": 0.0,
        "frequency_penalty": -2.0,
        "presence_penalty": 2.0,
        "max_tokens": 1,
        "max_completion_tokens": 7,
        "n": 128,
        "stop": ["a", "b"],
        "stream": False,
        "user": "u-1",
        "logprobs": True,
        "top_logprobs": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "modalities": ["text", "audio"],
        "metadata": {"a": "b"},
        "prediction": None,
        "reasoning_effort": "low",
        "service_tier": "auto",
        "store": False,
        "web_search_options": {},
    }
    play(gateway, False, "Hello")
    assert gateway.post(json=basic(**fields)).status_code == 200
    assert gateway.up.request.json == {**basic(**fields), "model": "engine-1"}
    assert gateway.up.request.path == "/v1/chat/completions"


def test_of_a_field_sent_twice_the_last_one_counts_here_and_there(gateway: Gateway) -> None:
    play(gateway, False, "Hello")
    body = b'{"model":"mock","temperature":2,"temperature":1,"messages":[{"role":"x"}],'
    body += b'"messages":[{"role":"user","content":"Hi"}],"model":"up-model"}'
    assert gateway.post(content=body).json()["model"] == "up-model"
    assert gateway.up.request.json == {**basic(), "model": "engine-1", "temperature": 1}


@both
def test_the_gateways_own_fields_stay_here(gateway: Gateway, stream: bool) -> None:
    play(gateway, stream, "Hello")
    own = {"response": {"include_cost": False}, "routing": {"strategy": "cost"}, "budget": {}}
    assert gateway.post(json=basic(stream=stream, seed=1, **own)).status_code == 200
    arrived = gateway.up.request.json
    assert arrived.keys().isdisjoint(own)
    assert arrived["seed"] == 1


def test_a_stream_asks_the_provider_for_usage_and_keeps_other_options(gateway: Gateway) -> None:
    play(gateway, True, "Hello")
    options = {"include_usage": False, "include_obfuscation": False, "x": [1]}
    chunks = told(gateway.post(json=basic(stream=True, stream_options=options)))
    assert gateway.up.request.json["stream_options"] == {**options, "include_usage": True}
    assert all(chunk["choices"] for chunk in chunks)


def test_a_whole_answer_keeps_what_the_gateway_does_not_know(gateway: Gateway) -> None:
    choice = {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "annotations": [{"a": 1}],
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}}
            ],
        },
        "logprobs": {"content": [{"token": "a", "logprob": -0.1, "bytes": None}]},
        "finish_reason": "tool_calls",
        "content_filter_results": {},
    }
    details = usage(7, 3, prompt_tokens_details={"cached_tokens": 0, "x": 1}, x=[1])
    extra = {"system_fingerprint": "fp", "service_tier": "default", "citations": ["c"]}
    gateway.up.script(json_reply(chat_answer(choices=1, usage=details, **extra)))
    gateway.up.script(json_reply({**chat_answer(usage=details, **extra), "choices": [choice]}))
    answer = gateway.post(json=basic()).json()
    assert answer["choices"] == [choice]
    assert answer["usage"] == details
    assert {name: answer[name] for name in extra} == extra


def test_numbers_of_an_answer_are_not_rounded(gateway: Gateway) -> None:
    body = json.dumps(chat_answer()).replace('"created": 1,', '"x": 1.00000000000000000001e5,')
    gateway.up.script(json_reply(body.encode()))
    assert b'"x":1.00000000000000000001e5' in gateway.post(json=basic()).content


def test_chunks_keep_what_the_gateway_does_not_know(gateway: Gateway) -> None:
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "reasoning_content": "hm", "x": {"y": 1.5}},
        {"tool_calls": [call]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
    ]
    sent = [chat_chunk(delta, system_fingerprint="fp", obfuscation="aZ") for delta in deltas]
    sent.append(chat_chunk({}, finish_reason="tool_calls", x_last=[None]))
    final = chat_chunk({}, choices=[], usage=usage(7, 3))
    gateway.up.script(event_stream(*map(event, [*sent, final]), DONE))
    chunks = told(gateway.post(json=basic(stream=True)))
    assert [chunk["choices"] for chunk in chunks] == [chunk["choices"] for chunk in sent]
    assert {chunk.get("system_fingerprint") for chunk in chunks[:-1]} == {"fp"}
    assert chunks[-1]["x_last"] == [None]


def test_several_choices_stream_side_by_side(gateway: Gateway) -> None:
    sent = [chat_chunk(text, index=at) for text in "ab" for at in (0, 1)]
    sent += [chat_chunk({}, index=1, finish_reason="length")]
    sent += [chat_chunk({}, index=0, finish_reason="stop")]
    gateway.up.script(event_stream(*map(event, sent), DONE))
    chunks = told(gateway.post(json=basic(stream=True, n=2)))
    assert [chunk["choices"] for chunk in chunks] == [chunk["choices"] for chunk in sent]
    assert "cost" not in chunks[-2] and "cost" in chunks[-1]


def test_an_event_over_several_lines_reaches_the_client_as_one(gateway: Gateway) -> None:
    lines = json.dumps(chat_chunk("Hello"), indent=1).splitlines()
    pretty = "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
    last = event(chat_chunk({}, finish_reason="stop"))
    gateway.up.script(event_stream(pretty, last, DONE))
    assert said(gateway.post(json=basic(stream=True)), True) == "Hello"


# Ids and times


@both
def test_the_id_of_a_call_is_the_same_everywhere(gateway: Gateway, stream: bool) -> None:
    play(gateway, stream, "Hello", "again")
    response = gateway.post(json=basic(stream=stream))
    request_id = response.headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}", request_id)
    for answer in told(response) if stream else [response.json()]:
        assert answer["id"] == f"chatcmpl-{request_id.removeprefix('req_')}"
        assert answer["model"] == "up-model"
        assert answer["provider"] == "up"
        assert answer["created"] > 1_700_000_000


@both
def test_latencies_add_up(gateway: Gateway, stream: bool) -> None:
    play(gateway, stream, "Hello")
    response = gateway.post(json=basic(stream=stream))
    latency = (told(response)[-1] if stream else response.json())["latency"]
    assert 0 < latency["network_time_ms"] <= latency["ttfb_ms"] <= latency["total_time_ms"]
    rest = latency["total_time_ms"] - latency["ttfb_ms"]
    assert latency["processing_time_ms"] == pytest.approx(rest, abs=0.001)


# Extensions


@both
@pytest.mark.parametrize(
    ("switches", "shown"),
    [
        (None, {"usage", "cost", "latency"}),
        ({}, {"usage", "cost", "latency"}),
        ({"include_usage": False}, {"cost", "latency"}),
        ({"include_cost": False}, {"usage", "latency"}),
        ({"include_latency": False}, {"usage", "cost"}),
        ({"include_model_info": True}, {"usage", "cost", "latency", "model_info"}),
        ({"include_usage": False, "include_cost": False, "include_latency": False}, set()),
    ],
)
def test_the_client_chooses_the_extensions(
    gateway: Gateway, switches: Any, shown: set[str], stream: bool
) -> None:
    play(gateway, stream, "Hello")
    response = gateway.post(json=basic(stream=stream, response=switches))
    answer = told(response)[-1] if stream else response.json()
    extensions = {"usage", "cost", "latency", "model_info", "routing"}
    assert answer.keys() & extensions == shown
    if "model_info" in shown:
        assert answer["model_info"] == {"provider": "up", "engine": "engine-1"}


def test_a_plain_client_finds_what_openai_would_send(gateway: Gateway) -> None:
    play(gateway, True, "Hel", "lo")
    chunks = told(gateway.post(json=basic(stream=True)))
    plain = {"id", "object", "created", "model", "choices", "provider"}
    assert [chunk.keys() for chunk in chunks[:-1]] == [plain, plain]
    assert chunks[-1].keys() == plain | {"usage", "cost", "latency"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_usage_comes_in_a_chunk_of_its_own_only_when_asked_for(gateway: Gateway) -> None:
    play(gateway, True, "Hel", "lo")
    chunks = told(gateway.post(json=basic(stream=True, stream_options={"include_usage": True})))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == usage(7, 2)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["id"] == chunks[-2]["id"]


@both
def test_the_cost_is_exactly_usage_times_price(gateway: Gateway, stream: bool) -> None:
    reported = usage(1234, 567)
    sent = [chat_chunk("Hi"), chat_chunk({}, finish_reason="stop")]
    sent += [chat_chunk({}, choices=[], usage=reported)]
    whole = json_reply(chat_answer(usage=reported))
    gateway.up.script(event_stream(*map(event, sent), DONE) if stream else whole)
    response = gateway.post(json=basic(stream=stream))
    answer = told(response)[-1] if stream else response.json()
    assert answer["usage"] == reported
    # 1234 x 0.0000025 USD, 567 x 0.00001 USD; 0.008755 USD for 1801 tokens.
    assert answer["cost"] == {
        "input_cost": 0.003085,
        "output_cost": 0.00567,
        "total_cost": 0.008755,
        "cost_per_1k_tokens": 0.004861188,
        "currency": "USD",
    }


@both
def test_tokens_from_the_providers_cache_are_told_and_saved(gateway: Gateway, stream: bool) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 800, "audio_tokens": 0}}
    reported = usage(1000, 100, **details)
    sent = [chat_chunk("Hi"), chat_chunk({}, finish_reason="stop")]
    sent += [chat_chunk({}, choices=[], usage=reported)]
    whole = json_reply(chat_answer(usage=reported))
    gateway.up.script(event_stream(*map(event, sent), DONE) if stream else whole)
    # At the built-in price of gpt-4o: 2.50 USD per million in, 1.25 cached, 10 out.
    response = gateway.post(json={**basic(stream=stream), "model": "gpt-4o"})
    answer = told(response)[-1] if stream else response.json()
    assert answer["usage"] == {**reported, "cache_hit_tokens": 800}
    assert answer["cost"]["input_cost"] == 0.0015
    assert answer["cost"]["total_cost"] == 0.0025
    assert answer["cost"]["cache_savings"] == 0.001


def test_details_of_usage_survive_in_a_stream(gateway: Gateway) -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 0}}
    sent = [chat_chunk("Hi"), chat_chunk({}, finish_reason="stop")]
    sent += [chat_chunk({}, choices=[], usage=usage(10, 30, **details))]
    gateway.up.script(event_stream(*map(event, sent), DONE))
    chunks = told(gateway.post(json=basic(stream=True, stream_options={"include_usage": True})))
    assert chunks[-1]["usage"] == chunks[-2]["usage"] == usage(10, 30, **details)


def test_an_unknown_price_is_null_and_not_zero(gateway: Gateway) -> None:
    play(gateway, False, "Hello")
    answer = gateway.post(json={**basic(), "model": "up/other"}).json()
    costs = {"input_cost": None, "output_cost": None, "total_cost": None, "currency": "USD"}
    assert answer["cost"] == costs


@both
def test_usage_is_estimated_where_the_provider_reports_none(gateway: Gateway, stream: bool) -> None:
    sent = [chat_chunk("Hello "), chat_chunk("there!"), chat_chunk({}, finish_reason="stop")]
    whole = json_reply(chat_answer("Hello there!", usage=None))
    gateway.up.script(event_stream(*map(event, sent), DONE) if stream else whole)
    response = gateway.post(json=basic(stream=stream, messages=[message("Hi, you there")]))
    answer = told(response)[-1] if stream else response.json()
    # Four bytes a token: 13 bytes went in, 12 came out.
    assert answer["usage"] == usage(4, 3)
    assert answer["cost"]["total_cost"] == 0.00004


# Headers


@pytest.mark.parametrize(
    ("name", "value", "at_up", "at_openai"),
    [
        ("X-Trace", "abc", True, True),
        ("X-Request-Id", "mine", True, True),
        ("X-Stainless-Lang", "python", True, True),
        ("X-Unicode", "gr\u00fc\u00df", True, True),
        ("OpenAI-Organization", "org-1", False, True),
        ("OpenAI-Beta", "assistants=v2", False, True),
        ("anthropic-version", "2023-06-01", False, False),
        ("X-Nexus-App", "app", False, False),
        ("X-Nexus-Anything", "1", False, False),
        ("X-API-Key", "else", False, False),
        ("X-Goog-Api-Key", "AIza", False, False),
        ("X-Auth-Token", "secret", False, False),
        ("X-Forwarded-For", "1.2.3.4", False, False),
        ("X-Forwarded-Proto", "https", False, False),
        ("X-Real-IP", "1.2.3.4", False, False),
        ("X-Note", f"key {OTHER_KEY}", False, False),
        ("X-Note", "nx-something", False, False),
        ("Cookie", "a=b", False, False),
        ("Proxy-Authorization", "Basic x", False, False),
        ("Referer", "http://x", False, False),
        ("Forwarded", "for=1.2.3.4", False, False),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False, False),
    ],
)
def test_headers_go_on_to_whom_they_are_for(
    gateway: Gateway, name: str, value: str, at_up: bool, at_openai: bool
) -> None:
    play(gateway, False, "Hello")
    for model, arrives in (("up/engine", at_up), ("openai/engine", at_openai)):
        gateway.up.requests.clear()
        headers = {name.encode(): value.encode(), b"authorization": f"Bearer {KEY}".encode()}
        body = {"model": model, "messages": [message("Hi")]}
        response = gateway.client.post(CHAT, headers=headers, json=body)
        assert response.status_code == 200
        arrived = gateway.up.request.headers.get(name)
        assert arrived == (value if arrives else None)


def test_a_header_sent_twice_arrives_with_both_values(gateway: Gateway) -> None:
    play(gateway, False, "Hello")
    headers = [("X-Tag", "a"), ("X-Tag", "b"), ("Authorization", f"Bearer {KEY}")]
    assert gateway.client.post(CHAT, headers=headers, json=basic()).status_code == 200
    assert gateway.up.request.headers.getall("X-Tag") == ["a, b"]  # type: ignore[attr-defined]


def test_the_provider_sees_its_own_key_and_none_of_ours(gateway: Gateway) -> None:
    play(gateway, False, "Hello")
    headers = {"X-Nexus-Token": KEY, "X-API-Key": OTHER_KEY, "Authorization": f"Bearer {ADMIN}"}
    assert gateway.client.post(CHAT, headers=headers, json=basic()).status_code == 200
    request = gateway.up.request
    assert request.headers["Authorization"] == f"Bearer {UP_KEY}"
    arrived = f"{dict(request.headers)} {request.body!r}"
    assert not any(key in arrived for key in (KEY, OTHER_KEY, ADMIN))


# Errors of the provider


@both
@pytest.mark.parametrize(
    ("status", "shown", "kind", "code"),
    [
        (400, 400, "invalid_request_error", "bad"),
        (404, 404, "invalid_request_error", "bad"),
        (413, 413, "invalid_request_error", "bad"),
        (422, 422, "invalid_request_error", "bad"),
        (401, 502, "provider_error", "provider_auth"),
        (403, 502, "provider_error", "provider_auth"),
        (418, 502, "provider_error", "bad"),
    ],
)
def test_what_a_provider_refuses_is_told_by_the_table(
    gateway: Gateway, status: int, shown: int, kind: str, code: str, stream: bool
) -> None:
    error = {"message": f"No good, {UP_KEY}.", "type": "t", "code": "bad", "param": "seed"}
    gateway.up.script(json_reply({"error": error}, status=status))
    error = refusal(gateway.post(json=basic(stream=stream)), shown, kind, code)
    assert error["provider"] == "up"
    assert error["param"] == ("seed" if kind == "invalid_request_error" else None)
    assert UP_KEY not in error["message"]
    assert len(gateway.up.requests) == 1


@both
def test_a_provider_that_fails_is_asked_three_times(gateway: Gateway, stream: bool) -> None:
    gateway.up.script(json_reply({"error": {"message": "oh"}}, status=503))
    refusal(gateway.post(json=basic(stream=stream)), 502, "provider_error", None)
    assert len(gateway.up.requests) == 3


@both
def test_a_provider_that_recovers_is_not_noticed(gateway: Gateway, stream: bool) -> None:
    good = chat_stream("Hello") if stream else json_reply(chat_answer("Hello"))
    failing = json_reply({"error": {"message": "oh"}}, status=500)
    gateway.up.script(failing, failing, good)
    response = gateway.post(json=basic(stream=stream))
    assert said(response, stream) == "Hello"
    assert len(gateway.up.requests) == 3


@both
def test_the_providers_rate_limit_names_its_wait(gateway: Gateway, stream: bool) -> None:
    busy = json_reply(
        {"error": {"message": "slow down, please"}}, status=429, headers={"Retry-After": "77"}
    )
    gateway.up.script(busy)
    response = gateway.post(json=basic(stream=stream))
    refusal(response, 429, "rate_limit_error", "rate_limit_exceeded")
    assert response.headers["retry-after"] == "77"
    assert len(gateway.up.requests) == 1, "a wait longer than any client has is not waited for"


def test_a_stream_that_breaks_ends_with_an_error_and_without_done(gateway: Gateway) -> None:
    gateway.up.script(event_stream(event(chat_chunk("Hel")), event(chat_chunk("lo"))))
    response = gateway.post(json=basic(stream=True))
    assert response.status_code == 200
    *chunks, last = told(response)
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["Hel", "lo"]
    assert last["error"]["type"] == "provider_error"
    assert last["error"]["request_id"] == response.headers["x-request-id"]
    assert len(gateway.up.requests) == 1, "what was shown is not begun again"


# Access


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Bearer wrong"}, "invalid_api_key"),
        ({"Authorization": f"Bearer {KEY}x"}, "invalid_api_key"),
        ({"Authorization": f"Basic {KEY}"}, "invalid_api_key"),
        ({"Authorization": KEY}, "invalid_api_key"),
        ({"Authorization": "Bearer"}, "missing_api_key"),
        ({"Authorization": "Bearer dev-key"}, "invalid_api_key"),
        ({"X-API-Key": "wrong"}, "invalid_api_key"),
        ({"X-API-Key": ""}, "missing_api_key"),
        ({"X-Nexus-Token": "wrong"}, "invalid_api_key"),
        ({"Cookie": f"key={KEY}"}, "missing_api_key"),
    ],
)
def test_without_a_good_key_nothing_is_served(
    gateway: Gateway, headers: dict[str, str], code: str
) -> None:
    closed = closed_routes(gateway)
    assert len(closed) > 8
    for method, path in closed:
        response = gateway.client.request(method, path, headers=headers, json=basic())
        error = refusal(response, 401, "authentication_error", code)
        understood = "Bearer" in headers.get("Authorization", "Bearer")
        says = "Check the key" if code == "invalid_api_key" and understood else "'Authorization: "
        assert says in error["message"]


def closed_routes(gateway: Gateway) -> list[tuple[str, str]]:
    """Method and path of every documented route that needs a key."""
    documented = gateway.client.get("/openapi.json").json()["paths"]
    opened = {"/health", "/api/v1/health", "/models", "/metrics"}
    return [
        (method.upper(), path.replace("{model}", "mock").replace("{model_id}", "mock"))
        for path, operations in documented.items()
        for method in operations
        if path not in opened
    ]


@pytest.mark.parametrize(
    "path", ["/health", "/api/v1/health", "/models", "/metrics", "/docs", "/openapi.json"]
)
def test_what_is_open_needs_no_key_and_ignores_a_wrong_one(gateway: Gateway, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert gateway.client.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY}"},
        {"X-API-Key": KEY},
        {"X-Nexus-Token": KEY},
        {"X-Nexus-Token": KEY, "Authorization": "Bearer unused"},
        {"X-Nexus-Token": "unused", "X-API-Key": KEY, "Authorization": "Bearer unused"},
        {"X-API-Key": "unused", "Authorization": f"Bearer {KEY}"},
        {"Authorization": f"Bearer {ADMIN}"},
    ],
)
def test_the_first_valid_credential_counts(gateway: Gateway, headers: dict[str, str]) -> None:
    play(gateway, False, "Hello")
    assert gateway.client.post(CHAT, headers=headers, json=basic()).status_code == 200


def test_of_two_valid_credentials_the_token_wins(gateway: Gateway) -> None:
    def key_in_log(**headers: str) -> str:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        response = gateway.client.post(CHAT, headers=sent, json=basic())
        return str(log_line(gateway, response.headers["x-request-id"])["key_id"])

    play(gateway, False, "Hello")
    first, second = key_in_log(X_API_Key=KEY), key_in_log(X_API_Key=OTHER_KEY)
    assert first != second and KEY not in first
    assert key_in_log(X_Nexus_Token=KEY, X_API_Key=OTHER_KEY) == first
    assert key_in_log(X_API_Key=OTHER_KEY, Authorization=f"Bearer {KEY}") == second
    assert key_in_log(X_Nexus_Token=ADMIN, X_API_Key=OTHER_KEY) == "admin"


def log_line(gateway: Gateway, request_id: str) -> dict[str, Any]:
    """The one line of the log that names the request; it is written when the answer is out."""
    until(lambda: request_id in gateway.log.read_text())
    (line,) = [line for line in gateway.log.read_text().splitlines() if request_id in line]
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_call_is_one_line_of_the_log_without_prompt_and_secret(gateway: Gateway) -> None:
    play(gateway, False, "the answer in question")
    response = gateway.ask("up-model", "the prompt in question")
    line = log_line(gateway, response.headers["x-request-id"])
    shown = {"model": "up-model", "provider": "up", "status": 200, "code": None, "usd": 0.0000475}
    assert {name: line[name] for name in shown} == shown
    assert line["ms"] > 0
    everything = gateway.log.read_text()
    for secret in ("in question", KEY, OTHER_KEY, ADMIN, UP_KEY):
        assert secret not in everything


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
def test_listening_beyond_loopback_without_keys_is_refused(tmp_path: Path, host: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "compose.cli", "ingress", "--host", host],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2
    assert host in result.stderr and "set GATEWAY_API_KEYS or ADMIN_TOKEN" in result.stderr
