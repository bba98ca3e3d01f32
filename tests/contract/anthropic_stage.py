"""Scenes of the provider contract, played by a scripted server that speaks the Messages API."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import Usage
from tests.contract.provider_contract import Scene
from tests.upstream import CUT, HANG, Recorded, Reply, Step, Upstream, event_stream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider

KEY = "sk-ant-api03-operator-secret-0123456789"
ARGUMENTS = ('{"city": ', '"Paris"', "}")
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_DEFAULT = Usage(input=7, output=3, status="reported")


class AnthropicStage:
    """Scenes are played by a scripted server that speaks the Messages API."""

    lacks = frozenset(
        {"frequency_penalty", "logit_bias", "logprobs", "n", "presence_penalty", "seed"}
    )

    def __init__(self, provider: Provider, upstream: Upstream) -> None:
        self.provider = provider
        self.upstream = upstream

    def play(self, scene: Scene) -> dict[str, str]:
        def reply(request: Recorded) -> Reply:
            if scene.status != 200:
                headers = {"Retry-After": scene.retry_after} if scene.retry_after else {}
                kind = _ERRORS.get(scene.status, "api_error")
                return json_reply(error(kind, f"Sorry: {scene.status}"), scene.status, headers)
            said = request.json["messages"][0]["content"][0]["text"]
            texts = [said] if scene.echoes else [f"wörd{at} " for at in range(scene.chunks)]
            streams = request.json.get("stream", False)
            return _stream(scene, texts) if streams else _whole(scene, texts)

        self.upstream.script(reply)
        return {}

    async def busy(self) -> None:
        await self.upstream.request()

    async def quiet(self) -> None:
        for request in self.upstream.requests:
            if not request.cut and not request.answered.is_set():
                await request.gone.wait()


def anthropic_at(url: str, http: Http, **settings: Any) -> Provider:
    """The adapter at a server, as the vendor `anthropic`."""
    config = ProviderConfig(dialect="anthropic", base_url=url, **{"api_key": KEY, **settings})
    return make("anthropic", config, http, Clock())


def error(kind: str, message: str) -> dict[str, Any]:
    """An error as Anthropic tells it."""
    return {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy",
    }


def event(kind: str, **fields: Any) -> bytes:
    """One event of a stream, named as Anthropic names it."""
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def message(
    *content: dict[str, Any], stop_reason: str = "end_turn", **fields: Any
) -> dict[str, Any]:
    """A whole message of these blocks; `fields` are added or replace."""
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": list(content),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage(_DEFAULT),
        **fields,
    }


def text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def usage(classes: Usage) -> dict[str, Any]:
    """Usage in Anthropic's own words."""
    return {
        "input_tokens": classes.input,
        "cache_creation_input_tokens": classes.cache_write + classes.cache_write_1h,
        "cache_read_input_tokens": classes.cached_input,
        "cache_creation": {
            "ephemeral_5m_input_tokens": classes.cache_write,
            "ephemeral_1h_input_tokens": classes.cache_write_1h,
        },
        "output_tokens": classes.output + classes.reasoning,
        "output_tokens_details": {"thinking_tokens": classes.reasoning},
        "service_tier": "standard",
    }


def message_events(
    blocks: Iterable[tuple[dict[str, Any], Iterable[dict[str, Any]]]],
    told: Usage | None = _DEFAULT,
    stop_reason: str = "end_turn",
) -> list[bytes]:
    """A whole stream: each block is how it begins and the deltas that come to it."""
    start = message(stop_reason=stop_reason) | {"stop_reason": None}
    end: dict[str, Any] = {"delta": {"stop_reason": stop_reason, "stop_sequence": None}}
    if told is None:
        del start["usage"]
    else:
        counts = usage(told)
        start["usage"] = {**counts, "output_tokens": 1, "output_tokens_details": None}
        del counts["cache_creation"], counts["service_tier"]
        end["usage"] = counts
    events = [event("message_start", message=start), event("ping")]
    for index, (block, deltas) in enumerate(blocks):
        events.append(event("content_block_start", index=index, content_block=block))
        events += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
        events.append(event("content_block_stop", index=index))
    return [*events, event("message_delta", **end), event("message_stop")]


def text_stream(*texts: str) -> Reply:
    """A whole good stream of one text."""
    return event_stream(*message_events([_text(texts)]))


def _text(texts: Iterable[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return text_block(""), [{"type": "text_delta", "text": text} for text in texts]


def _tool_use(scene: Scene, number: int, tool_input: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": scene.tool, "input": tool_input}


def _whole(scene: Scene, texts: list[str]) -> Reply:
    if scene.cut is not None:
        return Reply(before=(CUT,))
    blocks = [text_block("".join(texts))]
    if scene.tool:
        arguments = json.loads("".join(ARGUMENTS))
        blocks = [_tool_use(scene, number, arguments) for number in range(scene.calls)]
    if scene.thinks:
        blocks.insert(0, {"type": "thinking", "thinking": scene.thinks, "signature": SIGNATURE})
    answer = message(*blocks, stop_reason="tool_use" if scene.tool else "end_turn")
    answer["usage"] = usage(scene.usage or _DEFAULT)
    if not scene.reports_usage:
        del answer["usage"]
    reply = json_reply(answer)
    return reply if scene.hang is None else replace(reply, before=(HANG,))


def _stream(scene: Scene, texts: list[str]) -> Reply:
    blocks = [_text(texts)]
    if scene.tool:
        pieces = [{"type": "input_json_delta", "partial_json": part} for part in ("", *ARGUMENTS)]
        blocks = [(_tool_use(scene, number, {}), pieces) for number in range(scene.calls)]
    if scene.thinks:
        thought = {"type": "thinking_delta", "thinking": scene.thinks}
        signed = {"type": "signature_delta", "signature": SIGNATURE}
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        blocks.insert(0, (empty, [thought, signed]))
    told = scene.usage or _DEFAULT if scene.reports_usage else None
    steps: list[Step] = [*message_events(blocks, told, "tool_use" if scene.tool else "end_turn")]
    # A chunk counts from the first one that shows something: after message_start, ping and start.
    for fault, after in ((CUT, scene.cut), (HANG, scene.hang)):
        if after == 0:
            return Reply(before=(fault,))
        if after is not None:
            steps = [*steps[: after + 3], fault]
    return event_stream(*steps)
