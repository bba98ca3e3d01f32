"""What the ledger hears of an attempt beside the end of its call."""

import asyncio
import logging

from ledger.log import Ledger
from ledger.publisher import PubAck
from schemas.call import Call
from schemas.events import (
    AttemptAbandoned,
    AttemptFailed,
    StreamingStart,
    billed_to,
    message_id_of_attempt,
    new_of_call,
    of_money,
)
from schemas.frames import Fence, Timings
from schemas.ids import Clock
from schemas.usage import Usage
from workers.costs import cost_at
from workers.providers import base
from workers.running import Running

log = logging.getLogger("nexus.worker")


class Recorder:
    """Writes the events of attempts; each has one message id, so that it is written once."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    def since_received(self, call: Call) -> float:
        """Milliseconds since the ingress received the call."""
        return round(max(0, self._clock.now_ns() - call.received_ns) / 1e6, 3)

    def streaming(self, running: Running, timings: Timings) -> None:
        """The first token is here; nobody waits for this."""
        call = running.call
        event = StreamingStart(
            **new_of_call(call, self._clock),
            provider=call.target.provider,
            engine=call.target.engine,
            fence=running.fence,
            ttfb_ms=timings.first_byte or 0.0,
        )
        self._ledger.append_nowait(event).add_done_callback(_note_unresolved)

    async def failed(self, running: Running, failed: base.AttemptFailed) -> None:
        """The attempt under way came to nothing and another may follow."""
        call = running.call
        event = AttemptFailed(
            **new_of_call(call, self._clock),
            provider=call.target.provider,
            engine=call.target.engine,
            fence=running.fence,
            attempts=call.attempts,
            stream=call.stream,
            operation=call.operation,
            latency_ms=self.since_received(call),
            cost_nano=0 if failed.cost_known else None,
            billed_to=billed_to(call, call.target.provider),
            error=failed.info,
        )
        await self._ledger.append(event, message_id_of_attempt(call.id, running.fence))

    async def abandoned(self, running: Running, fence: Fence, usage: Usage | None) -> None:
        """Closes a silent worker's attempt: estimated when it streamed, else of unknown cost."""
        call = running.call
        cost, price_id = cost_at(call.target, usage)
        event = AttemptAbandoned(
            **new_of_call(call, self._clock),
            provider=call.target.provider,
            engine=call.target.engine,
            fence=fence,
            attempts=call.attempts + 1,
            stream=call.stream,
            operation=call.operation,
            billed_to=billed_to(call, call.target.provider),
            **of_money(usage, cost, price_id),
        )
        await self._ledger.append(event, message_id_of_attempt(call.id, fence))


def _note_unresolved(ack: "asyncio.Future[PubAck]") -> None:
    if not ack.cancelled() and ack.exception() is not None:
        log.warning("streaming start not recorded", extra={"reason": str(ack.exception())})
