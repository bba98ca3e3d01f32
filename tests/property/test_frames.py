"""From frames to the completion a client reads: grouping, order and repeats change nothing."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingress.dialects import openai
from ingress.request import Include, ModelRequest
from ingress.sequencer import Sequencer
from schemas.frames import Chunk, Fence, Finish, Timings, decode_frame, encode_frame
from schemas.usage import Cost, Usage

FENCE = Fence(3, 1, 1)
texts = st.lists(st.text(min_size=1, max_size=40), max_size=30)


def delta(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return json.dumps({"id": "chatcmpl-1", "choices": [choice], "x_unknown": [1e400, 7]}).encode()


def finish(index: int) -> Finish:
    last = {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return Finish(
        fence=FENCE,
        index=index,
        event_id="e",
        time_ns=1_700_000_000_000_000_000,
        provider="p",
        engine="m",
        usage=Usage(input=3, output=4, cached_input=2, status="reported"),
        cost=Cost(input=5_000, output=8_000),
        price_id="p/1",
        timings=Timings(total=12.5, first_byte=2.5, network=2.0),
        attempts=1,
        finish_reason="stop",
        body=json.dumps(last).encode(),
    )


def request(usage_chunk: bool, include: Include = Include()) -> ModelRequest:  # noqa: B008
    return ModelRequest("m", True, usage_chunk, include, b"{}")


def events(stream: bytes) -> list[str]:
    return [block[len("data: ") :] for block in stream.decode().split("\n\n") if block]


@given(texts=texts, data=st.data(), usage_chunk=st.booleans())
def test_a_stream_reads_the_same_however_its_frames_were_grouped_and_delivered(
    texts: list[str], data: st.DataObject, usage_chunk: bool
) -> None:
    parts = [delta(text) for text in texts]
    frames: list[Chunk | Finish] = []
    while parts:
        size = data.draw(st.integers(1, len(parts)))
        frames.append(Chunk(FENCE, len(frames) + 1, tuple(parts[:size]), 1))
        parts = parts[size:]
    frames.append(finish(len(frames) + 1))
    arrivals = data.draw(st.permutations(frames + frames[: data.draw(st.integers(0, 3))]))

    sequencer, out = Sequencer(), b""
    for frame in arrivals:
        for ready in sequencer.accept(decode_frame(encode_frame(frame))):
            if isinstance(ready, Chunk):
                out += openai.chunks(ready)
            elif isinstance(ready, Finish):
                out += openai.last_chunks(ready, ready.body, request(usage_chunk), None, "1")

    *bodies, done = events(out)
    assert done == "[DONE]"
    decoded: list[dict[str, Any]] = [json.loads(body) for body in bodies]
    if usage_chunk:
        usage = decoded.pop()
        assert usage["choices"] == []
        assert usage["usage"]["total_tokens"] == 9
    last = decoded.pop()
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["usage"]["cache_hit_tokens"] == 2
    assert last["cost"]["total_cost"] == 0.000013
    assert last["latency"]["processing_time_ms"] == 10.0
    assert [chunk["choices"][0]["delta"]["content"] for chunk in decoded] == texts


@given(
    fields=st.dictionaries(
        st.text(max_size=10).filter(lambda name: name not in {"usage", "cost", "latency"}),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
        max_size=6,
    )
)
def test_what_the_gateway_does_not_know_comes_through_an_answer_unharmed(
    fields: dict[str, Any],
) -> None:
    body = json.dumps(fields).encode()
    answer = json.loads(openai.answer(finish(1), body, request(False), None))
    assert {name: answer[name] for name in fields} == fields
    plain = request(False, Include(include_usage=False, include_cost=False, include_latency=False))
    assert json.loads(openai.answer(finish(1), body, plain, None)) == fields
