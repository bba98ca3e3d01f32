"""What another provider does for a dialect of llmock that cannot, and llmock's own report."""

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.flow.gateway import Gateway
from tests.flow.providers.dialects import DIALECTS, Dialect, ask, everywhere, put_together
from tests.llmock_server import LLMock
from tests.upstream import chat_answer, chat_stream, json_reply

OTHER = "From the other"
FAULTS: list[tuple[bool, dict[str, Any], int]] = [
    (False, {"type": "fail", "status": 429, "retry_after": 0.5}, 200),
    (True, {"type": "fail", "status": 429, "retry_after": 0.3}, 200),
    (False, {"type": "fail", "status": 400}, 400),
    (True, {"type": "fail", "status": 401}, 502),
    (False, {"type": "fail", "status": 500, "times": 2}, 200),
    (True, {"type": "fail", "status": 503, "retry_after": 0.2}, 200),
    (False, {"type": "delay", "seconds": 0.3}, 200),
    (True, {"type": "slow_first_token", "seconds": 0.3}, 200),
    (True, {"type": "stream_fault", "kind": "disconnect", "after_chunks": 0}, 200),
    (False, {"type": "fail", "status": 422}, 422),
]
RETRIES = 6


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.provider)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_fallback_answers_for_a_provider_that_cannot(
    llmock: LLMock, gateway: Gateway, client: OpenAI, dialect: Dialect, status: int, stream: bool
) -> None:
    llmock.script({"type": "fail", "status": status, "times": None, "retry_after": 3600})
    gateway.up.script(chat_stream(OTHER) if stream else json_reply(chat_answer(OTHER)))
    answer = ask(client, dialect, model=f"safe/{dialect.provider}", stream=stream)
    if stream:
        chunks = list(answer)
        assert put_together(chunks)["text"] == OTHER
        assert {chunk.provider for chunk in chunks} == {"up"}
    else:
        assert (answer.choices[0].message.content, answer.provider) == (OTHER, "up")
    assert gateway.up.request.json["model"] == "engine-1"


def test_the_report_on_many_calls_with_many_faults(llmock: LLMock, client: OpenAI) -> None:
    """llmock's own judgement: nothing was retried too early, too often or in vain."""
    llmock.script({"type": "reply", "text": "Hello", "times": None})
    outcomes = everywhere(
        lambda dialect: [outcome(llmock, client, dialect, *one) for one in FAULTS]
    )
    expected = [expected for _, _, expected in FAULTS]
    assert outcomes == {dialect.provider: expected for dialect in DIALECTS}
    judged = llmock.verdict
    assert judged["errors"] == 0, judged["findings"]
    assert judged["calls"] == len(FAULTS) * len(DIALECTS)
    assert judged["attempts"] == judged["calls"] + RETRIES * len(DIALECTS)


def outcome(
    llmock: LLMock,
    client: OpenAI,
    dialect: Dialect,
    stream: bool,
    fault: dict[str, Any],
    expected: int,
) -> int:
    """The status of one call that meets a fault, 200 for the whole answer."""
    mine = {**fault, "match": {"provider": dialect.known_as}}
    llmock.add(mine)
    try:
        answer = ask(client, dialect, f"How about {fault}? {expected}", stream=stream)
    except openai.APIStatusError as error:
        return error.status_code
    said = put_together(list(answer))["text"] if stream else answer.choices[0].message.content
    assert said == "Hello"
    return 200
