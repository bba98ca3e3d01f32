"""A scriptable HTTP server on a real socket that stands in for a provider.

    async with Upstream() as upstream:
        upstream.script(chat_stream("Hel", "lo"), json_reply({"error": ...}, status=500))
        ...
        assert upstream.requests[0].json["model"] == "gpt-4o"

A reply is a row of steps: bytes are written at once, a number is a pause in seconds, an
`asyncio.Event` is waited for, CUT closes the connection, HANG goes silent until the client leaves.
"""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aiohttp import web


class Fault(Enum):
    CUT = "cut"
    HANG = "hang"


CUT, HANG = Fault.CUT, Fault.HANG
Step = bytes | float | asyncio.Event | Fault

EVENT_STREAM = {"Content-Type": "text/event-stream"}
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Reply:
    """One answer: the steps before its head, then status and headers, then the steps of its body.

    Without a Content-Length among the headers the body is sent chunked.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    before: tuple[Step, ...] = ()


@dataclass
class Recorded:
    """One request as it arrived. `gone` is set when the client left before its answer was whole,
    `answered` when the answer was sent to its end, `cut` is true after a CUT."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: tuple[str, int]
    cut: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Script = Reply | Callable[[Recorded], Reply]


class Upstream:
    """The server; an async context manager. `requests` has all that came, in order."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Recorded] = []
        self._tls = tls
        self._script: list[Script] = [Reply(status=500)]
        self._arrived = asyncio.Condition()
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None
        )
        self._port = 0

    async def __aenter__(self) -> "Upstream":
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def connections(self) -> int:
        """How many connections have carried a request."""
        return len({request.peer for request in self.requests})

    def script(self, *replies: Script) -> None:
        """What to answer from now on: one after the other, and the last one for ever."""
        self._script = list(replies)

    async def request(self, number: int = 0) -> Recorded:
        """The request with this number, from 0; waits until it has arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) > number)
        return self.requests[number]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        recorded = Recorded(
            method=request.method,
            path=request.path_qs,
            headers=request.headers,
            body=await request.read(),
            peer=request.transport.get_extra_info("peername")[:2],
        )
        script = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        reply = script if isinstance(script, Reply) else script(recorded)
        async with self._arrived:
            self.requests.append(recorded)
            self._arrived.notify_all()
        try:
            return await self._answer(request, recorded, reply)
        except (asyncio.CancelledError, ConnectionError):
            if not recorded.cut:
                recorded.gone.set()
            raise

    async def _answer(
        self, request: web.Request, recorded: Recorded, reply: Reply
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        for step in reply.before:
            await self._take(step, request, recorded, response)
        await response.prepare(request)
        for step in reply.steps:
            await self._take(step, request, recorded, response)
        await response.write_eof()
        recorded.answered.set()
        return response

    async def _take(
        self, step: Step, request: web.Request, recorded: Recorded, response: web.StreamResponse
    ) -> None:
        if isinstance(step, bytes):
            await response.write(step)
        elif isinstance(step, asyncio.Event):
            await step.wait()
        elif isinstance(step, int | float):
            await asyncio.sleep(step)
        else:
            if step is CUT:
                assert request.transport is not None
                recorded.cut = True
                request.transport.close()
            await asyncio.Event().wait()


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A whole JSON answer; bytes are sent as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    own = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return Reply(status=status, headers={**own, **(headers or {})}, steps=(body,))


def event_stream(*steps: Step) -> Reply:
    """A stream of events made of these steps."""
    return Reply(headers=EVENT_STREAM, steps=steps)


def event(value: Any) -> bytes:
    """One server-sent event; bytes are its data as they are."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"data: " + data + b"\n\n"


def chat_answer(text: str = "Hello", *, choices: int = 1, **fields: Any) -> dict[str, Any]:
    """A chat completion in OpenAI's shape, with usage; `fields` are added or replace."""
    return {
        "id": "chatcmpl-upstream",
        "object": "chat.completion",
        "created": 1,
        "model": "engine-of-upstream",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
            for index in range(choices)
        ],
        "usage": usage(7, 3),
        **fields,
    }


def usage(prompt: int, completion: int, **details: Any) -> dict[str, Any]:
    """Usage in OpenAI's shape."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **details,
    }


def chat_chunk(
    delta: Mapping[str, Any] | str,
    *,
    index: int = 0,
    finish_reason: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """A chunk in OpenAI's shape; a text stands for a delta with that content."""
    return {
        "id": "chatcmpl-upstream",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "engine-of-upstream",
        "choices": [
            {
                "index": index,
                "delta": {"content": delta} if isinstance(delta, str) else delta,
                "finish_reason": finish_reason,
            }
        ],
        **fields,
    }


def chat_stream(*texts: str, pause: float = 0.0) -> Reply:
    """A whole good stream with usage: one chunk per text, `pause` seconds apart."""
    steps: list[Step] = []
    for text in texts:
        steps += [event(chat_chunk(text)), pause]
    steps += [
        event(chat_chunk({}, finish_reason="stop")),
        event(chat_chunk({}, choices=[], usage=usage(7, len(texts)))) + DONE,
    ]
    return event_stream(*steps)
