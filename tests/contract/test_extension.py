"""A class of document 001 as a provider: the contract, and what it may give, take and raise."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.usage import Usage
from tests.contract.openai_stage import KEY, OpenAIStage
from tests.contract.provider_contract import (
    ProviderContract,
    Stage,
    ask_of,
    both,
    is_the_gateways,
    outcome,
    read,
)
from tests.plugin import Plugins, message, provider_class, shown
from tests.upstream import Upstream
from workers.extension import wrapped
from workers.providers.base import AttemptFailed

# With somebody else's client, as such classes are written.
CLASS = """
    import openai

    class Acme:
        def __init__(self, api_key, base_url):
            self.client = openai.AsyncOpenAI(api_key=api_key, base_url=base_url, max_retries=0)

        async def complete(self, messages, model, **kwargs):
            return await self.client.chat.completions.create(
                messages=messages, model=model, **kwargs
            )

        async def stream(self, messages, model, **kwargs):
            return await self.client.chat.completions.create(
                messages=messages, model=model, stream=True,
                stream_options={"include_usage": True}, **kwargs
            )

        def count_tokens(self, text, model):
            return -(-len(text.encode()) // 4)

        async def close(self):
            await self.client.close()
"""


class TestAClassOfDocument001(ProviderContract):
    @pytest.fixture
    async def stage(self, plugins: Plugins, upstream: Upstream) -> AsyncIterator[Stage]:
        provider = plugins.make(CLASS, api_key=KEY, base_url=f"{upstream.url}/v1")
        yield OpenAIStage(provider, upstream)


# What a class may give.

SHAPED = "{'choices': [{'message': {'content': 'Hello'}}]}"
DUMPED = f"type('Reply', (), {{'model_dump': lambda self: {SHAPED}}})()"
CHUNK = "{'choices': [{'delta': {'content': 'Hello'}}]}"
LAST = "{'choices': [{'delta': {}, 'finish_reason': 'length'}]}"


@pytest.mark.parametrize("given", ["'Hello'", SHAPED, DUMPED], ids=["text", "dict", "object"])
async def test_a_whole_answer_may_be_text_a_dict_or_an_object(plugins: Plugins, given: str) -> None:
    provider = plugins.make(provider_class(whole=f"return {given}"))
    answer = await provider.complete(ask_of())
    assert is_the_gateways(shown(answer), provider)
    assert shown(answer)["object"] == "chat.completion"
    assert message(answer) == {"role": "assistant", "content": "Hello"}
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("async def stream(self, messages, model):\n        yield 'Hel'; yield 'lo'", "stop"),
        (
            f"async def stream(self, messages, model):\n        yield {CHUNK}; yield {LAST}",
            "length",
        ),
        ("async def stream(self, messages, model):\n        return self.pieces()", "stop"),
        ("def stream(self, messages, model):\n        return self.pieces()", "stop"),
        ("def stream(self, messages, model):\n        yield 'Hel'; yield 'lo'", "stop"),
        ("def stream(self, messages, model):\n        return ['Hello']", "stop"),
    ],
    ids=["generator", "chunks", "coroutine", "function", "plain generator", "list"],
)
async def test_a_stream_may_come_in_any_way(plugins: Plugins, method: str, reason: str) -> None:
    pieces = "async def pieces(self):\n        yield 'Hel'; yield 'lo'"
    provider = plugins.make(provider_class(more=f"{pieces}\n    {method}"))
    told = await read(provider, ask_of(stream=True))
    assert told.failure is None and told.end is not None
    assert told.text() == "Hello"
    assert told.finish_reasons() == {0: reason}
    assert all(is_the_gateways(chunk, provider) for chunk in told.chunks)
    assert {chunk["object"] for chunk in told.chunks} == {"chat.completion.chunk"}


@pytest.mark.parametrize(
    "given",
    ["None", "5", "b'bytes'", "{'text': 'Hello'}", "{'choices': 'Hello'}", "'\\ud800'", "object()"],
)
@both
async def test_what_has_no_shape_is_a_502(plugins: Plugins, stream: bool, given: str) -> None:
    provider = plugins.make(provider_class(f"return {given}", f"yield {given}"))
    failure = await outcome(provider, ask_of(stream=stream))
    assert (failure.info.status, failure.info.type) == (502, "provider_error")
    assert failure.info.provider == "mine"


@pytest.mark.parametrize(
    "stream", ["yield " + CHUNK, "return\n        yield"], ids=["cut", "empty"]
)
async def test_a_stream_without_an_end_is_a_broken_one(plugins: Plugins, stream: str) -> None:
    provider = plugins.make(provider_class(stream=stream))
    assert (await outcome(provider, ask_of(stream=True))).info.status == 502


# What it is asked with.

ECHO = "return repr([messages, model, kwargs])"


async def test_it_gets_messages_model_and_the_other_parameters(plugins: Plugins) -> None:
    provider = plugins.make(provider_class(ECHO))
    answer = await provider.complete(
        ask_of(temperature=0.5, tools=[], seed=None, metadata={"a": "b"}, max_tokens=9)
    )
    asked = [{"role": "user", "content": "Tell me"}]
    assert message(answer)["content"] == repr(
        [asked, "the-engine", {"temperature": 0.5, "tools": [], "max_tokens": 9}]
    )


@pytest.mark.parametrize(
    "name", ["base_url", "api_key", "self", "min_p", "messages_", "extra_body"]
)
@pytest.mark.parametrize("drop", [False, True], ids=["refused", "dropped"])
async def test_what_nobody_has_named_is_refused_or_left_out(
    plugins: Plugins, name: str, drop: bool
) -> None:
    provider = plugins.make(provider_class("return repr(kwargs)"))
    field: Any = {name: "x"}
    asked = ask_of(**field, drop_params=drop)
    if drop:
        assert message(await provider.complete(asked))["content"] == "{}"
        return
    failure = await outcome(provider, asked)
    assert (failure.info.status, failure.info.param) == (400, name)
    assert not failure.reached


async def test_a_method_takes_what_it_names_and_nothing_else(plugins: Plugins) -> None:
    more = "async def complete(self, messages, model, min_p=None):\n        return str(min_p)"
    provider = plugins.make(provider_class(more=more))
    assert message(await provider.complete(ask_of(min_p=0.1)))["content"] == "0.1"
    assert (await outcome(provider, ask_of(temperature=0))).info.param == "temperature"
    assert (await provider.complete(ask_of(n=1))).finish_reason == "stop"


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"messages": "Hi"}', b"\xff"])
@both
async def test_a_request_that_is_none_is_a_400(plugins: Plugins, stream: bool, body: bytes) -> None:
    provider = plugins.make(provider_class())
    failure = await outcome(provider, ask_of(stream=stream)._replace(body=body))
    assert (failure.info.status, failure.info.type) == (400, "invalid_request_error")


async def test_embeddings_are_refused(plugins: Plugins) -> None:
    with pytest.raises(AttemptFailed) as caught:
        await plugins.make(provider_class()).embed(ask_of(input="Hello"))
    assert caught.value.info.status == 400


# What it says it used.


@pytest.mark.parametrize(
    ("counting", "used"),
    [
        ("def count_tokens(self, text, model):\n        return len(text.split())", (2, 3)),
        ("async def count_tokens(self, text, model):\n        return len(text.split())", (2, 3)),
        ("def count_tokens(self, text, model):\n        return 1.0", (1, 1)),
        ("", (2, 4)),
        ("def count_tokens(self, text, model):\n        return -1", (2, 4)),
        ("def count_tokens(self, text, model):\n        return 10**9", (2, 4)),
        ("def count_tokens(self, text, model):\n        return None", (2, 4)),
        ("def count_tokens(self, text, model):\n        raise ImportError('tiktoken')", (2, 4)),
    ],
)
@both
async def test_tokens_are_counted_by_the_class_or_four_bytes_each(
    plugins: Plugins, stream: bool, counting: str, used: tuple[int, int]
) -> None:
    code = provider_class("return 'one two threee'", "yield 'one two '; yield 'threee'", counting)
    provider = plugins.make(code)
    expected = Usage(input=used[0], output=used[1], status="estimated")
    ask = ask_of(stream=stream, says="Say it")
    if stream:
        told = await read(provider, ask)
        assert told.end is not None and told.end.usage == expected
    else:
        assert (await provider.complete(ask)).usage == expected


async def test_what_was_counted_is_never_more_than_was_asked_for(plugins: Plugins) -> None:
    counting = "def count_tokens(self, text, model):\n        return len(text)"
    provider = plugins.make(provider_class("return 'x' * 50", more=counting))
    assert (await provider.complete(ask_of(max_tokens=5))).usage.output == 5


async def test_who_never_ends_counting_is_not_waited_for(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapped, "_COUNTED_WITHIN", 0.1)
    counting = "def count_tokens(self, text, model):\n        threading.Event().wait()"
    provider = plugins.make(provider_class(more=counting))
    assert (await provider.complete(ask_of())).usage.status == "estimated"


# How it fails.

ERROR = """
class Error(Exception):
    def __init__(self, text, **more):
        super().__init__(text)
        self.__dict__.update(more)

class Response:
    def __init__(self, **more):
        self.__dict__.update(more)
"""


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        ("Error('Too hot', status_code=422)", 422, "Too hot"),
        ("Error('?', status_code=422, message='Too cold')", 422, "Too cold"),
        ("Error('at http://place', response=Response(status_code=404))", 404, "status 404"),
        (
            "Error('?', response=Response(status_code=400, content=b'{\"message\": \"No.\"}'))",
            400,
            "No.",
        ),
        ("Error('slow down', status=429)", 429, "slow down"),
        ("Error('key', status_code=401)", 502, "refused the gateway's credentials"),
        ("Error('down', status_code=503)", 502, "down"),
        ("Error('odd', status_code=200)", 502, "could not answer (Error)"),
        ("Error('odd', status_code='400')", 502, "could not answer (Error)"),
        ("TimeoutError()", 504, "did not answer"),
        ("type('ReadTimeout', (Exception,), {})()", 504, "did not answer"),
        ("ConnectionResetError('secret-place')", 502, "could not answer (ConnectionResetError)"),
        ("KeyError('text')", 502, "could not answer (KeyError)"),
        ("SystemExit(3)", 502, "could not answer (SystemExit)"),
        ("KeyboardInterrupt()", 502, "could not answer (KeyboardInterrupt)"),
        ("asyncio.CancelledError()", 502, "could not answer (CancelledError)"),
        ("StopIteration()", 502, "could not answer (RuntimeError)"),
        ("GeneratorExit()", 502, "could not answer (GeneratorExit)"),
    ],
    ids=lambda value: value if isinstance(value, str) and "(" in value else "",
)
@both
async def test_what_it_raises_is_told_by_the_table(
    plugins: Plugins, stream: bool, error: str, status: int, message: str
) -> None:
    code = ERROR + provider_class(f"raise {error}", f"raise {error}\n        yield")
    provider = plugins.make(code)
    failure = await outcome(provider, ask_of(stream=stream))
    assert failure.info.status == status
    assert message in failure.info.message
    assert "place" not in failure.info.message
    # It goes on, whatever was raised.
    assert (await outcome(provider, ask_of(stream=stream))).info.status == status


async def test_a_rate_limit_of_a_foreign_library_says_when_to_come_back(plugins: Plugins) -> None:
    error = "Error('?', response=Response(status_code=429, headers={'retry-after': '7'}))"
    provider = plugins.make(ERROR + provider_class(f"raise {error}"))
    failure = await outcome(provider, ask_of())
    assert failure.retry_after == 7 and failure.retryable


async def test_a_mistake_in_the_code_is_not_tried_again_and_the_log_says_where(
    plugins: Plugins, caplog: pytest.LogCaptureFixture
) -> None:
    provider = plugins.make(provider_class("return {}['very private']"))
    with caplog.at_level(logging.WARNING):
        failure = await outcome(provider, ask_of())
    assert not failure.retryable and failure.falls_back and not failure.cost_known
    (record,) = caplog.records
    assert record.__dict__["kind"] == "KeyError"
    assert "acme_plugin_" in record.__dict__["place"]
    assert "very private" not in str(record.__dict__)


async def test_no_secret_is_told(plugins: Plugins) -> None:
    raised = "raise Error(f'Wrong: {self.given}', status_code=400)"
    provider = plugins.make(
        ERROR + provider_class(raised, init=", api_key, access_token"),
        api_key=KEY,
        options={"access_token": "token-of-the-operator"},
    )
    failure = await outcome(provider, ask_of())
    assert "Wrong" in failure.info.message
    assert KEY not in failure.info.message and "token-of-the" not in failure.info.message
