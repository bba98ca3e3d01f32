"""One attempt of a call: its target is asked, and what it answers goes out as frames."""

from contextlib import aclosing

import msgspec

from ledger.blobs import Blobs
from ledger.connection import Connection
from schemas import subjects
from schemas.call import Call
from schemas.frames import Finish, Timings, encode_parts
from schemas.ids import Clock
from schemas.usage import Usage
from workers.causes import unknown_provider
from workers.circuits import Visit
from workers.client_keys import ClientKeys
from workers.costs import cost_at
from workers.providers.base import Ask, AttemptFailed, Provider, StreamEnd
from workers.recording import Recorder
from workers.running import Running, RunningCalls


class LostOwnership(Exception):
    """Too long since the queue last heard of us: the job may be another worker's by now.

    `asked` when a provider is at work for us, whose bill has to be recorded.
    """

    def __init__(self, *, asked: bool) -> None:
        super().__init__("the job may be another worker's")
        self.asked = asked


class Attempts:
    """Makes the attempts of one worker's calls."""

    def __init__(
        self,
        connection: Connection,
        blobs: Blobs,
        providers: dict[str, Provider],
        keys: ClientKeys,
        calls: RunningCalls,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._blobs = blobs
        self._providers = providers
        self._keys = keys
        self._calls = calls
        self._recorder = recorder
        self._clock = clock

    async def make(self, running: Running, visit: Visit) -> Finish:
        """Asks the call's present target once. Raises AttemptFailed, KeyUnusable, LostOwnership."""
        call = running.call
        provider = self._providers.get(call.target.provider)
        if provider is None:
            raise AttemptFailed(unknown_provider(call.target), retryable=False, reached=False)
        ask = Ask(
            call_id=call.id,
            model=call.model,
            engine=call.target.engine,
            body=running.body,
            stream=call.stream,
            created=call.received_ns // 1_000_000_000,
            headers=call.headers,
            timeouts=call.target.timeouts,
            credential=self._keys.of_target(call),
        )
        running.asking = True
        if call.stream:
            return await self._stream(running, provider, ask, visit)
        run = provider.embed if call.operation == "embeddings" else provider.complete
        answer = await run(ask)
        timings = self._timings(call, answer.first_byte, answer.sent)
        return await self._finish(running, answer.usage, answer.finish_reason, answer.body, timings)

    async def _stream(self, running: Running, provider: Provider, ask: Ask, visit: Visit) -> Finish:
        """Relays deltas as they come; what arrived together leaves together."""
        call = running.call
        subject = subjects.resp(call.ingress, call.id)
        timings = Timings(total=0.0)
        async with aclosing(provider.stream(ask)) as pieces:
            async for piece in pieces:
                if isinstance(piece, StreamEnd):
                    total = self._recorder.since_received(call)
                    timings = msgspec.structs.replace(timings, total=total)
                    return await self._finish(
                        running, piece.usage, piece.finish_reason, piece.last, timings
                    )
                if not self._calls.owns(running):
                    running.text_bytes += piece.text_bytes
                    raise LostOwnership(asked=True)
                if timings.first_byte is None:
                    visit.began()
                    timings = self._timings(call, piece.first_byte, piece.sent)
                    self._recorder.streaming(running, timings)
                if sum(map(len, piece.parts)) > self._blobs.inline_limit:
                    parts_ref = await self._put(running, encode_parts(piece.parts))
                    self._connection.publish(subject, running.chunk(piece, parts_ref))
                elif piece.parts:
                    self._connection.publish(subject, running.chunk(piece))
        raise AssertionError("a provider's stream ends with StreamEnd or raises")

    async def _finish(
        self, running: Running, usage: Usage, finish_reason: str, body: bytes, timings: Timings
    ) -> Finish:
        call, reference = running.call, ""
        if len(body) > self._blobs.inline_limit:
            reference, body = await self._put(running, body), b""
        cost, price_id = cost_at(call.target, usage)
        return Finish(
            fence=running.fence,
            index=running.next_index(),
            event_id=self._clock.new_id(),
            time_ns=self._clock.now_ns(),
            provider=call.target.provider,
            engine=call.target.engine,
            usage=usage,
            cost=cost,
            price_id=price_id,
            timings=timings,
            attempts=call.attempts,
            finish_reason=finish_reason,
            body=body,
            body_ref=reference,
        )

    async def _put(self, running: Running, content: bytes) -> str:
        """Stores what the next frame cannot hold, apart from what other attempts have stored."""
        fence = running.fence
        name = f"{running.call.id}-{fence.job}-{fence.delivery}-{fence.attempt}-{running.index + 1}"
        return await self._blobs.put(name, content)

    def _timings(self, call: Call, first_byte: float, sent: float) -> Timings:
        total = self._recorder.since_received(call)
        after_first = (self._clock.monotonic() - first_byte) * 1e3
        return Timings(
            total=total,
            first_byte=round(max(0.0, total - after_first), 3),
            network=round((first_byte - sent) * 1e3, 3),
        )
