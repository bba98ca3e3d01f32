"""LiteLLM keeps the contract of providers, through the library at a scripted server."""

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.openai_stage import OpenAIStage
from tests.contract.provider_contract import (
    CLIENT_KEY,
    ProviderContract,
    Scene,
    Stage,
    ask_of,
    both,
    outcome,
    read,
)
from tests.upstream import Upstream, chat_answer, chat_stream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider

KEY = "sk-operator-key-for-litellm-0123456789"

# The library leaves its clients open until it is collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture
async def provider(upstream: Upstream, http: Http) -> AsyncIterator[Provider]:
    config = ProviderConfig(
        dialect="litellm",
        base_url=f"{upstream.url}/v1",
        api_key=KEY,
        options={"provider": "openai"},
    )
    provider = make("lite", config, http, Clock())
    yield provider
    await provider.close()


class TestLiteLLM(ProviderContract):
    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        stage = OpenAIStage(provider, upstream)
        stage.lacks = frozenset({"n"})
        yield stage

    @both
    async def test_every_choice_arrives_with_its_own_end(self, stage: Stage, stream: bool) -> None:
        """Whole answers may have several choices; a stream loses the ends of all but one."""
        ask = ask_of(stage.play(Scene(choices=3)), stream=stream, n=3)
        if stream:
            failure = await outcome(stage.provider, ask)
            assert (failure.info.status, failure.info.param) == (400, "n")
        else:
            shown = json.loads((await stage.provider.complete(ask)).body)
            assert [choice["index"] for choice in shown["choices"]] == [0, 1, 2]


async def test_the_request_goes_to_the_operators_address_with_the_operators_key(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply(chat_answer()))
    await provider.complete(ask_of(temperature=0.5, seed=7))
    arrived = upstream.requests[0]
    assert arrived.path == "/v1/chat/completions"
    assert arrived.headers["Authorization"] == f"Bearer {KEY}"
    assert arrived.json["model"] == "the-engine"
    assert (arrived.json["temperature"], arrived.json["seed"]) == (0.5, 7)


async def test_the_clients_own_key_takes_its_place(provider: Provider, upstream: Upstream) -> None:
    upstream.script(json_reply(chat_answer()))
    await provider.complete(ask_of()._replace(credential=CLIENT_KEY))
    assert upstream.requests[0].headers["Authorization"] == f"Bearer {CLIENT_KEY}"


@pytest.mark.parametrize(
    "field",
    [
        {"api_base": "http://127.0.0.1:9/steal"},
        {"base_url": "http://127.0.0.1:9/steal"},
        {"api_key": "mine"},
        {"custom_llm_provider": "azure"},
        {"extra_headers": {"X-Evil": "1"}},
        {"mock_response": "free"},
        {"fallbacks": ["gpt-4o"]},
        {"num_retries": 50},
    ],
    ids=lambda field: next(iter(field)),
)
@pytest.mark.parametrize("drop", [False, True], ids=["refused", "dropped"])
async def test_a_client_cannot_say_where_the_library_goes(
    provider: Provider, upstream: Upstream, field: dict[str, Any], drop: bool
) -> None:
    upstream.script(json_reply(chat_answer("from the right place")))
    asked = ask_of(**field, drop_params=drop)
    if not drop:
        failure = await outcome(provider, asked)
        assert (failure.info.status, failure.info.param) == (400, next(iter(field)))
        assert upstream.requests == []
        return
    answer = await provider.complete(asked)
    assert "from the right place" in answer.body.decode()
    (arrived,) = upstream.requests
    assert arrived.headers["Authorization"] == f"Bearer {KEY}"
    assert "X-Evil" not in arrived.headers


async def test_embeddings(provider: Provider, upstream: Upstream) -> None:
    row = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    upstream.script(json_reply({"object": "list", "data": [row], "model": "m", "usage": usage}))
    answer = await provider.embed(ask_of(input=["Hello"], encoding_format="float"))
    assert json.loads(answer.body)["data"][0]["embedding"] == [0.5, 0.25]
    assert (answer.usage.input, answer.usage.status) == (3, "reported")


async def test_without_the_library_the_setting_says_what_to_install(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(ValueError, match=r"providers\.lite\.dialect: .*nexus-gateway\[litellm\]"):
        make("lite", ProviderConfig(dialect="litellm"), http, Clock())


@both
async def test_what_the_library_thinks_that_a_model_lacks_is_refused_by_name_or_dropped(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    upstream.script(chat_stream("Hi") if stream else json_reply(chat_answer("Hi")))
    asked = ask_of(stream=stream, reasoning_effort="low")._replace(engine="gpt-4o")
    failure = await outcome(provider, asked)
    assert (failure.info.status, failure.info.param) == (400, "reasoning_effort")
    assert not failure.reached and "drop_params" in failure.info.message
    assert upstream.requests == []
    dropped = ask_of(stream=stream, reasoning_effort="low", drop_params=True)
    if stream:
        assert (await read(provider, dropped._replace(engine="gpt-4o"))).end is not None
    else:
        await provider.complete(dropped._replace(engine="gpt-4o"))
    assert "reasoning_effort" not in upstream.requests[0].json


async def test_the_clients_headers_arrive_and_those_of_credentials_never(
    http: Http, upstream: Upstream
) -> None:
    config = ProviderConfig(
        dialect="litellm",
        base_url=f"{upstream.url}/v1",
        api_key=KEY,
        headers={"X-Org": "ours"},
        options={"provider": "openai"},
    )
    provider = make("lite", config, http, Clock())
    upstream.script(json_reply(chat_answer()))
    headers = {"X-Trace": "abc", "Authorization": "Bearer theirs", "X-Org": "theirs"}
    await provider.complete(ask_of(headers))
    await provider.complete(ask_of(headers)._replace(credential=CLIENT_KEY))
    await provider.close()
    ours, theirs = (request.headers for request in upstream.requests)
    assert (ours["X-Trace"], ours["X-Org"]) == ("abc", "ours")
    assert ours["Authorization"] == f"Bearer {KEY}"
    assert (theirs["X-Trace"], theirs["X-Org"]) == ("abc", "theirs")
    assert theirs["Authorization"] == f"Bearer {CLIENT_KEY}"
