"""One request to a provider over HTTP and its answer, whole or streamed: what all dialects share.

A dialect says what to send (Request), how its stream is cut into events (Framing) and what they
mean (Folder); see `workers/providers/openai.py` for the shortest one.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import NamedTuple, Protocol

from workers.failures import Failures, read_detail
from workers.http import Http
from workers.outgoing import Outgoing
from workers.providers.base import Ask, AttemptFailed, Deltas, StreamEnd
from workers.reply import Reply
from workers.sse import BrokenStream, Event

_NO_STREAM = frozenset({"application/json", "text/html"})


class Request(NamedTuple):
    """What goes out by POST."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Whole(NamedTuple):
    """A successful answer's body; `first_byte` and `sent` are monotonic seconds as in Answer."""

    body: bytes
    first_byte: float
    sent: float


class Framing(Protocol):
    """Cuts the blocks of a body into events: `workers/sse.py`, or a dialect's own."""

    def feed(self, block: bytes) -> Iterator[Event]:
        """The events that `block` completes. Raises BrokenStream in its place among them."""
        ...


class Folder(Protocol):
    """Turns the events of one stream into canonical chunks, and knows when it is complete."""

    @property
    def outgoing(self) -> Outgoing: ...

    @property
    def done(self) -> bool:
        """The provider has said that nothing more follows, or nothing that matters."""
        ...

    def take(self, event: Event) -> None:
        """Adds to `outgoing` what may go out. Raises AttemptFailed at what breaks the stream."""
        ...

    def end(self) -> StreamEnd:
        """The good end of the stream. Raises AttemptFailed if it broke off before it."""
        ...


async def whole(http: Http, request: Request, ask: Ask, failures: Failures) -> Whole:
    """The body of a successful answer. Raises AttemptFailed for any other."""
    reply = await _posted(http, request, ask, failures)
    try:
        return Whole(await reply.read(), reply.first_byte, reply.sent)
    finally:
        reply.close()


async def streamed(
    http: Http, request: Request, ask: Ask, failures: Failures, framing: Framing, folder: Folder
) -> AsyncGenerator[Deltas | StreamEnd, None]:
    """Deltas as they come, then one StreamEnd, as `Provider.stream` promises.

    What came before a break goes out before the failure.
    """
    shown = False
    outgoing = folder.outgoing
    try:
        reply = await _posted(http, request, ask, failures)
        try:
            if reply.content_type in _NO_STREAM:
                raise _not_a_stream(await reply.read_error(), failures)
            while not folder.done and (block := await reply.next_block()):
                failed = _taken(framing, folder, block, failures)
                if outgoing.parts:
                    shown = True
                    yield outgoing.deltas(first_byte=reply.first_byte, sent=reply.sent)
                if failed is not None:
                    raise failed
            end = folder.end()
            if outgoing.parts:
                yield outgoing.deltas(first_byte=reply.first_byte, sent=reply.sent)
            if folder.done:
                reply.leave()
            yield end
        finally:
            reply.close()
    except AttemptFailed as error:
        error.retryable = error.retryable and not shown
        raise


def _taken(
    framing: Framing, folder: Folder, block: bytes, failures: Failures
) -> AttemptFailed | None:
    """Lets the folder take what a block completes; the failure that stopped it, if one did."""
    try:
        for event in framing.feed(block):
            folder.take(event)
            if folder.done:
                break
    except BrokenStream as error:
        return failures.broken(f"broke its stream: {error}")
    except AttemptFailed as error:
        return error
    return None


async def _posted(http: Http, request: Request, ask: Ask, failures: Failures) -> Reply:
    """The answer's head, if it is a success; else what the provider said as AttemptFailed."""
    reply = await http.post(
        request.url,
        headers=request.headers,
        body=request.body,
        timeouts=ask.timeouts,
        stream=ask.stream,
        failures=failures,
    )
    if reply.status // 100 == 2:
        return reply
    try:
        body = await reply.read_error()
    finally:
        reply.close()
    raise failures.refused(reply.status, reply.headers, body)


def _not_a_stream(body: bytes, failures: Failures) -> AttemptFailed:
    if read_detail(body).message:
        return failures.told(body)
    return failures.broken("answered a stream request with something else")
