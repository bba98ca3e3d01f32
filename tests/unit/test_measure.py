"""What a prompt is measured as, before it runs: text, images, sound, tools, searches."""

import json
import sys
from typing import Any

import pytest

from ingress.estimates import largest_prompt
from ingress.measure import measure
from schemas.errors import InvalidRequest
from tests.measured_calls import body, image


def sound(form: str, data: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"format": form, "data": data}}


def test_text_is_measured_in_utf8_bytes_however_it_is_escaped() -> None:
    text = 'a"b\n\u00e9\u4e2d\U0001f600'
    escaped = body(text)
    plain = json.dumps(
        {"messages": [{"role": "user", "content": text}]}, ensure_ascii=False
    ).encode()
    assert measure(escaped).text_bytes == measure(plain).text_bytes == len(text.encode())


def test_what_is_no_text_of_the_prompt_is_not_counted() -> None:
    settings = {"temperature": 1, "metadata": {"a": "b" * 500}, "stop": ["x"], "stream": True}
    assert measure(body("Hi", **settings)).text_bytes == 2


def test_a_field_that_nobody_knows_counts_as_text() -> None:
    assert measure(body("Hi", documents=["d" * 100])).text_bytes > 100


def test_a_role_that_nobody_knows_counts_as_text() -> None:
    message = {"role": "r" * 1000, "content": "Hi"}
    assert measure(json.dumps({"messages": [message]}).encode()).text_bytes == 1002


def test_tool_definitions_and_tool_calls_count_as_text() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "d" * 300}}
    found = measure(body("Hi", tools=[tool, tool]))
    assert found.tools == 2 and found.text_bytes > 600 and not found.unmeasured
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "a" * 400}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    asked = json.dumps({"messages": [message]}).encode()
    assert 400 < measure(asked).text_bytes < 600


def test_images_are_counted_by_detail_and_not_by_their_bytes() -> None:
    data = "data:image/png;base64," + "A" * 100_000
    found = measure(
        body([image(), image("auto"), image("high", data), image("low"), image("original")])
    )
    assert (found.images, found.low_images, found.original_images) == (3, 1, 1)
    assert found.text_bytes == 0


def test_the_seconds_of_a_sound_are_the_most_that_its_bytes_can_hold() -> None:
    assert measure(body([sound("mp3", "A" * 40_000)])).audio_seconds == 31
    assert measure(body([sound("flac", "A" * 40_000)])).unmeasured == 1


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
        {"type": "something_new", "payload": "A" * 100},
        {"type": "input_audio", "input_audio": "not an object"},
        {"type": "input_audio", "input_audio": {"format": ["mp3"], "data": "AAAA"}},
        {"no": "type"},
        image(url="data:application/pdf;base64,AAAA"),
    ],
)
def test_a_part_that_cannot_be_measured_counts_as_a_whole_window(part: Any) -> None:
    found = measure(body(["text", part]))
    assert found.unmeasured == 1
    assert largest_prompt(found, "llama", 5000).unknown == 5000


@pytest.mark.parametrize(
    "fields",
    [
        {"web_search_options": {}},
        {"plugins": [{"id": "web"}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    ],
)
def test_a_search_of_the_provider_counts_as_a_whole_window(fields: Any) -> None:
    assert measure(body("Hi", **fields)).unmeasured == 1
    assert not measure(body("Hi", plugins=None, enable_search=False)).unmeasured


def test_a_reference_to_an_earlier_answer_in_sound_cannot_be_measured() -> None:
    message = {"role": "assistant", "audio": {"id": "audio_1"}}
    assert measure(json.dumps({"messages": [message]}).encode()).unmeasured == 1


def test_the_larger_of_two_output_limits_counts() -> None:
    assert measure(body("Hi")).max_tokens is None
    assert measure(body("Hi", max_tokens=None)).max_tokens is None
    found = measure(body("Hi", max_tokens=10, max_completion_tokens=20, n=3))
    assert (found.max_tokens, found.choices) == (20, 3)


@pytest.mark.parametrize(
    "content",
    [17, True, None, {"a": "b"}, [17, None, "text", ["nested"]], [{"type": ["text"]}], ""],
)
def test_content_of_any_shape_is_measured(content: Any) -> None:
    assert measure(body(content)).messages == 1


def test_messages_nested_too_deeply_are_the_clients_error() -> None:
    depth = sys.getrecursionlimit() + 100
    nested = b'{"messages":[{"role":"user","content":' + b"[" * depth + b"]" * depth + b"}]}"
    with pytest.raises(InvalidRequest):
        measure(nested)
    for depth in (100, 500, 900):
        deep = b'{"messages":[{"role":"user","x":' + b'[{"a":' * depth + b"1" + b"}]" * depth
        try:
            measure(deep + b"}]}")
        except InvalidRequest as error:
            assert error.info.param == "messages"


@pytest.mark.parametrize("number", [b"1e999", b"9" * 5000])
def test_a_number_in_a_message_that_nothing_holds_is_the_clients_error(number: bytes) -> None:
    asked = b'{"messages":[{"role":"user","content":' + number + b"}]}"
    with pytest.raises(InvalidRequest):
        measure(asked)
