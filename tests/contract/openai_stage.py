"""Scenes of the provider contract, played by a scripted server that speaks chat completions."""

from dataclasses import replace

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


def _whole(scene: Scene, texts: list[str]) -> Reply:
    if scene.cut is not None:
        return Reply(before=(CUT,))
    answer = chat_answer("".join(texts), choices=scene.choices)
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
    for text in texts:
        steps += [event(chat_chunk(text, index=at)) for at in range(scene.choices)]
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
        steps.append(event(chat_chunk({}, choices=[], usage=usage(7, 3))))
    steps.append(DONE)
    for fault, after in ((CUT, scene.cut), (HANG, scene.hang)):
        if after == 0:
            return Reply(before=(fault,))
        if after is not None:
            steps = [*steps[:after], fault]
    return event_stream(*steps)
