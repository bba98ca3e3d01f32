"""What the gateway does not use goes through it unchanged: fields, answers, chunks, headers."""

import json
from typing import Any

import pytest

from tests.flow.chat.playing import CHAT, both, play, said
from tests.flow.gateway import ADMIN, KEY, OTHER_KEY, UP_KEY, Gateway, basic, message, told
from tests.upstream import DONE, chat_answer, chat_chunk, event, event_stream, json_reply, usage


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
