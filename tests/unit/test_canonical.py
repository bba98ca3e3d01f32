"""Usage as disjoint classes, estimates, and the folding of chunks."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.call import Timeouts
from schemas.config import Quirks
from schemas.ids import Clock
from schemas.usage import Usage
from tests.folding import Folded, folded, splits
from tests.upstream import DONE, chat_chunk, event, usage
from workers.canonical import ChunkFolder
from workers.canonical_request import canonical_request
from workers.canonical_usage import read_usage
from workers.failures import Failures
from workers.providers.base import Ask, AttemptFailed, estimate_usage
from workers.sse import Parser

FAILURES = Failures("acme", (), Clock())


def ask(body: bytes = b"{}", *, stream: bool = True) -> Ask:
    return Ask("id", "name", "", body, stream, 1, {}, Timeouts())


def reported(**classes: int) -> Usage:
    return msgspec.structs.replace(Usage(status="reported"), **classes)


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        (usage(10, 5), reported(input=10, output=5)),
        (usage(10, 5, prompt_tokens_details=None), reported(input=10, output=5)),
        (
            usage(
                100,
                50,
                prompt_tokens_details={"cached_tokens": 60, "audio_tokens": 10},
                completion_tokens_details={"reasoning_tokens": 20, "audio_tokens": 5, "new": 1},
            ),
            reported(
                input=30, cached_input=60, audio_input=10, output=25, reasoning=20, audio_output=5
            ),
        ),
        (
            usage(10, 5, prompt_tokens_details={"cached_tokens": 99, "audio_tokens": 99}),
            reported(cached_input=10, output=5),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 55,
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
            reported(input=10, output=5, reasoning=40),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 18,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            reported(input=10, output=5, reasoning=3),
        ),
        (usage(0, 0), reported()),
        (
            usage(100, 5, prompt_tokens_details={"cached_tokens": 20, "cache_write_tokens": 30}),
            reported(input=50, cached_input=20, cache_write=30, output=5),
        ),
        (
            usage(100, 5, prompt_tokens_details={"cache_creation_tokens": 500}),
            reported(cache_write=100, output=5),
        ),
    ],
)
def test_usage_becomes_disjoint_classes(said: dict[str, Any], understood: Usage) -> None:
    assert read_usage(json.dumps(said).encode()) == understood


@pytest.mark.parametrize(
    "said",
    [
        b"{}",
        b"[]",
        b'"many"',
        b'{"prompt_tokens": 10}',
        b'{"prompt_tokens": -1, "completion_tokens": 5}',
        b'{"prompt_tokens": "10", "completion_tokens": 5}',
        b'{"prompt_tokens": 1e300, "completion_tokens": 5}',
        b'{"prompt_tokens": 99999999999999999999, "completion_tokens": 5}',
        b'{"prompt_tokens": true, "completion_tokens": 5}',
        b'{"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": "6"}',
        b'{"prompt_tokens": 1, "completion_tokens": 5, "prompt_tokens_details": [1]}',
    ],
)
def test_garbage_is_unknown_and_not_zero(said: bytes) -> None:
    assert read_usage(said) == Usage(status="unknown")


counts = st.integers(0, 10_000)


@given(counts, counts, counts, counts, counts, counts, st.one_of(st.none(), counts))
def test_no_class_is_negative_and_none_is_lost(
    prompt: int,
    completion: int,
    cached: int,
    heard: int,
    thought: int,
    spoken: int,
    total: int | None,
) -> None:
    said = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": heard},
        "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": spoken},
    }
    understood = read_usage(json.dumps(said).encode())
    assert understood.prompt == prompt
    assert understood.completion in (completion, completion + thought)
    assert min(understood.input, understood.cached_input, understood.audio_input) >= 0
    assert min(understood.output, understood.reasoning, understood.audio_output) >= 0


def test_an_estimate_counts_text_and_tools_but_no_images() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    messages = [
        {"role": "system", "content": "x" * 10},
        {"role": "user", "content": [{"type": "text", "text": "é" * 5}, image]},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    body = json.dumps({"messages": messages}).encode()
    assert estimate_usage(body, 9) == Usage(input=5, output=3, status="estimated")
    with_tools = json.dumps({"messages": messages, "tools": [1, 2]}).encode()
    assert estimate_usage(with_tools, 0) == Usage(input=7, status="estimated")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"messages": 1}', b"\xff", b"[" * 100_000])
def test_an_estimate_of_what_cannot_be_read_counts_the_answer(body: bytes) -> None:
    assert estimate_usage(body, 8) == Usage(output=2, status="estimated")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"stream_options": 1}', b"[" * 100_000])
def test_a_body_that_cannot_be_sent_is_the_clients_fault(body: bytes) -> None:
    with pytest.raises(AttemptFailed) as caught:
        canonical_request(ask(body), FAILURES)
    assert caught.value.info.status == 400
    assert not caught.value.reached and not caught.value.falls_back


STREAM = b": hello\n\n" + b"".join(
    [
        event(chat_chunk({"role": "assistant", "content": ""})),
        *(event(chat_chunk(text, index=at % 2)) for at, text in enumerate("sürpríse 😀")),
        event(chat_chunk({}, index=0, finish_reason="stop")),
        event(chat_chunk({}, index=1, finish_reason="length")),
        event(chat_chunk({}, choices=[], usage=usage(4, 10))),
        DONE,
    ]
)


def fold(blocks: list[bytes]) -> Folded:
    return folded(blocks, Parser(), ChunkFolder(ask(), FAILURES))


@given(splits(STREAM))
def test_a_stream_folds_to_the_same_at_any_split(blocks: list[bytes]) -> None:
    assert fold(blocks) == fold([STREAM])
    assert fold(blocks).text_bytes == len("sürpríse 😀".encode())


def sent(body: dict[str, Any], *, stream: bool = False, drop: bool = False, **quirks: Any) -> Any:
    """What a server with these quirks is sent."""
    asked = ask(json.dumps(body).encode(), stream=stream)
    return json.loads(canonical_request(asked, FAILURES, Quirks(**quirks), drop=drop))


def test_a_parameter_gets_the_name_that_the_server_knows() -> None:
    renames = {"max_completion_tokens": "max_tokens", "seed": "random_seed"}
    assert sent({"max_completion_tokens": 5, "seed": 1, "n": 2}, renames=renames) == {
        "n": 2,
        "model": "name",
        "max_tokens": 5,
        "random_seed": 1,
    }
    assert sent({"max_completion_tokens": 5, "max_tokens": 9}, renames=renames)["max_tokens"] == 9


def test_a_parameter_that_the_server_lacks_is_refused_by_name_or_left_out() -> None:
    lacks = ("logit_bias", "n")
    with pytest.raises(AttemptFailed) as caught:
        sent({"logit_bias": {"50256": -100}}, lacks=lacks)
    assert (caught.value.info.status, caught.value.info.param) == (400, "logit_bias")
    assert "drop_params" in caught.value.info.message and not caught.value.reached
    assert sent({"logit_bias": {"1": 1}, "n": 3}, lacks=lacks, drop=True) == {"model": "name"}
    asked = {"logit_bias": {"1": 1}, "drop_params": True}
    assert sent(asked, lacks=lacks) == {"model": "name"}
    assert sent({"logit_bias": {}, "n": 1}, lacks=lacks) == {"model": "name"}


def test_what_nobody_misses_is_not_sent() -> None:
    assert sent({"user": "ana", "store": True}, removes=("user", "store")) == {"model": "name"}
    assert "drop_params" not in sent({"drop_params": False})


def test_a_server_that_knows_no_stream_options_is_sent_none() -> None:
    asked = {"stream_options": {"include_usage": True}}
    assert "stream_options" not in sent(asked, stream=True, stream_usage=False)


def test_a_developer_is_the_system_where_that_role_is_unknown() -> None:
    said = [{"role": "developer", "content": "developer"}, {"role": "user", "content": "Hi"}]
    assert [one["role"] for one in sent({"messages": said}, developer=False)["messages"]] == [
        "system",
        "user",
    ]
    assert sent({"messages": said})["messages"] == said
