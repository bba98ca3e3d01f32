"""What Google answers, from the examples of its documentation: chats, reasons, errors, tokens."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from schemas.call import Timeouts
from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import TOKEN_CLASSES, Cost, Price, Rates, Usage, cost_of
from tests.contract.gemini_stage import (
    KEY,
    GeminiStage,
    call,
    candidate,
    chat_answer,
    error_of,
    usage_of,
)
from tests.contract.provider_contract import CLIENT_KEY, Scene, Told, ask_of, both, outcome, read
from tests.upstream import HANG, Recorded, Reply, Upstream, event, event_stream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Answer, Ask, AttemptFailed, Provider
from workers.providers.gemini.answers import read_usage

FIXTURES = Path(__file__).parents[1] / "fixtures" / "gemini"
SIGNED = {"google": {"thought_signature": "EqMCCqACAdHtim8="}}
# ai.google.dev/gemini-api/docs/pricing, dollars per million tokens. Gemini 2.5 Flash: 0.30 in (text
# image, video), 1.00 in (audio), 0.03 from the cache, 2.50 out including thoughts.
FLASH = Price(
    "gemini-2.5-flash",
    Rates(
        input=300_000_000,
        output=2_500_000_000,
        cached_input=30_000_000,
        audio_input=1_000_000_000,
    ),
)
# Gemini 2.5 Flash Image: 0.30 in, 2.50 out (text), 30.00 out (images).
FLASH_IMAGE = Price(
    "gemini-2.5-flash-image",
    Rates(input=300_000_000, output=2_500_000_000, image_output=30_000_000_000),
)
# Gemini 2.5 Flash Preview TTS: 0.50 in (text), 10.00 out (audio).
FLASH_TTS = Price("tts", Rates(input=500_000_000, output=10_000_000_000))
# Gemini Embedding: 0.15 in.
EMBEDDING = Price("gemini-embedding-001", Rates(input=150_000_000, output=0))


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    config = ProviderConfig(dialect="gemini", base_url=upstream.url, api_key=KEY)
    return make("google", config, http, Clock())


@pytest.fixture
def vertex(upstream: Upstream, http: Http) -> Provider:
    options = {"project": "acme", "access_token": "ya29.token-0123456789"}
    config = ProviderConfig(dialect="gemini", base_url=upstream.url, options=options)
    return make("vertex", config, http, Clock())


def recorded(name: str) -> Reply:
    """A fixture as an answer: a stream of events, or JSON."""
    body = (FIXTURES / name).read_bytes()
    return event_stream(body) if name.endswith(".sse") else json_reply(body)


async def whole(provider: Provider, upstream: Upstream, name: str) -> tuple[Answer, Any]:
    upstream.script(recorded(name))
    answer = await provider.complete(ask_of())
    (choice,) = json.loads(answer.body)["choices"]
    return answer, choice


async def streamed(provider: Provider, upstream: Upstream, reply: Reply) -> Told:
    upstream.script(reply)
    told = await read(provider, ask_of(stream=True))
    assert told.failure is None and told.end is not None
    return told


def deltas(told: Told, field: str) -> list[Any]:
    """What the chunks say in one field of their deltas."""
    each = [chunk["choices"][0]["delta"].get(field) for chunk in told.chunks]
    return [one for one in each if one is not None]


@pytest.mark.parametrize("name", ["text", "thinking", "tools"])
async def test_a_stream_says_what_the_whole_answer_says(
    provider: Provider, upstream: Upstream, name: str
) -> None:
    answer, choice = await whole(provider, upstream, f"{name}.json")
    told = await streamed(provider, upstream, recorded(f"{name}.sse"))
    assert told.end is not None
    assert told.end.usage == answer.usage
    assert told.end.finish_reason == answer.finish_reason == choice["finish_reason"]
    message = choice["message"]
    assert told.text() == (message["content"] or "")
    assert "".join(deltas(told, "reasoning_content")) == message.get("reasoning_content", "")
    assert deltas(told, "extra_content")[-1:] == [
        message[name] for name in ("extra_content",) if name in message
    ]
    calls = [call for calls in deltas(told, "tool_calls") for call in calls]
    assert [call.pop("index") for call in calls] == list(range(len(calls)))
    assert calls == message.get("tool_calls", [])


async def test_a_text(provider: Provider, upstream: Upstream) -> None:
    answer, choice = await whole(provider, upstream, "text.json")
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "AI learns patterns from data, so it can do naïve things quickly.\n",
        },
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert answer.usage == Usage(input=8, output=14, status="reported")


async def test_thoughts_are_reasoning_and_their_signature_comes_along(
    provider: Provider, upstream: Upstream
) -> None:
    answer, choice = await whole(provider, upstream, "thinking.json")
    assert choice["message"] == {
        "role": "assistant",
        "content": "The sum of the first 50 prime numbers is 5117.",
        "reasoning_content": "**Sum of primes**\n\nI add 2, 3, 5, 7 and so on, 50 of them.\n",
        "extra_content": {"google": {"thought_signature": "CpsBAdHtim9uL1c="}},
    }
    assert answer.usage == Usage(input=15, output=21, reasoning=988, status="reported")


async def test_calls_keep_googles_ids_and_signatures(
    provider: Provider, upstream: Upstream
) -> None:
    _, choice = await whole(provider, upstream, "tools.json")
    name = "get_current_temperature"
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "8f2b1a3c",
                "type": "function",
                "function": {"name": name, "arguments": '{"location":"Paris","days":1}'},
                "extra_content": SIGNED,
            },
            {
                "id": "a90c77d1",
                "type": "function",
                "function": {"name": name, "arguments": '{"location":"London"}'},
            },
        ],
    }


async def test_calls_without_ids_get_the_same_ones_in_every_copy(
    provider: Provider, upstream: Upstream
) -> None:
    answer = chat_answer(call("f", {}), call("f", None), {"functionCall": {"name": "g"}})
    call_id = "0193a3a1-8b6e-7c55-9d3b-2f1e4a5b6c7d"
    upstream.script(json_reply(answer))
    said = await provider.complete(ask_of()._replace(call_id=call_id))
    calls = json.loads(said.body)["choices"][0]["message"]["tool_calls"]
    upstream.script(event_stream(event(answer)))
    told = await read(provider, ask_of(stream=True)._replace(call_id=call_id))
    again = [call for calls in deltas(told, "tool_calls") for call in calls]
    ids = [call["id"] for call in calls]
    assert ids == [call["id"] for call in again]
    assert len(set(ids)) == 3 and {len(one) for one in ids} == {40}
    assert {call["function"]["arguments"] for call in calls} == {"{}"}


async def test_what_the_client_gets_it_can_send_back(
    provider: Provider, upstream: Upstream
) -> None:
    _, choice = await whole(provider, upstream, "tools.json")
    result = {"role": "tool", "tool_call_id": "a90c77d1", "content": "15 °C"}
    user = {"role": "user", "content": "Tell me"}
    await provider.complete(ask_of(messages=[user, choice["message"], result]))
    given = json.loads((FIXTURES / "tools.json").read_bytes())["candidates"][0]["content"]
    said, answered = upstream.requests[1].json["contents"][1:]
    assert said == given
    assert answered["parts"][0]["functionResponse"]["id"] == "a90c77d1"


async def test_what_search_found_comes_along(provider: Provider, upstream: Upstream) -> None:
    answer, choice = await whole(provider, upstream, "grounded.json")
    given = json.loads((FIXTURES / "grounded.json").read_bytes())["candidates"][0]
    extra = {"google": {"grounding_metadata": given["groundingMetadata"]}}
    assert choice["message"]["extra_content"] == extra
    told = await streamed(provider, upstream, event_stream(event(_body("grounded.json"))))
    assert deltas(told, "extra_content") == [extra]
    assert answer.usage == Usage(input=100, output=16, reasoning=43, status="reported")


async def test_images_come_as_data_urls(provider: Provider, upstream: Upstream) -> None:
    answer, choice = await whole(provider, upstream, "image.json")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    assert choice["message"]["content"] == "Here is a banana: "
    assert choice["message"]["images"] == [image]
    told = await streamed(provider, upstream, event_stream(event(_body("image.json"))))
    assert deltas(told, "images") == [[image]]
    assert answer.usage == Usage(
        input=10, image_input=1290, output=5, image_output=1290, status="reported"
    )


@both
async def test_speech_comes_as_audio(provider: Provider, upstream: Upstream, stream: bool) -> None:
    blob = {"mimeType": "audio/L16;codec=pcm;rate=24000", "data": "AAAA"}
    answer = chat_answer({"inlineData": blob})
    if stream:
        (audio,) = deltas(await streamed(provider, upstream, event_stream(event(answer))), "audio")
    else:
        upstream.script(json_reply(answer))
        (choice,) = json.loads((await provider.complete(ask_of())).body)["choices"]
        audio = choice["message"]["audio"]
    assert audio == {
        "id": "audio_0193-call",
        "data": "AAAA",
        "transcript": "",
        "expires_at": 1_700_000_000,
        "media_type": blob["mimeType"],
    }


async def test_logprobs_are_openais(provider: Provider, upstream: Upstream) -> None:
    _, choice = await whole(provider, upstream, "logprobs.json")

    def token(text: str, logprob: float) -> dict[str, Any]:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    shown = {
        "content": [
            {**token("Yes", -0.0625), "top_logprobs": [token("Yes", -0.0625), token("No", -2.75)]},
            {**token(" é", -0.1875), "top_logprobs": [token(" é", -0.1875)]},
        ],
        "refusal": None,
    }
    assert choice["logprobs"] == shown
    told = await streamed(provider, upstream, event_stream(event(_body("logprobs.json"))))
    each = [chunk["choices"][0].get("logprobs") for chunk in told.chunks]
    assert [one for one in each if one] == [shown]


def _body(name: str) -> Any:
    return json.loads((FIXTURES / name).read_bytes())


@both
async def test_a_scene_with_thoughts_and_logprobs(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    GeminiStage(provider, upstream).play(Scene(thinks="Hm.", logprobs=True))
    if stream:
        told = await read(provider, ask_of(stream=True, logprobs=True))
        assert deltas(told, "reasoning_content") == ["Hm."]
        found = [chunk["choices"][0].get("logprobs") for chunk in told.chunks]
        assert len([one for one in found if one]) == 3
        return
    (choice,) = json.loads((await provider.complete(ask_of(logprobs=True))).body)["choices"]
    assert choice["message"]["reasoning_content"] == "Hm."
    assert len(choice["logprobs"]["content"]) == 3


@both
@pytest.mark.parametrize("name", ["blocked.json", "safety.json"])
async def test_what_google_does_not_answer_is_filtered_content(
    provider: Provider, upstream: Upstream, stream: bool, name: str
) -> None:
    prompt = _body(name)["usageMetadata"]["promptTokenCount"]
    usage = Usage(input=prompt, status="reported")
    if stream:
        told = await streamed(provider, upstream, event_stream(event(_body(name))))
        assert told.end is not None and told.text() == ""
        assert told.finish_reasons() == {0: "content_filter"}
        assert told.end.usage == usage
        return
    answer, choice = await whole(provider, upstream, name)
    assert choice["message"] == {"role": "assistant", "content": ""}
    assert answer.finish_reason == choice["finish_reason"] == "content_filter"
    assert answer.usage == usage


@both
@pytest.mark.parametrize(
    ("said", "parts", "reason"),
    [
        ("STOP", [{"text": "x"}], "stop"),
        ("STOP", [call("f", {})], "tool_calls"),
        ("MAX_TOKENS", [{"text": "x"}], "length"),
        ("MAX_TOKENS", [], "length"),
        ("MAX_TOKENS", [call("f", {})], "length"),
        ("SAFETY", [{"text": "x"}], "content_filter"),
        ("RECITATION", [], "content_filter"),
        ("BLOCKLIST", [], "content_filter"),
        ("PROHIBITED_CONTENT", [], "content_filter"),
        ("SPII", [], "content_filter"),
        ("LANGUAGE", [], "content_filter"),
        ("IMAGE_SAFETY", [], "content_filter"),
        ("OTHER", [{"text": "x"}], "stop"),
        ("SOMETHING_NEW", [call("f", {})], "tool_calls"),
    ],
)
async def test_why_an_answer_ended(
    provider: Provider,
    upstream: Upstream,
    stream: bool,
    said: str,
    parts: list[dict[str, Any]],
    reason: str,
) -> None:
    answer = chat_answer(*parts, reason=said)
    if stream:
        told = await streamed(provider, upstream, event_stream(event(answer)))
        assert told.end is not None and told.end.finish_reason == reason
    else:
        upstream.script(json_reply(answer))
        assert (await provider.complete(ask_of())).finish_reason == reason


@both
@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL"])
async def test_a_model_that_went_wrong_may_be_asked_again(
    provider: Provider, upstream: Upstream, stream: bool, reason: str
) -> None:
    answer = chat_answer(reason=reason)
    upstream.script(event_stream(event(answer)) if stream else json_reply(answer))
    failure = await outcome(provider, ask_of(stream=stream))
    assert (failure.info.status, failure.info.type) == (502, "provider_error")
    assert reason in failure.info.message and failure.retryable and not failure.cost_known


@both
async def test_a_quota_says_when_to_come_back(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    body = (FIXTURES / "quota.json").read_bytes()
    for said in (body, b"[" + body + b"]"):
        upstream.script(json_reply(said, 429))
        failure = await outcome(provider, ask_of(stream=stream))
        assert (failure.info.status, failure.info.code) == (429, "rate_limit_exceeded")
        assert failure.retry_after == 34.074824224 and failure.retryable
        assert failure.info.message.startswith("You exceeded your current quota")


@both
async def test_a_wrong_key_is_the_gateways_to_mend_or_the_clients(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    upstream.script(json_reply((FIXTURES / "wrong_key.json").read_bytes(), 400))
    failure = await outcome(provider, ask_of(stream=stream))
    assert (failure.info.status, failure.info.code) == (502, "provider_auth")
    own = ask_of(stream=stream)._replace(credential=CLIENT_KEY)
    assert (await outcome(provider, own)).info.status == 401


@both
async def test_an_error_in_place_of_an_answer_keeps_its_status(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    for said in (error_of(503, "Overloaded."), [error_of(503, "Overloaded.")]):
        upstream.script(json_reply(said))
        failure = await outcome(provider, ask_of(stream=stream))
        assert failure.info.status == 502 and failure.retryable
        assert "Overloaded." in failure.info.message


@pytest.mark.parametrize("said", [error_of(429, "Slow."), [error_of(429, "Slow.")]])
async def test_an_error_in_a_stream_breaks_it(
    provider: Provider, upstream: Upstream, said: Any
) -> None:
    begun = event(chat_answer({"text": "Hel"}, reason=""))
    upstream.script(event_stream(begun, event(said)))
    told = await read(provider, ask_of(stream=True))
    assert told.text() == "Hel" and told.end is None
    assert told.failure is not None and told.failure.info.status == 429
    assert not told.failure.retryable


@both
@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"<html>Sign in</html>",
        b"[]",
        b"{}",
        b'{"candidates": []}',
        b'{"candidates": 1}',
        b'{"candidates": [{"content": {"parts": [{"text": 1}]}}]}',
        b'{"candidates": [{"content": {"parts": [{"functionCall": {}}]}}]}',
        b'{"candidates": [{"content": {"parts": [{"text": "\xff"}]}}]}',
        b'{"candidates": [{"index": "a"}]}',
        b'{"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args":'
        b' {"a": "\xff"}}}]}, "finishReason": "STOP"}]}',
        b'{"candidates": [{"finishReason": "STOP", "groundingMetadata": {"a": "\xff"}}]}',
        b'{"usageMetadata": {"promptTokenCount": 3}}',
        b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
async def test_garbage_is_a_502(
    provider: Provider, upstream: Upstream, stream: bool, body: bytes
) -> None:
    upstream.script(event_stream(event(body)) if stream else json_reply(body))
    failure = await outcome(provider, ask_of(stream=stream))
    assert (failure.info.status, failure.info.type) == (502, "provider_error")
    assert "<" not in failure.info.message


async def test_a_stream_without_a_reason_for_every_candidate_broke_off(
    provider: Provider, upstream: Upstream
) -> None:
    both_begun = [candidate({"text": "x"}, index=at) for at in (0, 1)]
    upstream.script(
        event_stream(
            event({"candidates": both_begun}),
            event({"candidates": [candidate(reason="STOP", index=1)]}),
        )
    )
    told = await read(provider, ask_of(stream=True, n=2))
    assert told.end is None and told.failure is not None
    assert told.failure.info.status == 502


async def test_a_reason_in_every_event_does_not_end_the_stream_early(
    provider: Provider, upstream: Upstream
) -> None:
    events = [event(chat_answer({"text": text})) for text in ("a", "b", "c")]
    told = await streamed(provider, upstream, event_stream(*events))
    assert told.text() == "abc" and told.finish_reasons() == {0: "stop"}


@pytest.mark.parametrize(
    ("reported", "usage", "price", "cost"),
    [
        # Text: 1000 * 0.30 + 100 * 2.50 per million.
        (
            usage_of(Usage(input=1000, output=100)),
            Usage(1000, output=100),
            FLASH,
            (300_000, 250_000),
        ),
        # The cache is part of the prompt, and counted once: 29 * 0.30 + 696190 * 0.03.
        (
            _body("cached.json")["usageMetadata"],
            Usage(input=29, cached_input=696_190, output=214),
            FLASH,
            (20_894_400, 535_000),
        ),
        # Thoughts are beside the candidates: (21 + 988) * 2.50.
        (
            _body("thinking.json")["usageMetadata"],
            Usage(input=15, output=21, reasoning=988),
            FLASH,
            (4_500, 2_522_500),
        ),
        # A total that leaves no room for them says that the candidates include the thoughts.
        (
            {
                "promptTokenCount": 10,
                "candidatesTokenCount": 100,
                "thoughtsTokenCount": 80,
                "totalTokenCount": 110,
            },
            Usage(input=10, output=20, reasoning=80),
            FLASH,
            (3_000, 250_000),
        ),
        # What tools read is input beside the prompt: (10 + 90) * 0.30.
        (
            _body("grounded.json")["usageMetadata"],
            Usage(input=100, output=16, reasoning=43),
            FLASH,
            (30_000, 147_500),
        ),
        # Audio in costs more: 20 * 0.30 + 300 * 1.00.
        (
            usage_of(Usage(input=20, audio_input=300, output=4)),
            Usage(input=20, audio_input=300, output=4),
            FLASH,
            (306_000, 10_000),
        ),
        # What of the audio was cached is cached input: 200 * 0.03 + 100 * 1.00 + 20 * 0.30.
        (
            {
                "promptTokenCount": 320,
                "cachedContentTokenCount": 200,
                "candidatesTokenCount": 4,
                "totalTokenCount": 324,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 20},
                    {"modality": "AUDIO", "tokenCount": 300},
                ],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 200}],
            },
            Usage(input=20, cached_input=200, audio_input=100, output=4),
            FLASH,
            (112_000, 10_000),
        ),
        # Images out: 1290 * 30.00 + 5 * 2.50; in they cost as text does.
        (
            _body("image.json")["usageMetadata"],
            Usage(input=10, image_input=1290, output=5, image_output=1290),
            FLASH_IMAGE,
            (390_000, 38_712_500),
        ),
        # Speech: 500 * 10.00.
        (
            usage_of(Usage(input=8, audio_output=500)),
            Usage(input=8, audio_output=500),
            FLASH_TTS,
            (4_000, 5_000_000),
        ),
    ],
)
async def test_each_class_of_tokens_is_counted_once_and_costs_what_google_says(
    provider: Provider,
    upstream: Upstream,
    reported: dict[str, Any],
    usage: Usage,
    price: Price,
    cost: tuple[int, int],
) -> None:
    upstream.script(json_reply(chat_answer({"text": "x"}, usageMetadata=reported)))
    answer = await provider.complete(ask_of())
    told = await streamed(
        provider,
        upstream,
        event_stream(
            event(chat_answer({"text": "x"}, reason="", usageMetadata={"promptTokenCount": 1})),
            event(chat_answer(usageMetadata=reported)),
        ),
    )
    assert told.end is not None and told.end.usage == answer.usage
    assert answer.usage.status == "reported"
    assert answer.usage == Usage(
        **{name: getattr(usage, name) for name in usage.__struct_fields__ if name != "status"},
        status="reported",
    )
    charged = cost_of(answer.usage, price)
    assert (charged.input, charged.output) == cost


@given(
    *(st.integers(0, 100) for _ in range(5)),
    st.lists(st.tuples(st.sampled_from(["TEXT", "AUDIO", "IMAGE", "VIDEO"]), st.integers(0, 100))),
)
def test_no_token_is_counted_twice_or_lost(
    prompt: int, cached: int, came_out: int, thoughts: int, used: int, details: Any
) -> None:
    each = [{"modality": name, "tokenCount": count} for name, count in details]
    reported = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": cached,
        "candidatesTokenCount": came_out,
        "thoughtsTokenCount": thoughts,
        "toolUsePromptTokenCount": used,
        "totalTokenCount": prompt + came_out + thoughts + used,
        "promptTokensDetails": each,
        "cacheTokensDetails": each[1:],
        "candidatesTokensDetails": each,
    }
    usage = read_usage(Raw(json.dumps(reported).encode()))
    assert (usage.prompt, usage.completion) == (prompt + used, came_out + thoughts)
    assert usage.status == "reported"
    assert min(getattr(usage, name) for name in TOKEN_CLASSES) >= 0


def test_what_the_cache_saved_is_told() -> None:
    saved = cost_of(Usage(input=29, cached_input=696_190), FLASH).cache_savings
    assert saved == 696_190 * 270


@both
@pytest.mark.parametrize(
    "reported", [{}, {"promptTokenCount": -1}, {"promptTokenCount": "7"}, [], 3, {"a": None}]
)
async def test_usage_that_makes_no_sense_is_unknown(
    provider: Provider, upstream: Upstream, stream: bool, reported: Any
) -> None:
    answer = chat_answer({"text": "x"}, usageMetadata=reported)
    if stream:
        told = await streamed(provider, upstream, event_stream(event(answer)))
        assert told.end is not None and told.end.usage == Usage()
    else:
        upstream.script(json_reply(answer))
        assert (await provider.complete(ask_of())).usage == Usage()


def embedding_ask(given: Any, engine: str = "gemini-embedding-001", **fields: Any) -> Ask:
    body = {"model": "the-clients-name", "input": given, **fields}
    return ask_of()._replace(body=json.dumps(body).encode(), engine=engine)


async def test_embeddings_of_ai_studio(provider: Provider, upstream: Upstream) -> None:
    upstream.script(recorded("embeddings.json"))
    texts = ["What is the meaning of life?", "What is the purpose of existence?", "How?"]
    ask = embedding_ask(texts, dimensions=768, task_type="SEMANTIC_SIMILARITY")
    answer = await provider.embed(ask)
    (request,) = upstream.requests
    assert request.path == "/models/gemini-embedding-001:batchEmbedContents"
    assert request.json["requests"] == [
        {
            "model": "models/gemini-embedding-001",
            "content": {"parts": [{"text": text}]},
            "outputDimensionality": 768,
            "taskType": "SEMANTIC_SIMILARITY",
        }
        for text in texts
    ]
    shown = json.loads(answer.body)
    assert (shown["model"], shown["provider"]) == ("the-clients-name", "google")
    given = [one["values"] for one in _body("embeddings.json")["embeddings"]]
    assert [one["embedding"] for one in shown["data"]] == given
    assert answer.usage == Usage(input=-(-len("".join(texts)) // 4), status="estimated")


async def test_embeddings_report_their_usage_where_google_does(
    provider: Provider, upstream: Upstream
) -> None:
    told = {"embeddings": [{"values": [0.5, -0.25]}], "usageMetadata": {"promptTokenCount": 1000}}
    upstream.script(json_reply(told))
    answer = await provider.embed(embedding_ask("x", encoding_format="base64"))
    (one,) = json.loads(answer.body)["data"]
    assert struct.unpack("<2f", base64.b64decode(one["embedding"])) == (0.5, -0.25)
    assert answer.usage == Usage(input=1000, status="reported")
    assert cost_of(answer.usage, EMBEDDING) == Cost(input=150_000)
    upstream.script(json_reply({**told, "usageMetadata": {"promptTokenCount": "many"}}))
    assert (await provider.embed(embedding_ask("x"))).usage == Usage()


async def test_embeddings_of_vertex_by_predict(vertex: Provider, upstream: Upstream) -> None:
    upstream.script(recorded("predict.json"))
    fields = {"dimensions": 3, "taskType": "RETRIEVAL_DOCUMENT", "title": "A"}
    answer = await vertex.embed(embedding_ask(["one", "two"], "text-embedding-005", **fields))
    (request,) = upstream.requests
    assert request.path == "/models/text-embedding-005:predict"
    assert request.json == {
        "instances": [
            {"content": text, "task_type": "RETRIEVAL_DOCUMENT", "title": "A"}
            for text in ("one", "two")
        ],
        "parameters": {"outputDimensionality": 3},
    }
    data = json.loads(answer.body)["data"]
    assert [one["embedding"][0] for one in data] == [-0.018747, 0.028412]
    assert answer.usage == Usage(input=10, status="reported")


async def test_embeddings_of_vertex_by_its_newer_method(
    vertex: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply({"embeddings": [{"values": [1.0]}, {"values": [0.0]}]}))
    await vertex.embed(embedding_ask(["one", "two"], "gemini-embedding-2", dimensions=1))
    (request,) = upstream.requests
    assert request.path == "/models/gemini-embedding-2:batchEmbedContents"
    assert request.json["requests"] == [
        {
            "content": {"parts": [{"text": text}]},
            "embedContentConfig": {"outputDimensionality": 1},
        }
        for text in ("one", "two")
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"{}",
        b'{"embeddings": []}',
        b'{"embeddings": [{"values": ["a"]}]}',
        b'{"embeddings": [{"values": [1]}, {"values": [1]}]}',
        b'{"predictions": [{}]}',
    ],
)
async def test_embeddings_that_are_none_are_a_502(
    provider: Provider, upstream: Upstream, body: bytes
) -> None:
    upstream.script(json_reply(body))
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_ask("x"))
    assert (caught.value.info.status, caught.value.info.type) == (502, "provider_error")


@pytest.mark.parametrize(
    ("engine", "sizes"), [("text-embedding-005", [250, 1]), ("gemini-embedding-001", [1] * 251)]
)
async def test_texts_go_as_many_at_once_as_vertex_takes(
    vertex: Provider, upstream: Upstream, engine: str, sizes: list[int]
) -> None:
    def reply(request: Recorded) -> Reply:
        return json_reply(
            {
                "predictions": [
                    {
                        "embeddings": {
                            "values": [float(one["content"])],
                            "statistics": {"token_count": 2},
                        }
                    }
                    for one in request.json["instances"]
                ]
            }
        )

    upstream.script(reply)
    answer = await vertex.embed(embedding_ask([str(number) for number in range(251)], engine))
    assert [len(request.json["instances"]) for request in upstream.requests] == sizes
    vectors = [one["embedding"] for one in json.loads(answer.body)["data"]]
    assert vectors == [[float(number)] for number in range(251)]
    assert answer.usage == Usage(input=502, status="reported")


async def test_a_batch_that_fails_after_others_may_have_cost(
    provider: Provider, upstream: Upstream
) -> None:
    good = json_reply({"embeddings": [{"values": [1.0]}] * 100})
    upstream.script(good, json_reply(error_of(429), 429))
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_ask(["x"] * 101))
    assert caught.value.info.status == 429 and not caught.value.cost_known
    assert [len(request.json["requests"]) for request in upstream.requests] == [100, 1]


async def test_embeddings_that_take_too_long_time_out(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply({"embeddings": [{"values": [1.0]}] * 100}), Reply(before=(HANG,)))
    hasty = Timeouts(connect=5, total=0.4)
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_ask(["x"] * 101)._replace(timeouts=hasty))
    assert (caught.value.info.status, caught.value.info.code) == (504, "timeout")
    assert not caught.value.cost_known


@pytest.mark.parametrize("given", [[1, 2], [[1, 2]], ["a", 1]])
async def test_token_numbers_are_not_embedded(
    provider: Provider, upstream: Upstream, given: Any
) -> None:
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_ask(given))
    assert (caught.value.info.status, caught.value.info.param) == (400, "input")
    assert not upstream.requests


async def test_an_error_about_embeddings_is_told(provider: Provider, upstream: Upstream) -> None:
    upstream.script(json_reply(error_of(404, "No such model."), 404))
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_ask("x"))
    assert (caught.value.info.status, caught.value.info.message) == (404, "No such model.")
    upstream.script(json_reply(error_of(503, "Overloaded.")))
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_ask("x"))
    assert caught.value.info.status == 502 and "Overloaded." in caught.value.info.message
