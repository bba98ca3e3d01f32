"""The openai adapter keeps the contract of providers, and passes on what it does not know."""

from collections.abc import AsyncIterator

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.openai_stage import KEY, OpenAIStage
from tests.contract.provider_contract import (
    CLIENT_KEY,
    ProviderContract,
    Stage,
    ask_of,
    both,
    outcome,
    read,
)
from tests.upstream import (
    Reply,
    Upstream,
    chat_answer,
    chat_stream,
    json_reply,
)
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider
from workers.providers.openai import OpenAI


class TestOpenAI(ProviderContract):
    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        yield OpenAIStage(provider, upstream)


async def test_what_the_gateway_does_not_know_passes_both_ways_byte_for_byte(
    provider: Provider, upstream: Upstream
) -> None:
    odd = '"odd":{"big":123456789012345678901234567890,"f":1.10,"e":1e-7,"s":"\\u00e9\\/","z":[]}'
    ask = ask_of()._replace(
        body=f'{{"model":"m","messages":[],"seed":9007199254740993,{odd},"top_p":0.50}}'.encode()
    )
    sent = f'{{"model":"the-engine","messages":[],"seed":9007199254740993,{odd},"top_p":0.50}}'
    choice = (
        f'{{"index":0,"message":{{"role":"assistant","content":"é",{odd}}},"finish_reason":"stop"}}'
    )
    upstream.script(
        json_reply(f'{{"id":"a", {odd}, "model":"b","choices":[{choice}] ,"created":1}}'.encode())
    )
    answer = await provider.complete(ask)
    assert upstream.requests[0].body.decode() == sent
    assert answer.body.decode() == (
        f'{{"id":"chatcmpl-0193-call",{odd},"model":"the-clients-name","choices":[{choice}],'
        f'"created":1700000000,"provider":"acme"}}'
    )


async def test_a_stream_asks_for_usage_and_keeps_the_clients_other_options(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(chat_stream("x"))
    await read(provider, ask_of(stream=True))
    options = {"include_usage": False, "include_obfuscation": False}
    await read(provider, ask_of(stream=True, stream_options=options))
    await read(provider, ask_of(stream=True, stream_options=None))
    assert [request.json["stream_options"] for request in upstream.requests] == [
        {"include_usage": True},
        {"include_usage": True, "include_obfuscation": False},
        {"include_usage": True},
    ]


async def test_the_clients_model_stands_in_for_a_missing_engine(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply(chat_answer()))
    await provider.complete(ask_of()._replace(engine=""))
    assert upstream.requests[0].json["model"] == "the-clients-name"


async def test_headers_of_client_configuration_and_gateway_arrive(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply(chat_answer()))
    client = {
        "X-Trace": "abc",
        "x-org": "theirs",
        "Authorization": "Bearer theirs",
        "Connection": "close",
        "X-Bad": "a\r\nX-Smuggled: 1",
    }
    await provider.complete(ask_of(client))
    headers = upstream.requests[0].headers
    assert headers["X-Trace"] == "abc"
    assert headers["X-Org"] == "ours"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["User-Agent"].startswith("nexus/")
    assert headers["Content-Type"] == "application/json"
    assert not {"Connection", "X-Bad", "X-Smuggled", "Cookie"} & set(headers)
    assert upstream.requests[0].path == "/v1/chat/completions"


@both
async def test_the_clients_own_key_goes_in_place_of_the_gateways_and_of_all_its_account(
    http: Http, upstream: Upstream, stream: bool
) -> None:
    config = ProviderConfig(
        base_url=upstream.url,
        api_key=KEY,
        headers={
            "authorization": f"Basic {KEY}",
            "API-Key": "ours",
            "x-api-key": "ours",
            "X-Goog-Api-Key": "ours",
            "OpenAI-Organization": "org-ours",
            "X-Copy": f"key={KEY}",
            "X-Region": "eu",
        },
    )
    provider = make("openai", config, http, Clock())
    upstream.script(chat_stream("x") if stream else json_reply(chat_answer()))
    client = {"OpenAI-Project": "proj-theirs", "OpenAI-Organization": "org-theirs"}
    ask = ask_of(client, stream=stream)._replace(credential=CLIENT_KEY)
    if stream:
        assert (await read(provider, ask)).end is not None
    else:
        await provider.complete(ask)
    headers = upstream.requests[0].headers
    sent = [value for name, value in headers.items() if name.lower() == "authorization"]
    assert sent == [f"Bearer {CLIENT_KEY}"]
    assert headers["OpenAI-Organization"] == "org-theirs"
    assert headers["OpenAI-Project"] == "proj-theirs"
    assert headers["X-Region"] == "eu"
    values = [value for name, value in headers.items() if name != "Authorization"]
    assert not any(KEY in value or value == "ours" for value in headers.values())
    assert not any(CLIENT_KEY in value for value in values)
    assert CLIENT_KEY.encode() not in upstream.requests[0].body


async def test_a_clients_own_key_is_used_for_one_attempt_and_not_for_the_next(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply(chat_answer()))
    await provider.complete(ask_of()._replace(credential=CLIENT_KEY))
    await provider.complete(ask_of())
    sent = [request.headers["Authorization"] for request in upstream.requests]
    assert sent == [f"Bearer {CLIENT_KEY}", f"Bearer {KEY}"]
    assert upstream.connections == 1


@both
async def test_a_clients_key_does_not_follow_a_redirect(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    upstream.script(Reply(status=307, headers={"Location": f"{upstream.url}/elsewhere"}))
    ask = ask_of(stream=stream)._replace(credential=CLIENT_KEY)
    failure = await outcome(provider, ask)
    assert (failure.info.status, len(upstream.requests)) == (502, 1)


def test_an_attempt_never_shows_the_clients_key_or_words() -> None:
    ask = ask_of({"X-A": "b"}, says="my secret")._replace(credential=CLIENT_KEY)
    for shown in (repr(ask), str(ask), f"{ask}", repr([ask]), repr({"ask": ask})):
        assert CLIENT_KEY not in shown and "my secret" not in shown
        assert "0193-call" in shown


@both
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500])
async def test_no_failure_shows_the_clients_key_wherever_the_provider_puts_it(
    provider: Provider, upstream: Upstream, stream: bool, status: int
) -> None:
    error = {"message": f"No: {CLIENT_KEY}.", "code": CLIENT_KEY, "param": f"key={CLIENT_KEY}"}
    upstream.script(json_reply({"error": error}, status))
    ask = ask_of(stream=stream)._replace(credential=CLIENT_KEY)
    failure = await outcome(provider, ask)
    for shown in (repr(failure.info), repr(failure), str(failure)):
        assert "own+key" not in shown and "[removed]" in shown


@both
@pytest.mark.parametrize(
    "reply",
    [
        Reply(headers={"Content-Type": "text/html"}, steps=(b"<html>Sign in</html>",)),
        json_reply(b"nonsense"),
        json_reply([]),
        json_reply({}),
        json_reply({"choices": 1}),
        json_reply(b'{"choices": [{"message": {"content": "\xff"}}]}'),
        json_reply(b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
        Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        Reply(status=204),
    ],
    ids=[
        "html",
        "no json",
        "list",
        "empty",
        "choices",
        "utf-8",
        "too deep",
        "redirect",
        "no content",
    ],
)
async def test_an_answer_that_is_none_is_a_provider_error(
    provider: Provider, upstream: Upstream, reply: Reply, stream: bool
) -> None:
    upstream.script(reply)
    failure = await outcome(provider, ask_of(stream=stream))
    assert (failure.info.status, failure.info.type) == (502, "provider_error")
    assert "<" not in failure.info.message
    assert len(upstream.requests) == 1, "no redirect is followed"


@both
async def test_an_error_object_with_status_200_is_an_error(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    upstream.script(json_reply({"error": {"message": "no credits", "code": 402}}))
    failure = await outcome(provider, ask_of(stream=stream))
    assert failure.info.status == 502 and "no credits" in failure.info.message


@both
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_no_message_holds_the_providers_key(
    provider: Provider, upstream: Upstream, stream: bool, status: int
) -> None:
    message = f"Wrong key {KEY}, or was it sk-other-key-123 or Bearer abc.def?"
    upstream.script(json_reply({"error": {"message": message}}, status))
    failure = await outcome(provider, ask_of(stream=stream))
    for secret in (KEY, "sk-other", "abc.def"):
        assert secret not in failure.info.message
        assert secret not in str(failure)


async def test_what_the_provider_says_about_an_error_is_kept_and_bounded(
    provider: Provider, upstream: Upstream
) -> None:
    error = {"message": "Too long. " * 100, "param": "messages", "code": "context_length_exceeded"}
    upstream.script(json_reply({"error": error}, 400))
    info = (await outcome(provider, ask_of())).info
    assert (info.param, info.code) == ("messages", "context_length_exceeded")
    assert len(info.message) == 500 and info.message.startswith("Too long.")


@both
async def test_a_large_body_arrives_whole(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    upstream.script(chat_stream("x") if stream else json_reply(chat_answer()))
    ask = ask_of(stream=stream, says="é" * 4_000_000)
    if stream:
        assert (await read(provider, ask)).end is not None
    else:
        await provider.complete(ask)
    assert upstream.requests[0].json["messages"] == [{"role": "user", "content": "é" * 4_000_000}]


async def test_a_large_body_may_be_refused_before_it_was_read(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply({"error": {"message": "Too much."}}, 413))
    failure = await outcome(provider, ask_of(says="x" * 4_000_000))
    assert (failure.info.status, failure.info.message) == (413, "Too much.")


def test_base_urls_are_completed_and_checked(http: Http) -> None:
    def url_of(base_url: str) -> str:
        provider = make("acme", ProviderConfig(base_url=base_url), http, Clock())
        assert isinstance(provider, OpenAI)
        return provider.url

    assert url_of("http://localhost:11434") == "http://localhost:11434/v1/chat/completions"
    assert url_of("https://api.x.ai/v1/") == "https://api.x.ai/v1/chat/completions"
    assert url_of("https://h/openai?v=1") == "https://h/openai/chat/completions?v=1"
    for wrong in ("", "localhost:80", "ftp://host/v1"):
        with pytest.raises(ValueError, match=r"providers\.acme\.base_url"):
            url_of(wrong)
