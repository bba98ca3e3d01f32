"""Scenes of the provider contract, played by a scripted server that speaks chat completions."""

import base64
import struct
from dataclasses import replace
from typing import Any

from schemas.usage import Usage
from tests.contract.provider_contract import (
    Scene,
)
from tests.upstream import (
    CUT,
    DONE,
    HANG,
    Recorded,
    Reply,
    Step,
    Upstream,
    chat_answer,
    chat_chunk,
    event,
    event_stream,
    json_reply,
    usage,
)
from workers.providers.base import Provider

KEY = "sk-operator-secret-0123456789"
ARGUMENTS = ('{"city": ', '"Paris"', "}")


class OpenAIStage:
    """Scenes are played by a scripted server that speaks chat completions."""

    lacks: frozenset[str] = frozenset()

    def __init__(self, provider: Provider, upstream: Upstream) -> None:
        self.provider = provider
        self.upstream = upstream

    def play(self, scene: Scene) -> dict[str, str]:
        def reply(request: Recorded) -> Reply:
            if scene.status != 200:
                error = {"error": {"message": f"Sorry: {scene.status}", "type": "x", "code": None}}
                headers = {"Retry-After": scene.retry_after} if scene.retry_after else {}
                return json_reply(error, scene.status, headers)
            if request.path.partition("?")[0].endswith("/embeddings"):
                return _embedded(scene, request.json)
            said = request.json["messages"][0]["content"]
            texts = [said] if scene.echoes else [f"wörd{at} " for at in range(scene.chunks)]
            return _stream(scene, texts) if request.json.get("stream") else _whole(scene, texts)

        self.upstream.script(reply)
        return {}

    async def busy(self) -> None:
        await self.upstream.request()

    async def quiet(self) -> None:
        for request in self.upstream.requests:
            if not request.cut and not request.answered.is_set():
                await request.gone.wait()


def usage_of(scene: Scene) -> dict[str, Any]:
    """The scene's usage in OpenAI's words: the details are parts of their totals."""
    told = scene.usage
    if told is None:
        return usage(7, 3)
    return usage(
        told.prompt,
        told.completion,
        prompt_tokens_details={
            "cached_tokens": told.cached_input,
            "cache_write_tokens": told.cache_write,
            "audio_tokens": told.audio_input,
        },
        completion_tokens_details={
            "reasoning_tokens": told.reasoning,
            "audio_tokens": told.audio_output,
        },
    )


def _logprobs(texts: list[str]) -> dict[str, Any]:
    said = [{"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []} for text in texts]
    return {"content": said, "refusal": None}


def _embedded(scene: Scene, asked: Any) -> Reply:
    """As OpenAI's: in base64 where that is asked for."""
    texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    rows: list[Any] = list(scene.vectors[: len(texts)])
    if asked.get("encoding_format") == "base64":
        packed = [struct.pack(f"<{len(row)}f", *row) for row in rows]
        rows = [base64.b64encode(one).decode() for one in packed]
    told = scene.usage or Usage(input=7)
    answer: dict[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)
        ],
        "model": "engine-of-upstream",
    }
    if scene.reports_usage:
        answer["usage"] = {"prompt_tokens": told.prompt, "total_tokens": told.prompt}
    return json_reply(answer)


def _whole(scene: Scene, texts: list[str]) -> Reply:
    if scene.cut is not None:
        return Reply(before=(CUT,))
    answer = chat_answer("".join(texts), choices=scene.choices, usage=usage_of(scene))
    if scene.thinks:
        answer["choices"][0]["message"]["reasoning_content"] = scene.thinks
    if scene.logprobs:
        answer["choices"][0]["logprobs"] = _logprobs(texts)
    if scene.tool:
        function = {"name": scene.tool, "arguments": "".join(ARGUMENTS)}
        calls = [
            {"id": f"call_{number}", "type": "function", "function": function}
            for number in range(scene.calls)
        ]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        answer["choices"][0] |= {"message": message, "finish_reason": "tool_calls"}
    if not scene.reports_usage:
        del answer["usage"]
    reply = json_reply(answer)
    return reply if scene.hang is None else replace(reply, before=(HANG,))


def _stream(scene: Scene, texts: list[str]) -> Reply:
    steps: list[Step] = []
    if scene.thinks:
        steps.append(event(chat_chunk({"reasoning_content": scene.thinks})))
    for text in texts:
        chunks = [chat_chunk(text, index=at) for at in range(scene.choices)]
        if scene.logprobs:
            chunks[0]["choices"][0]["logprobs"] = _logprobs([text])
        steps += map(event, chunks)
    if scene.tool:
        steps = []
        for number in range(scene.calls):
            start = {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": scene.tool, "arguments": ""},
            }
            parts = [start, *({"function": {"arguments": part}} for part in ARGUMENTS)]
            steps += [
                event(chat_chunk({"tool_calls": [{"index": number, **part}]})) for part in parts
            ]
    reason = "tool_calls" if scene.tool else "stop"
    steps += [event(chat_chunk({}, index=at, finish_reason=reason)) for at in range(scene.choices)]
    if scene.reports_usage:
        steps.append(event(chat_chunk({}, choices=[], usage=usage_of(scene))))
    steps.append(DONE)
    for fault, after in ((CUT, scene.cut), (HANG, scene.hang)):
        if after == 0:
            return Reply(before=(fault,))
        if after is not None:
            steps = [*steps[:after], fault]
    return event_stream(*steps)
