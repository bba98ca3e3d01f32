"""A stream of Anthropic's Messages API, event by event, as chunks of a canonical chat.

Sources: platform.claude.com/docs (Streaming messages) and the event types of the `anthropic`
package 2.11.
"""

import msgspec
from msgspec import Raw

from workers.failures import Failures
from workers.providers.anthropic.answer import (
    THOUGHTS,
    AnswerBlock,
    StopDetails,
    error_in,
    finish_reason,
    thought,
)
from workers.providers.anthropic.usage import ABSENT, Tally, is_absent
from workers.providers.base import NOT_AS_ASKED, Ask, StreamEnd
from workers.sse import Event
from workers.translated import Chunks


class _Started(msgspec.Struct):
    usage: Raw = ABSENT


class _Delta(msgspec.Struct):
    """What comes to a block, or to the whole message; `type` says what it is."""

    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Raw = ABSENT
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class _Event(msgspec.Struct):
    """An event of any type; `type` says which of the others are there."""

    type: str = ""
    index: int = 0
    message: _Started | None = None
    content_block: AnswerBlock | None = None
    delta: _Delta | None = None
    usage: Raw = ABSENT


class _Open(msgspec.Struct):
    """A block that is being streamed; `call` is the place of a tool's call among all calls."""

    block: AnswerBlock
    call: int = -1
    pieces: list[str] = []
    signature: str = ""


_decode_event = msgspec.json.Decoder(_Event).decode


class MessageFolder:
    """The events of one stream on their way to the client."""

    def __init__(self, ask: Ask, failures: Failures) -> None:
        self._failures = failures
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._started = False
        self._tally = Tally()
        self._stop_reason = ""
        self._refusal = ""
        self.outgoing = Chunks(ask, failures.provider)
        self.done = False

    def take(self, event: Event) -> None:
        """Adds to `outgoing` what may go out; `done` once `message_stop` came.

        Events and deltas of other types are passed over, as Anthropic asks (docs: Versions). Raises
        AttemptFailed at an error, and at what is no event.
        """
        if not event.data:
            return
        try:
            said = _decode_event(event.data)
        except NOT_AS_ASKED as error:
            raise self._failures.broken("sent an event that is not as it should be") from error
        if said.type == "content_block_delta":
            self._add(said.index, said.delta or _Delta())
        elif said.type == "content_block_start" and said.content_block is not None:
            self._begin(said.index, said.content_block)
        elif said.type == "content_block_stop":
            self._close(said.index)
        elif said.type == "message_start" and said.message is not None:
            self._started = True
            self._tally.begin(said.message.usage)
        elif said.type == "message_delta":
            self._finish(said.delta or _Delta())
            self._tally.count(said.usage)
        elif said.type == "message_stop":
            self.done = True
        elif said.type == "error":
            failed = error_in(event.data, self._failures)
            # What had been read and said by then may be charged.
            failed.cost_known = not self._started
            raise failed

    def end(self) -> StreamEnd:
        """The good end of the stream. Raises AttemptFailed if it broke off before the reason why
        the model stopped."""
        if not self._stop_reason:
            raise self._failures.broken("ended its stream before the answer was complete")
        if self._refusal:
            self.outgoing.delta({"refusal": self._refusal})
        self.outgoing.finish(finish_reason(self._stop_reason))
        return self.outgoing.end(self._tally.usage())

    def _begin(self, index: int, block: AnswerBlock) -> None:
        opened = self._open[index] = _Open(block)
        if block.type == "text":
            self.outgoing.text(block.text or "")
            for citation in block.citations or ():
                self.outgoing.delta({"citations": [citation]})
        elif block.type == "thinking":
            opened.signature = block.signature or ""
            self._think(opened, block.thinking or "")
        elif block.type == "tool_use":
            opened.call = self._calls
            self._calls += 1
            self.outgoing.tool(opened.call, block.id or "", block.name or "")

    def _add(self, index: int, delta: _Delta) -> None:
        if delta.type == "text_delta":
            self.outgoing.text(delta.text or "")
            return
        opened = self._open.get(index)
        if opened is None:
            raise self._failures.broken("sent a piece of a block that has not begun")
        if delta.type == "input_json_delta":
            if opened.call >= 0 and delta.partial_json:
                opened.pieces.append(delta.partial_json)
                self.outgoing.arguments(opened.call, delta.partial_json)
        elif delta.type == "thinking_delta":
            self._think(opened, delta.thinking or "")
        elif delta.type == "signature_delta":
            opened.signature += delta.signature or ""
        elif delta.type == "citations_delta" and not is_absent(delta.citation):
            self.outgoing.delta({"citations": [delta.citation]})

    def _think(self, opened: _Open, text: str) -> None:
        opened.pieces.append(text)
        self.outgoing.reasoning(text)

    def _close(self, index: int) -> None:
        """A thought goes out once more, whole and signed; a call that got no piece has the
        arguments it began with: as a rule none, which is an empty object."""
        opened = self._open.pop(index, None)
        if opened is None:
            return
        if opened.block.type in THOUGHTS:
            signed = thought(opened.block, "".join(opened.pieces), opened.signature)
            self.outgoing.delta({"thinking_blocks": [signed]})
        elif opened.call >= 0 and not opened.pieces:
            self.outgoing.arguments(opened.call, opened.block.arguments)

    def _finish(self, delta: _Delta) -> None:
        self._stop_reason = delta.stop_reason or self._stop_reason
        if delta.stop_details is not None:
            self._refusal = delta.stop_details.explanation or self._refusal
