"""Every dialect of llmock through the whole gateway: errors, rate limits and broken streams.

What waits, or is tried again, is done with all dialects at once; llmock judges the retries.
"""

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.flow.providers.dialects import DIALECTS, Dialect, ask, everywhere, put_together
from tests.llmock_server import LLMock

NAMES = [dialect.provider for dialect in DIALECTS]
SAID = "You cannot have that."
LONG = "one two three four five six seven eight"
every = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.provider)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def served(llmock: LLMock) -> dict[str, list[int]]:
    """The status of each attempt since the last script, by the dialect's name in llmock."""
    statuses: dict[str, list[int]] = {}
    for request in llmock.requests:
        statuses.setdefault(request["provider"], []).append(request["status"])
    return statuses


def script_each(llmock: LLMock, **behavior: Any) -> None:
    """The same behaviour for each dialect."""
    llmock.script(*({**behavior, "match": {"provider": one.known_as}} for one in DIALECTS))


def refusal(client: OpenAI, dialect: Dialect, *, stream: bool) -> tuple[int, Any, str]:
    """Status and type of the error that a call must get, and the provider it names."""
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, dialect, stream=stream)
    error = caught.value
    assert isinstance(error.body, dict) and error.body["message"]
    return error.status_code, error.type, error.body["provider"]


def said(client: OpenAI, dialect: Dialect, *, stream: bool, **more: Any) -> str:
    """The text of an answer."""
    answer = ask(client, dialect, stream=stream, **more)
    if stream:
        text: str = put_together(list(answer))["text"]
        return text
    return answer.choices[0].message.content or ""


@every
@both
@pytest.mark.parametrize("status", [400, 404])
def test_a_refusal_is_told_with_the_providers_words_and_not_tried_again(
    llmock: LLMock, client: OpenAI, dialect: Dialect, status: int, stream: bool
) -> None:
    llmock.script({"type": "fail", "status": status, "message": SAID, "times": None})
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, dialect, stream=stream)
    error = caught.value
    assert (error.status_code, error.type) == (status, "invalid_request_error")
    assert SAID in error.message and isinstance(error.body, dict)
    assert error.body["provider"] == dialect.provider
    assert served(llmock) == {dialect.known_as: [status]}
    assert llmock.verdict["findings"] == []


@every
@both
@pytest.mark.parametrize("status", [401, 403])
def test_the_gateways_own_key_is_not_the_clients_to_mend(
    llmock: LLMock, client: OpenAI, dialect: Dialect, status: int, stream: bool
) -> None:
    llmock.script({"type": "fail", "status": status, "message": SAID, "times": None})
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, dialect, stream=stream)
    error = caught.value
    assert (error.status_code, error.type, error.code) == (502, "provider_error", "provider_auth")
    assert SAID not in error.message
    assert served(llmock) == {dialect.known_as: [status]}
    assert llmock.verdict["findings"] == []


@every
@pytest.mark.parametrize("status", [401, 403])
def test_the_clients_own_key_is(
    llmock: LLMock, client: OpenAI, dialect: Dialect, status: int
) -> None:
    llmock.script({"type": "fail", "status": status, "message": SAID, "times": None})
    own = {"X-Nexus-Provider-Key": f"{dialect.provider}=sk-of-the-client-0123456789"}
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(client, dialect, extra_headers=own)
    assert caught.value.type == "authentication_error" and SAID in caught.value.message


@both
@pytest.mark.parametrize("status", [500, 503])
def test_a_provider_that_does_not_recover_is_given_up_after_three_tries(
    llmock: LLMock, client: OpenAI, status: int, stream: bool
) -> None:
    llmock.script({"type": "fail", "status": status, "times": None})
    told = everywhere(lambda dialect: refusal(client, dialect, stream=stream))
    assert told == {name: (502, "provider_error", name) for name in NAMES}
    assert served(llmock) == {dialect.known_as: [status] * 3 for dialect in DIALECTS}
    judged = llmock.verdict
    assert judged["errors"] == 0 and judged["calls"] == len(DIALECTS), judged


@both
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_provider_that_recovers_is_not_noticed(
    llmock: LLMock, client: OpenAI, status: int, stream: bool
) -> None:
    """429 and 503 of llmock say to wait for a second."""
    script_each(llmock, type="fail", status=status)
    told = everywhere(lambda dialect: said(client, dialect, stream=stream))
    assert all("Is anybody there?" in text for text in told.values()), told
    assert served(llmock) == {dialect.known_as: [status, 200] for dialect in DIALECTS}
    assert llmock.verdict["findings"] == []


@both
def test_a_rate_limit_that_stays_is_told_with_its_wait(
    llmock: LLMock, client: OpenAI, stream: bool
) -> None:
    llmock.script({"type": "fail", "status": 429, "retry_after": 3600, "times": None})

    def told(dialect: Dialect) -> tuple[int, Any, str | None]:
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client, dialect, stream=stream)
        error = caught.value
        return error.status_code, error.type, error.response.headers.get("retry-after")

    assert everywhere(told) == dict.fromkeys(NAMES, (429, "rate_limit_error", "3600"))
    assert served(llmock) == {dialect.known_as: [429] for dialect in DIALECTS}
    assert llmock.verdict["errors"] == 0


@every
@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
def test_a_stream_that_breaks_is_told_to_the_client_after_what_came(
    llmock: LLMock, client: OpenAI, dialect: Dialect, kind: str
) -> None:
    llmock.script(
        {"type": "reply", "text": LONG, "times": None},
        {"type": "stream_fault", "kind": kind, "after_chunks": 6},
    )
    chunks: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        chunks.extend(chunk for chunk in ask(client, dialect, stream=True) if keep(chunks, chunk))
    assert caught.value.type == "provider_error"
    came = put_together(chunks)
    assert came["text"] and LONG.startswith(came["text"]) and came["text"] != LONG
    assert came["reason"] is None
    assert served(llmock) == {dialect.known_as: [200]}


def keep(chunks: list[Any], chunk: Any) -> bool:
    """Keeps a chunk at once, so that it is there when a later one raises."""
    chunks.append(chunk)
    return False


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
def test_a_stream_that_breaks_before_its_first_word_is_begun_again(
    llmock: LLMock, client: OpenAI, kind: str
) -> None:
    llmock.script(
        {"type": "reply", "text": LONG, "times": None},
        *(
            {
                "type": "stream_fault",
                "kind": kind,
                "after_chunks": 0,
                "match": {"provider": one.known_as, "stream": True},
            }
            for one in DIALECTS
        ),
    )
    told = everywhere(lambda dialect: said(client, dialect, stream=True))
    assert told == dict.fromkeys(NAMES, LONG)
    assert served(llmock) == {dialect.known_as: [200, 200] for dialect in DIALECTS}
    assert llmock.verdict["errors"] == 0


def test_a_stream_that_stalls_is_ended_by_the_models_timeout(
    llmock: LLMock, client: OpenAI
) -> None:
    llmock.script(
        {"type": "reply", "text": LONG, "times": None},
        {
            "type": "stream_fault",
            "kind": "stall",
            "after_chunks": 6,
            "stall_seconds": 30,
            "times": None,
        },
    )

    def told(dialect: Dialect) -> tuple[bool, Any]:
        chunks: list[Any] = []
        with pytest.raises(openai.APIError) as caught:
            for chunk in ask(client, dialect, model=f"hasty/{dialect.provider}", stream=True):
                chunks.append(chunk)
        return LONG.startswith(put_together(chunks)["text"]), caught.value.code

    assert everywhere(told) == dict.fromkeys(NAMES, (True, "timeout"))
    assert all(status == 200 for statuses in served(llmock).values() for status in statuses)
    assert llmock.verdict["findings"] == []


def test_a_slow_first_word_is_waited_for(llmock: LLMock, client: OpenAI) -> None:
    script_each(llmock, type="delay", seconds=0.3)
    assert len(everywhere(lambda dialect: said(client, dialect, stream=True))) == len(DIALECTS)
    script_each(llmock, type="slow_first_token", seconds=0.3)
    assert all(everywhere(lambda dialect: said(client, dialect, stream=True)).values())
    assert llmock.verdict["findings"] == []
