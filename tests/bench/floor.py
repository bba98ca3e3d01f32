"""The floor: the same answers from a bare ASGI application on uvicorn, with nothing behind it.

No gateway on this stack can cost less, so a ratio to it holds on any machine. Run as its own
process: `python -m tests.bench.floor`; it prints the URL of its API.
"""

import asyncio
import socket
import time

import msgspec
import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from tests.bench import wire

_ask = msgspec.json.Decoder(wire.Ask)


async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answer a chat request as the upstream would."""
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message["body"]
        more = message["more_body"]
    ask = _ask.decode(body)
    shape = wire.shape_of(ask.model)
    assert shape is not None
    tag = wire.tag_in(body)
    if shape.chunks:
        await _stream(send, shape, tag)
    else:
        await _whole(send, wire.answer(tag, time.monotonic_ns()))


async def _whole(send: ASGISendCallable, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send(
        {"type": "http.response.start", "status": 200, "headers": headers, "trailers": False}
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _stream(send: ASGISendCallable, shape: wire.Shape, tag: bytes) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send(
        {"type": "http.response.start", "status": 200, "headers": headers, "trailers": False}
    )
    started = time.monotonic()
    for index in range(shape.chunks):
        if shape.interval and index:
            await asyncio.sleep(started + index * shape.interval - time.monotonic())
        data = wire.chunk(tag, index, time.monotonic_ns())
        await send({"type": "http.response.body", "body": data, "more_body": True})
    end = wire.ending(shape.chunks, usage=False)
    await send({"type": "http.response.body", "body": end, "more_body": False})


def main() -> None:
    """Serve until SIGTERM."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning"
    )
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
