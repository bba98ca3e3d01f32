"""One ability asked of one provider: what arrives at the vendor, and what comes out.

The vendor is played by the stage of its contract.
"""

import base64
import json
import struct
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import Usage
from tests.contract.provider_contract import Scene, ask_of
from tests.upstream import Recorded, Reply, Script, Upstream
from workers.http import Http
from workers.providers import make
from workers.providers.base import Ask, AttemptFailed, Provider, StreamEnd

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XD"
    "SwAAAABJRU5ErkJggg=="
)
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Subject(NamedTuple):
    """A provider that is asked, and who plays it; `embedder` is what it embeds with, `path` where
    its base URL ends."""

    name: str
    dialect: str
    stage: Callable[[Any, Any], Any]
    engine: str
    embedder: str = ""
    settings: Mapping[str, Any] = _NOTHING
    path: str = ""


class Seen(NamedTuple):
    """One attempt: what arrived at the vendor, as text, and what came out, streams put together;
    `data` are embeddings."""

    sent: str
    choices: list[dict[str, Any]]
    usage: Usage
    data: list[list[float]]

    @property
    def message(self) -> dict[str, Any]:
        """That of the first choice."""
        message: dict[str, Any] = self.choices[0]["message"]
        return message


class Ability(NamedTuple):
    """A row of the table: what is asked with which `fields` while the scene is played, and when it
    is there. `ways` are how it is asked: `whole`, `stream` or `embed`."""

    name: str
    shows: Callable[[Seen], bool]
    fields: Mapping[str, Any] = _NOTHING
    scene: Scene = Scene()
    ways: tuple[str, ...] = ("whole", "stream")


class Place:
    """A provider at its scripted server, which has also an image."""

    def __init__(self, subject: Subject, upstream: Upstream, http: Http) -> None:
        config = {"api_key": "key-of-the-operator-0123456789", **subject.settings}
        self._subject = subject
        self._upstream = upstream
        self._provider: Provider = make(
            subject.name,
            ProviderConfig(dialect=subject.dialect, base_url=upstream.url + subject.path, **config),
            http,
            Clock(),
        )
        self._stage = subject.stage(self._provider, self)

    def script(self, script: Script) -> None:
        """For the stage: what it answers to a POST."""

        def reply(request: Recorded) -> Reply:
            if request.method == "GET":
                headers = {"Content-Type": "image/png"}
                return Reply(headers=headers, steps=(base64.b64decode(PIXEL),))
            return script if isinstance(script, Reply) else script(request)

        self._upstream.script(reply)

    async def attempt(self, ability: Ability, way: str, *, drop: bool = False) -> Seen | None:
        """What one attempt shows; None if it was refused by name before anything was sent."""
        self._upstream.requests.clear()
        scene = ability.scene
        headers = self._stage.play(replace(scene, choices=1) if drop else scene)
        fields = {**ability.fields, **({"drop_params": True} if drop else {})}
        if fields.pop("remote", False):
            fields["messages"] = _with_url(fields["messages"], self._upstream.url)
        ask = ask_of(headers, stream=way == "stream", **fields)
        subject = self._subject
        ask = ask._replace(engine=subject.embedder if way == "embed" else subject.engine)
        try:
            if way == "stream":
                choices, usage = await self._streamed(ask)
                data = []
            else:
                run = self._provider.embed if way == "embed" else self._provider.complete
                answer = await run(ask)
                shown = json.loads(answer.body)
                choices, usage = shown.get("choices", []), answer.usage
                data = [_numbers(row["embedding"]) for row in shown.get("data", ())]
        except AttemptFailed as failed:
            if failed.info.status != 400 or failed.reached or self._upstream.requests:
                raise
            return None
        posted = [one.body.decode() for one in self._upstream.requests if one.method == "POST"]
        return Seen("\n".join(posted), choices, usage, data)

    async def _streamed(self, ask: Ask) -> tuple[list[dict[str, Any]], Usage]:
        chunks: list[Any] = []
        usage = Usage()
        async with aclosing(self._provider.stream(ask)) as pieces:
            async for piece in pieces:
                if isinstance(piece, StreamEnd):
                    chunks.append(json.loads(piece.last))
                    usage = piece.usage
                else:
                    chunks += map(json.loads, piece.parts)
        return _put_together(chunks), usage

    async def close(self) -> None:
        await self._provider.close()


def _with_url(messages: list[Any], base: str) -> list[Any]:
    (text, image) = messages[0]["content"]
    whole = {**image, "image_url": {"url": base + image["image_url"]["url"]}}
    return [{**messages[0], "content": [text, whole]}]


def _numbers(embedding: Any) -> list[float]:
    if isinstance(embedding, str):
        packed = base64.b64decode(embedding)
        return list(struct.unpack(f"<{len(packed) // 4}f", packed))
    return list(embedding)


def _put_together(chunks: list[Any]) -> list[dict[str, Any]]:
    """The choices of a stream, as a whole answer has them."""
    choices: dict[int, dict[str, Any]] = {}
    for choice in [one for chunk in chunks for one in chunk["choices"]]:
        empty: dict[str, Any] = {"message": {}, "finish_reason": None, "logprobs": {"content": []}}
        whole = choices.setdefault(choice["index"], empty)
        message, delta = whole["message"], choice["delta"]
        for name in ("content", "reasoning_content"):
            if delta.get(name):
                message[name] = message.get(name, "") + delta[name]
        calls = message.setdefault("tool_calls", [])
        for piece in delta.get("tool_calls", ()):
            if piece["index"] == len(calls):
                calls.append(piece)
            else:
                calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
        if choice.get("logprobs"):
            whole["logprobs"]["content"] += choice["logprobs"]["content"]
        whole["finish_reason"] = choice["finish_reason"] or whole["finish_reason"]
    return [choices[index] for index in sorted(choices)]
