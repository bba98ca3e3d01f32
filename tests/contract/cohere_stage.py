"""Scenes of the provider contract, played by a scripted server that speaks Cohere's API v2."""

from dataclasses import replace
from typing import Any

from schemas.usage import Usage
from tests.contract.provider_contract import Scene
from tests.upstream import (
    CUT,
    HANG,
    Recorded,
    Reply,
    Step,
    Upstream,
    event,
    event_stream,
    json_reply,
)
from workers.providers.base import Provider

KEY = "co-operator-secret-0123456789"
ARGUMENTS = ('{"city": ', '"Paris"', "}")
# What the prompt's own template adds to the tokens that are processed, and nobody is charged for.
TEMPLATE = 64


class CohereStage:
    """Scenes are played by a scripted server that speaks Cohere's API v2."""

    lacks: frozenset[str] = frozenset(
        {"logit_bias", "n", "parallel_tool_calls", "service_tier", "top_logprobs"}
    )

    def __init__(self, provider: Provider, upstream: Upstream) -> None:
        self.provider = provider
        self.upstream = upstream

    def play(self, scene: Scene) -> dict[str, str]:
        vectors = iter(scene.vectors)

        def reply(request: Recorded) -> Reply:
            if scene.status != 200:
                headers = {"Retry-After": scene.retry_after} if scene.retry_after else {}
                error = {"message": f"Sorry: {scene.status}", "id": "7a2e7a4c"}
                return json_reply(error, scene.status, headers)
            if request.path.endswith("/embed"):
                return _embedded(scene, [next(vectors) for _ in request.json["texts"]])
            said = request.json["messages"][-1]["content"]
            texts = [said] if scene.echoes else [f"wörd{at} " for at in range(scene.chunks)]
            return _stream(scene, texts) if request.json["stream"] else _whole(scene, texts)

        self.upstream.script(reply)
        return {}

    async def busy(self) -> None:
        await self.upstream.request()

    async def quiet(self) -> None:
        for request in self.upstream.requests:
            if not request.cut and not request.answered.is_set():
                await request.gone.wait()


def usage_of(usage: Usage) -> dict[str, Any]:
    """The classes that Cohere tells apart, in its own words."""
    charged = {"input_tokens": usage.prompt, "output_tokens": usage.completion}
    processed = {"input_tokens": usage.prompt + TEMPLATE, "output_tokens": usage.completion}
    told: dict[str, Any] = {"billed_units": charged, "tokens": processed}
    if usage.cached_input:
        told["cached_tokens"] = usage.cached_input + TEMPLATE
    return told


def chat_answer(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """An answer of `/chat` with this content; `fields` replace or are added."""
    return {
        "id": "c14c80c3-18eb-4519-9460-6c92edd8cfb4",
        "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": list(content)},
        "usage": usage_of(Usage(input=7, output=3)),
        **fields,
    }


def named(value: dict[str, Any]) -> bytes:
    """One event of a stream, named by its type."""
    return f"event: {value['type']}\n".encode() + event(value)


def piece(kind: str, message: dict[str, Any], index: int = 0, **fields: Any) -> bytes:
    """One event that carries a piece of the message."""
    return named({"type": kind, "index": index, "delta": {"message": message}, **fields})


def text(said: str, index: int = 0) -> bytes:
    """A piece of the text."""
    return piece("content-delta", {"content": {"text": said}}, index)


def end(reason: str = "COMPLETE", **delta: Any) -> bytes:
    """The last event of a stream."""
    told = {"finish_reason": reason, "usage": usage_of(Usage(input=7, output=3)), **delta}
    return named({"type": "message-end", "id": "x", "delta": told})


START = named(
    {
        "type": "message-start",
        "id": "29f14a5a-11de-4cae-9800-25e4747408ea",
        "delta": {
            "message": {
                "role": "assistant",
                "content": [],
                "tool_plan": "",
                "tool_calls": [],
                "citations": [],
            }
        },
    }
)


def _logprob(said: str) -> dict[str, Any]:
    return {"text": said, "token_ids": [17, 4], "logprobs": [-0.5, -0.25]}


def _whole(scene: Scene, texts: list[str]) -> Reply:
    if scene.cut is not None:
        return Reply(before=(CUT,))
    thoughts = [{"type": "thinking", "thinking": scene.thinks}] if scene.thinks else []
    answer = chat_answer(*thoughts, {"type": "text", "text": "".join(texts)})
    if scene.tool:
        function = {"name": scene.tool, "arguments": "".join(ARGUMENTS)}
        calls = [
            {"id": f"{scene.tool}_{number}", "type": "function", "function": function}
            for number in range(scene.calls)
        ]
        answer["message"] = {"role": "assistant", "tool_plan": "I look.", "tool_calls": calls}
        answer["finish_reason"] = "TOOL_CALL"
    if scene.logprobs:
        answer["logprobs"] = [_logprob(said) for said in texts]
    if scene.usage is not None:
        answer["usage"] = usage_of(scene.usage)
    if not scene.reports_usage:
        del answer["usage"]
    reply = json_reply(answer)
    return reply if scene.hang is None else replace(reply, before=(HANG,))


def _stream(scene: Scene, texts: list[str]) -> Reply:
    pieces: list[bytes] = []
    if scene.thinks:
        pieces.append(piece("content-delta", {"content": {"thinking": scene.thinks}}))
    for said in texts:
        more: dict[str, Any] = {"logprobs": _logprob(said)} if scene.logprobs else {}
        pieces.append(piece("content-delta", {"content": {"text": said}}, 0, **more))
    if scene.tool:
        pieces = [piece("tool-plan-delta", {"tool_plan": "I look."})]
        for number in range(scene.calls):
            function = {"name": scene.tool, "arguments": ""}
            call = {"id": f"{scene.tool}_{number}", "type": "function", "function": function}
            pieces.append(piece("tool-call-start", {"tool_calls": call}, number))
            pieces += [
                piece("tool-call-delta", {"tool_calls": {"function": {"arguments": part}}}, number)
                for part in ARGUMENTS
            ]
            pieces.append(named({"type": "tool-call-end", "index": number}))
    opening = START + piece("content-start", {"content": {"type": "text", "text": ""}})
    steps: list[Step] = [opening + pieces[0], *pieces[1:]]
    usage = usage_of(scene.usage or Usage(input=7, output=3)) if scene.reports_usage else None
    steps.append(end("TOOL_CALL" if scene.tool else "COMPLETE", usage=usage))
    for fault, after in ((CUT, scene.cut), (HANG, scene.hang)):
        if after == 0:
            return Reply(before=(fault,))
        if after is not None:
            steps = [*steps[:after], fault]
    return event_stream(*steps)


def _embedded(scene: Scene, vectors: list[tuple[float, ...]]) -> Reply:
    answer: dict[str, Any] = {
        "id": "da6e531f-54c5-4a73-bf92-f60566d8d753",
        "embeddings": {"float": vectors},
        "texts": ["hello"] * len(vectors),
        "response_type": "embeddings_by_type",
    }
    if scene.reports_usage:
        units = {"input_tokens": scene.usage.input if scene.usage else 2 * len(vectors)}
        answer["meta"] = {"api_version": {"version": "2"}, "billed_units": units}
    return json_reply(answer)
