"""Scenes of the provider contract, played by a scripted server that speaks generateContent."""

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

KEY = "AIzaOperatorSecret0123456789"
# google.rpc.Code by HTTP status, as Google's errors show it.
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class GeminiStage:
    """Scenes are played by a scripted server that speaks generateContent."""

    lacks: frozenset[str] = frozenset({"logit_bias", "parallel_tool_calls", "service_tier"})

    def __init__(self, provider: Provider, upstream: Upstream) -> None:
        self.provider = provider
        self.upstream = upstream

    def play(self, scene: Scene) -> dict[str, str]:
        vectors = iter(scene.vectors)

        def reply(request: Recorded) -> Reply:
            if scene.status != 200:
                headers = {"Retry-After": scene.retry_after} if scene.retry_after else {}
                return json_reply(error_of(scene.status), scene.status, headers)
            if request.path.endswith(":batchEmbedContents"):
                each = [{"values": next(vectors)} for _ in request.json["requests"]]
                return json_reply({"embeddings": each, **_metadata(scene)})
            if request.path.endswith(":predict"):
                return _predicted(scene, [next(vectors) for _ in request.json["instances"]])
            said = request.json["contents"][0]["parts"][0]["text"]
            texts = [said] if scene.echoes else [f"wörd{at} " for at in range(scene.chunks)]
            if request.path.endswith(":streamGenerateContent?alt=sse"):
                return _stream(scene, texts)
            return _whole(scene, texts)

        self.upstream.script(reply)
        return {}

    async def busy(self) -> None:
        await self.upstream.request()

    async def quiet(self) -> None:
        for request in self.upstream.requests:
            if not request.cut and not request.answered.is_set():
                await request.gone.wait()


def error_of(status: int, message: str = "", *details: dict[str, Any]) -> dict[str, Any]:
    """An error's body."""
    error = {
        "code": status,
        "message": message or f"Sorry: {status}",
        "status": _STATUSES.get(status, "UNKNOWN"),
    }
    return {"error": {**error, "details": details} if details else error}


def usage_of(usage: Usage) -> dict[str, Any]:
    """Classes as Google reports them: the cache is part of the prompt, the thoughts are beside."""
    went_in = {"TEXT": usage.input, "AUDIO": usage.audio_input, "IMAGE": usage.image_input}
    came_out = {"TEXT": usage.output, "AUDIO": usage.audio_output, "IMAGE": usage.image_output}
    told: dict[str, Any] = {
        "promptTokenCount": usage.prompt,
        "candidatesTokenCount": sum(came_out.values()),
        "totalTokenCount": usage.prompt + usage.completion,
        "promptTokensDetails": _details({**went_in, "TEXT": usage.input + usage.cached_input}),
        "candidatesTokensDetails": _details(came_out),
    }
    if usage.cached_input:
        told["cachedContentTokenCount"] = usage.cached_input
        told["cacheTokensDetails"] = _details({"TEXT": usage.cached_input})
    if usage.reasoning:
        told["thoughtsTokenCount"] = usage.reasoning
    return told


def candidate(*parts: dict[str, Any], reason: str = "", **fields: Any) -> dict[str, Any]:
    """A candidate with these parts; `reason` is why it ended."""
    ended = {"finishReason": reason} if reason else {}
    return {"content": {"parts": list(parts), "role": "model"}, **ended, **fields}


def chat_answer(*parts: dict[str, Any], reason: str = "STOP", **fields: Any) -> dict[str, Any]:
    """An answer of generateContent with one candidate; `fields` replace or are added."""
    return {
        "candidates": [candidate(*parts, reason=reason, index=0)],
        "usageMetadata": usage_of(Usage(input=7, output=3)),
        "modelVersion": "the-engine",
        "responseId": "yvbXaN6bKOaq1PIPgLmx-Ac",
        **fields,
    }


def call(name: str, args: Any, **more: Any) -> dict[str, Any]:
    """A part that calls a function; `more` stands beside its name."""
    return {"functionCall": {"name": name, "args": args, **more}}


def _details(counts: dict[str, int]) -> list[dict[str, Any]]:
    return [{"modality": name, "tokenCount": count} for name, count in counts.items() if count]


def _metadata(scene: Scene) -> dict[str, Any]:
    if not scene.reports_usage:
        return {}
    return {"usageMetadata": usage_of(scene.usage or Usage(input=7, output=3))}


def _predicted(scene: Scene, vectors: list[tuple[float, ...]]) -> Reply:
    """Embeddings as Vertex AI predicts them, with two tokens in each text."""
    told = {"statistics": {"token_count": 2}} if scene.reports_usage else {}
    each = [{"embeddings": {"values": vector, **told}} for vector in vectors]
    return json_reply({"predictions": each})


def _logprobs(texts: list[str]) -> dict[str, Any]:
    tokens = [{"token": said, "tokenId": 17, "logProbability": -0.5} for said in texts]
    return {"chosenCandidates": tokens, "topCandidates": [{"candidates": [one]} for one in tokens]}


def _calls(scene: Scene) -> list[dict[str, Any]]:
    return [call(scene.tool, {"city": "Paris"}) for _ in range(scene.calls)]


def _whole(scene: Scene, texts: list[str]) -> Reply:
    if scene.cut is not None:
        return Reply(before=(CUT,))
    thoughts = [{"text": scene.thinks, "thought": True}] if scene.thinks else []
    parts = _calls(scene) if scene.tool else [{"text": "".join(texts)}]
    shown = candidate(*thoughts, *parts, reason="STOP")
    if scene.logprobs:
        shown["logprobsResult"] = _logprobs(texts)
    answer = {"candidates": [{**shown, "index": at} for at in range(scene.choices)]}
    reply = json_reply({**answer, **_metadata(scene)})
    return reply if scene.hang is None else replace(reply, before=(HANG,))


def _stream(scene: Scene, texts: list[str]) -> Reply:
    pieces = [{"text": scene.thinks, "thought": True}] if scene.thinks else []
    pieces += _calls(scene) if scene.tool else [{"text": said} for said in texts]
    steps: list[Step] = []
    for piece in pieces:
        for at in range(scene.choices):
            shown = candidate(piece, index=at)
            if scene.logprobs and "thought" not in piece:
                shown["logprobsResult"] = _logprobs([piece["text"]])
            steps.append(event({"candidates": [shown]}))
    ends = [candidate({"text": ""}, reason="STOP", index=at) for at in range(scene.choices)]
    steps.append(event({"candidates": ends, **_metadata(scene)}))
    for fault, after in ((CUT, scene.cut), (HANG, scene.hang)):
        if after == 0:
            return Reply(before=(fault,))
        if after is not None:
            steps = [*steps[:after], fault]
    return event_stream(*steps)
