"""The provider of the benchmark: an OpenAI-compatible HTTP server that costs next to nothing.

Run as its own process: `python -m tests.bench.upstream [--port N]`; it prints the URL of its API.
"""

import argparse
import asyncio
import time
from typing import cast

import httptools
import msgspec
import uvloop

from tests.bench import wire

_ask = msgspec.json.Decoder(wire.Ask)

_JSON = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_PART = b"%x\r\n%b\r\n"
_LAST_PART = b"0\r\n\r\n"


class Counts(msgspec.Struct):
    """What the upstream has served since it started; `GET /meter` answers it as JSON."""

    calls: int = 0
    streams: int = 0
    chunks: int = 0
    cut: int = 0


class Upstream(asyncio.Protocol):
    """One connection: answers one request at a time, and streams on its own clock."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body = b""
        self._stream: Stream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is no subclass.

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is not None:
            self._stream.stop()
            self._counts.cut += 1

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def pause_writing(self) -> None:
        if self._stream is not None:
            self._stream.pause()

    def resume_writing(self) -> None:
        if self._stream is not None:
            self._stream.resume()

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._url.endswith(b"/chat/completions"):
            self._chat()
        elif self._url == b"/meter":
            self._json(b"200 OK", msgspec.json.encode(self._counts))
        else:
            self._json(b"404 Not Found", b'{"error":{"message":"no such path"}}')

    def _chat(self) -> None:
        try:
            ask = _ask.decode(self._body)
        except msgspec.DecodeError:
            self._json(b"400 Bad Request", b'{"error":{"message":"not a chat request"}}')
            return
        shape = wire.shape_of(ask.model)
        if shape is None:
            self._json(b"404 Not Found", b'{"error":{"message":"no such model"}}')
            return
        self._counts.calls += 1
        tag = wire.tag_in(self._body)
        if not ask.stream:
            self._json(b"200 OK", wire.answer(tag, time.monotonic_ns()))
            return
        self._counts.streams += 1
        usage = ask.stream_options is not None and ask.stream_options.include_usage
        self._transport.write(_STREAM)
        self._stream = Stream(self, shape, tag, wire.ending(shape.chunks, usage=usage))
        self._stream.start()

    def _json(self, status: bytes, body: bytes) -> None:
        self._transport.write(_JSON % (status, len(body), body))

    def send_chunk(self, tag: bytes, index: int) -> None:
        """Write one chunk, stamped with this moment."""
        data = wire.chunk(tag, index, time.monotonic_ns())
        self._transport.write(_PART % (len(data), data))
        self._counts.chunks += 1

    def end_stream(self, ending: bytes) -> None:
        """Write the end of the stream and be ready for the next request."""
        self._stream = None
        self._transport.write(_PART % (len(ending), ending) + _LAST_PART)


class Stream:
    """The chunks still to be sent on one connection.

    Without an interval each chunk still takes its own turn of the event loop, so that it leaves by
    its own system call, as from a provider that writes as it generates.
    """

    def __init__(self, upstream: Upstream, shape: wire.Shape, tag: bytes, ending: bytes) -> None:
        self._upstream = upstream
        self._shape = shape
        self._tag = tag
        self._ending = ending
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._index = 0
        self._paused = False
        self._timer: asyncio.Handle | None = None

    def start(self) -> None:
        """Send the first chunk now and the others at their times."""
        self._send()

    def _send(self) -> None:
        self._timer = None
        if self._index < self._shape.chunks:
            self._upstream.send_chunk(self._tag, self._index)
            self._index += 1
        if self._index == self._shape.chunks:
            self._upstream.end_stream(self._ending)
        elif not self._paused:
            self._schedule()

    def _schedule(self) -> None:
        if self._shape.interval:
            due = self._started + self._index * self._shape.interval
            self._timer = self._loop.call_at(due, self._send)
        else:
            self._timer = self._loop.call_soon(self._send)

    def pause(self) -> None:
        """Hold back: the reader is slower than the stream."""
        self._paused = True
        self.stop()

    def resume(self) -> None:
        """Go on after a pause."""
        self._paused = False
        if self._timer is None:
            self._schedule()

    def stop(self) -> None:
        """Send nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def serve(port: int = 0) -> tuple[asyncio.Server, str]:
    """Listen on loopback; the server and the URL of its API."""
    counts = Counts()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(counts), "127.0.0.1", port, backlog=1024)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def _main(port: int) -> None:
    server, url = await serve(port)
    print(url, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(arguments.parse_args().port))
