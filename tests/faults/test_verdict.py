"""llmock judges its client over many faults at once: no Retry-After ignored, nothing retried that
cannot get better, no storm of retries, no broken stream taken for a whole answer."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
import pytest

from tests.flow.gateway import Gateway, running_gateway, told
from tests.llmock_server import LLMock, llmock_server
from tests.upstream import Recorded, Reply, chat_answer, chat_stream, json_reply

AT_ONCE = 32
TIMEOUT = 4.0
FINAL = {400, 401, 403, 404, 413, 422}
REFUSED = {400, 413, 422}
STATUSES = (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 529)
TEXT = "one two three four five six"
# Pauses with full jitter are random: a later one may be the shorter.
HARMLESS = {"no_backoff"}
# What llmock says of a broken stream whose end it had not noted yet when the retry came: it takes
# the retry for another call then. That there was one is looked for among its requests.
OVERLOOKED = {"truncated_stream_accepted", "malformed_chunk_ignored"}


class Case(NamedTuple):
    """One call and what llmock does with its first `times` attempts (None: with all)."""

    name: str
    stream: bool
    behavior: dict[str, Any]
    times: int | None
    spare: bool = False

    @property
    def answered(self) -> bool:
        """Whether the client must get an answer, from whomever."""
        status = self.behavior.get("status", 0)
        if self.times is not None and status not in FINAL:
            return True
        return self.spare and status not in REFUSED


def _failing() -> Iterator[Case]:
    for status in STATUSES:
        for wait in (None, 0.4):
            for times in (1, 2, None):
                for stream in (False, True):
                    behavior = {"type": "fail", "status": status, "retry_after": wait}
                    name = f"{status}-{wait}-{times}-{stream}"
                    yield Case(name, stream, behavior, times, spare=stream)


def _breaking(after: int, times: tuple[int, ...]) -> Iterator[Case]:
    for kind in ("disconnect", "truncate", "malformed", "stall"):
        for count in times:
            fault = {"type": "stream_fault", "kind": kind, "after_chunks": after}
            name = f"{kind}-{after}-{count}"
            yield Case(name, True, {**fault, "stall_seconds": 30}, count, spare=True)


def _slow() -> Iterator[Case]:
    for kind, stream in (("delay", False), ("delay", True), ("slow_first_token", True)):
        yield Case(f"{kind}-{stream}", stream, {"type": kind, "seconds": 0.3}, 1)


MENDED = (*_failing(), *_breaking(0, (1, 2)), *_slow())
SEEN_BROKEN = tuple(_breaking(4, (1,)))


@pytest.fixture(scope="module")
def llmock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMock]:
    log = tmp_path_factory.mktemp("llmock") / "log"
    with llmock_server(log, "--response-style", "echo") as server:
        yield server


@pytest.fixture(scope="module")
def gateway(llmock: LLMock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Each case has a provider of its own, so that no circuit opens for the others."""
    providers, models = "", ""
    for case in (*MENDED, *SEEN_BROKEN):
        providers += (
            f'  "{case.name}": {{dialect: openai, base_url: "{llmock.url}/v1", pool: llmock,'
            f' api_key: "${{UP_API_KEY}}"}}\n'
        )
        spare = ", fallbacks: [up-model]" if case.spare else ""
        models += f'  "{case.name}": {{provider: "{case.name}", timeout: {TIMEOUT}{spare}}}\n'
    folder = tmp_path_factory.mktemp("verdict")
    with running_gateway(folder, models, providers) as gateway:
        gateway.up.script(_spare)
        yield gateway


def _spare(request: Recorded) -> Reply:
    return chat_stream(TEXT) if request.json.get("stream") else json_reply(chat_answer(TEXT))


def test_the_verdict_on_faults_that_can_be_mended_is_clean(
    llmock: LLMock, gateway: Gateway
) -> None:
    assert _play(llmock, gateway, MENDED) == {case.name: case.answered for case in MENDED}
    findings = [one for one in _verdict(llmock)["findings"] if one["code"] not in HARMLESS]
    served = _served(llmock)
    assert [one for one in findings if not _was_mended(one, served)] == []
    asked = _asked(llmock)
    assert max(asked.values()) <= 3
    for case in MENDED:
        final = case.behavior.get("status") in FINAL or "seconds" in case.behavior
        tries = 3 if case.times is None else case.times + 1
        assert asked[case.name] == (1 if final else tries), case.name


def test_a_stream_that_breaks_after_its_first_words_is_told_as_broken_and_not_asked_again(
    llmock: LLMock, gateway: Gateway
) -> None:
    """llmock does not see what the client was told, so it suspects each of these of having been
    taken for whole: that the client got an error is looked at here."""
    played = _play(llmock, gateway, SEEN_BROKEN)
    assert played == {case.name: False for case in SEEN_BROKEN}
    suspected = {"truncated_stream_accepted", "malformed_chunk_ignored", "gave_up"}
    assert {one["code"] for one in _verdict(llmock)["findings"]} <= suspected
    assert _asked(llmock) == Counter(case.name for case in SEEN_BROKEN)


def _play(llmock: LLMock, gateway: Gateway, cases: tuple[Case, ...]) -> dict[str, bool]:
    """All cases at once; whether each got a whole answer, by its name."""
    llmock.script(
        *({**one.behavior, "times": one.times, "match": {"model": one.name}} for one in cases)
    )
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answered = pool.map(lambda case: _is_answered(gateway, case), cases)
        return dict(zip([case.name for case in cases], answered, strict=True))


def _is_answered(gateway: Gateway, case: Case) -> bool:
    response = gateway.ask(case.name, TEXT, stream=case.stream)
    if response.status_code != 200:
        return False
    if not case.stream:
        return TEXT in response.json()["choices"][0]["message"]["content"]
    chunks = told(response)
    text = "".join(
        choice["delta"].get("content") or ""
        for chunk in chunks
        for choice in chunk.get("choices", ())
    )
    return "error" not in chunks[-1] and TEXT in text


def _was_mended(finding: dict[str, Any], served: list[dict[str, Any]]) -> bool:
    """Whether it is of a broken stream that was asked again, until a good answer came."""
    if finding["code"] not in OVERLOOKED:
        return False
    last = max(finding["requests"])
    (model,) = {one["model"] for one in served if one["seq"] == last}
    return any(
        one["model"] == model and one["seq"] > last and one["fault"] is None and one["completed"]
        for one in served
    )


def _asked(llmock: LLMock) -> Counter[str]:
    """How often each model was asked for."""
    return Counter(one["model"] for one in _served(llmock))


def _served(llmock: LLMock) -> list[dict[str, Any]]:
    found = httpx.get(f"{llmock.url}/_llmock/requests", timeout=10).json()["requests"]
    return list(found)


def _verdict(llmock: LLMock) -> dict[str, Any]:
    judged: dict[str, Any] = httpx.get(f"{llmock.url}/_llmock/verdict", timeout=10).json()
    return judged
