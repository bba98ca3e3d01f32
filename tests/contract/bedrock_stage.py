"""Scenes of the provider contract, played by a scripted server that speaks Bedrock's Converse."""

import json
import struct
from dataclasses import replace
from typing import Any
from zlib import crc32

from schemas.usage import Usage
from tests.contract.provider_contract import Scene
from tests.upstream import CUT, HANG, Recorded, Reply, Step, Upstream, json_reply
from workers.providers.base import Provider

KEY = "bedrock-api-key-operator-0123456789"
ARGUMENTS = ('{"city": ', '"Paris"', "}")
SIGNATURE = "c2lnbmVk"
EVENT_STREAM = {"Content-Type": "application/vnd.amazon.eventstream"}
_TYPES = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}


def frame(payload: bytes, headers: dict[str, str]) -> bytes:
    """One message of an event stream, whose headers are all text."""
    block = b"".join(
        bytes([len(name.encode())])
        + name.encode()
        + b"\x07"
        + struct.pack(">H", len(value.encode()))
        + value.encode()
        for name, value in headers.items()
    )
    head = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    message = head + struct.pack(">I", crc32(head)) + block + payload
    return message + struct.pack(">I", crc32(message))


def event(kind: str, value: Any) -> bytes:
    """One event with a JSON payload; bytes are its payload as they are."""
    payload = value if isinstance(value, bytes) else json.dumps(value).encode()
    return frame(
        payload,
        {
            ":event-type": kind,
            ":content-type": "application/json",
            ":message-type": "event",
        },
    )


def exception(kind: str, message: str, **more: Any) -> bytes:
    """An exception in the midst of a stream."""
    return frame(
        json.dumps({"message": message, **more}).encode(),
        {
            ":exception-type": kind,
            ":content-type": "application/json",
            ":message-type": "exception",
        },
    )


def text_block(index: int, *texts: str) -> list[bytes]:
    deltas = [
        event("contentBlockDelta", {"contentBlockIndex": index, "delta": {"text": text}})
        for text in texts
    ]
    return [*deltas, event("contentBlockStop", {"contentBlockIndex": index})]


def tool_block(index: int, call_id: str, name: str, *pieces: str) -> list[bytes]:
    start = {"toolUse": {"toolUseId": call_id, "name": name}}
    return [
        event("contentBlockStart", {"contentBlockIndex": index, "start": start}),
        *(
            event(
                "contentBlockDelta",
                {"contentBlockIndex": index, "delta": {"toolUse": {"input": piece}}},
            )
            for piece in pieces
        ),
        event("contentBlockStop", {"contentBlockIndex": index}),
    ]


def thought_block(index: int, *texts: str, signature: str = SIGNATURE) -> list[bytes]:
    deltas = [{"text": text} for text in texts] + [{"signature": signature}]
    return [
        *(
            event(
                "contentBlockDelta",
                {"contentBlockIndex": index, "delta": {"reasoningContent": delta}},
            )
            for delta in deltas
        ),
        event("contentBlockStop", {"contentBlockIndex": index}),
    ]


def token_usage(usage: Usage | None = None) -> dict[str, Any]:
    """Usage in Bedrock's words: cached tokens stand beside the input, and are in the total."""
    usage = usage or Usage(input=7, output=3)
    counts: dict[str, Any] = {
        "inputTokens": usage.input,
        "outputTokens": usage.output + usage.reasoning,
        "totalTokens": usage.prompt + usage.completion,
    }
    written = {"1h": usage.cache_write_1h, "5m": usage.cache_write}
    if usage.cached_input or any(written.values()):
        counts["cacheReadInputTokens"] = usage.cached_input
        counts["cacheWriteInputTokens"] = sum(written.values())
        counts["cacheDetails"] = [
            {"ttl": ttl, "inputTokens": count} for ttl, count in written.items() if count
        ]
    return counts


def converse_answer(
    *blocks: dict[str, Any], stop: str = "end_turn", usage: Any = None, **more: Any
) -> dict[str, Any]:
    """A whole answer of these blocks."""
    return {
        "output": {"message": {"role": "assistant", "content": list(blocks)}},
        "stopReason": stop,
        "usage": token_usage() if usage is None else usage,
        "metrics": {"latencyMs": 12},
        **more,
    }


def ending(stop: str = "end_turn", usage: Any = None, **more: Any) -> list[bytes]:
    """The last two events of a stream."""
    usage = token_usage() if usage is None else usage
    return [
        event("messageStop", {"stopReason": stop}),
        event("metadata", {"usage": usage, "metrics": {"latencyMs": 12}, **more}),
    ]


def event_stream(*steps: Step) -> Reply:
    return Reply(headers=EVENT_STREAM, steps=steps)


BEGIN = event("messageStart", {"role": "assistant"})


class BedrockStage:
    """Scenes are played by a scripted server that speaks Converse."""

    lacks: frozenset[str] = frozenset(
        {"frequency_penalty", "logit_bias", "logprobs", "n", "presence_penalty", "seed"}
    )

    def __init__(self, provider: Provider, upstream: Upstream) -> None:
        self.provider = provider
        self.upstream = upstream

    def play(self, scene: Scene) -> dict[str, str]:
        def reply(request: Recorded) -> Reply:
            if scene.status != 200:
                headers = {"x-amzn-ErrorType": _TYPES.get(scene.status, "Exception")}
                if scene.retry_after:
                    headers["Retry-After"] = scene.retry_after
                return json_reply({"message": f"Sorry: {scene.status}"}, scene.status, headers)
            said = request.json["messages"][0]["content"][0]["text"]
            texts = [said] if scene.echoes else [f"wörd{at} " for at in range(scene.chunks)]
            stream = request.path.endswith("/converse-stream")
            return _stream(scene, texts) if stream else _whole(scene, texts)

        self.upstream.script(reply)
        return {}

    async def busy(self) -> None:
        await self.upstream.request()

    async def quiet(self) -> None:
        for request in self.upstream.requests:
            if not request.cut and not request.answered.is_set():
                await request.gone.wait()


def _whole(scene: Scene, texts: list[str]) -> Reply:
    if scene.cut is not None:
        return Reply(before=(CUT,))
    blocks: list[dict[str, Any]] = [{"text": "".join(texts)}]
    if scene.tool:
        arguments = json.loads("".join(ARGUMENTS))
        blocks = [
            {"toolUse": {"toolUseId": f"tooluse_{at}", "name": scene.tool, "input": arguments}}
            for at in range(scene.calls)
        ]
    if scene.thinks:
        thought = {"reasoningText": {"text": scene.thinks, "signature": SIGNATURE}}
        blocks.insert(0, {"reasoningContent": thought})
    stop = "tool_use" if scene.tool else "end_turn"
    answer = converse_answer(*blocks, stop=stop, usage=token_usage(scene.usage))
    if not scene.reports_usage:
        del answer["usage"]
    reply = json_reply(answer)
    return reply if scene.hang is None else replace(reply, before=(HANG,))


def _stream(scene: Scene, texts: list[str]) -> Reply:
    steps: list[Step] = []
    first = 1 if scene.thinks else 0
    if scene.thinks:
        steps += thought_block(0, scene.thinks)
    if scene.tool:
        for at in range(scene.calls):
            steps += tool_block(first + at, f"tooluse_{at}", scene.tool, *ARGUMENTS)
    else:
        steps += text_block(first, *texts)
    end = ending("tool_use" if scene.tool else "end_turn", token_usage(scene.usage))
    steps += end if scene.reports_usage else end[:1]
    for fault, after in ((CUT, scene.cut), (HANG, scene.hang)):
        if after == 0:
            return Reply(before=(fault,))
        if after is not None:
            steps = [*steps[:after], fault]
    return event_stream(BEGIN, *steps)
