"""Scenes of the provider contract, played by a scripted server that speaks Ollama's own API."""

import json
from dataclasses import replace
from typing import Any

from schemas.usage import Usage
from tests.contract.provider_contract import Scene
from tests.upstream import CUT, HANG, Recorded, Reply, Step, Upstream, json_reply
from workers.providers.base import Provider

KEY = "ollama-operator-secret-0123456789"
ARGUMENTS = {"city": "Paris"}


class OllamaStage:
    """Scenes are played by a scripted server that speaks Ollama's own API."""

    lacks: frozenset[str] = frozenset({"logit_bias", "n", "parallel_tool_calls", "service_tier"})

    def __init__(self, provider: Provider, upstream: Upstream) -> None:
        self.provider = provider
        self.upstream = upstream

    def play(self, scene: Scene) -> dict[str, str]:
        def reply(request: Recorded) -> Reply:
            if scene.status != 200:
                headers = {"Retry-After": scene.retry_after} if scene.retry_after else {}
                return json_reply({"error": f"Sorry: {scene.status}"}, scene.status, headers)
            if request.path.endswith("/embed"):
                vectors = scene.vectors[: len(request.json["input"])]
                return json_reply({"model": "m", "embeddings": vectors, **_counted(scene)})
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


def answer_of(text: str = "", *, done: bool = True, **message: Any) -> dict[str, Any]:
    """A whole answer with this text, or one line of a stream; `message` has its other fields."""
    return {
        "model": "llama3.2",
        "created_at": "2023-08-04T08:52:19.385406455-07:00",
        "message": {"role": "assistant", "content": text, **message},
        "done": done,
        **({"done_reason": "stop"} if done else {}),
    }


def line(value: dict[str, Any]) -> bytes:
    """An answer as one line of a stream."""
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def text(said: str) -> bytes:
    """A line with a piece of the text."""
    return line(answer_of(said, done=False))


def end(**fields: Any) -> bytes:
    """The last line of a stream."""
    return line({**answer_of(), "prompt_eval_count": 7, "eval_count": 3, **fields})


def lines(*steps: Step) -> Reply:
    """A stream of such lines."""
    return Reply(headers={"Content-Type": "application/x-ndjson"}, steps=steps)


def _counted(scene: Scene) -> dict[str, int]:
    """What the scene's usage is in Ollama's own words."""
    if not scene.reports_usage:
        return {}
    usage = scene.usage or Usage(input=7, output=3)
    told = {"prompt_eval_count": usage.prompt, "eval_count": usage.completion}
    if usage.cached_input:
        told["prompt_eval_cached_count"] = usage.cached_input
    return told


def _calls(scene: Scene) -> list[dict[str, Any]]:
    call = {"function": {"name": scene.tool, "arguments": ARGUMENTS}}
    return [call] * scene.calls


def _logprobs(said: str) -> dict[str, Any]:
    return {"logprobs": [{"token": said, "logprob": -0.75, "bytes": list(said.encode())}]}


def _whole(scene: Scene, texts: list[str]) -> Reply:
    if scene.cut is not None:
        return Reply(before=(CUT,))
    answer = answer_of(tool_calls=_calls(scene)) if scene.tool else answer_of("".join(texts))
    if scene.thinks:
        answer["message"]["thinking"] = scene.thinks
    if scene.logprobs:
        answer["logprobs"] = [_logprobs(said)["logprobs"][0] for said in texts]
    reply = json_reply({**answer, **_counted(scene)})
    return reply if scene.hang is None else replace(reply, before=(HANG,))


def _stream(scene: Scene, texts: list[str]) -> Reply:
    steps: list[Step] = []
    if scene.thinks:
        steps.append(line(answer_of(done=False, thinking=scene.thinks)))
    for said in texts:
        more = _logprobs(said) if scene.logprobs else {}
        steps.append(line({**answer_of(said, done=False), **more}))
    if scene.tool:
        steps = [line(answer_of(done=False, tool_calls=[call])) for call in _calls(scene)]
    steps.append(line({**answer_of(), **_counted(scene)}))
    for fault, after in ((CUT, scene.cut), (HANG, scene.hang)):
        if after == 0:
            return Reply(before=(fault,))
        if after is not None:
            steps = [*steps[:after], fault]
    return lines(*steps)
