"""How a call ends: its last frame, its terminal event, the ack of its job, in this order.

All leave on one connection, the first two pipelined, the ack after both are stored. Whoever is not
the owner any more records a late attempt instead, so that its cost still counts, once.
"""

import asyncio

import msgspec

from ledger.connection import Connection
from ledger.log import Ledger
from ledger.publisher import PubAck, Publisher
from ledger.reader import read_at
from schemas import subjects
from schemas.events import (
    AttemptLate,
    Outcome,
    billed_to,
    decode_event,
    message_id_of_attempt,
    message_id_of_end,
    new_of_call,
    of_money,
    terminal_event,
)
from schemas.frames import End, encode_frame, message_id_of_frame
from schemas.ids import Clock
from schemas.usage import TOKEN_CLASSES, Cost, Usage
from workers.running import Running, RunningCalls

# An end may be written until a minute after the deadline; the closer comes after a minute and a
# half and would write its own.
_GRACE = 60.0


class Endings:
    """Ends the calls of one worker."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        ledger: Ledger,
        calls: RunningCalls,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._ledger = ledger
        self._calls = calls
        self._clock = clock

    async def end(self, running: Running, end: End) -> None:
        """Ends a call that is ours; of one that is not, only the attempt.

        Raises publisher.Unresolved when the bus stays away: the job is not acked then, and whoever
        gets it next finds the frame in RESP or starts anew.
        """
        call = running.call
        overdue = (self._clock.now_ns() - call.deadline_ns) / 1e9 > _GRACE
        if overdue or not self._calls.owns(running):
            await self._close_late(running, end)
            return
        event = terminal_event(call, end)
        shown = self._publisher.publish_nowait(
            subjects.resp(call.ingress, call.id),
            encode_frame(end),
            msg_id=message_id_of_frame(call.id, end.fence),
        )
        ended = self._ledger.append_nowait(event, message_id_of_end(call.id))
        await asyncio.gather(shown, ended)
        self._connection.publish(running.job.reply, b"+ACK")
        ack = ended.result()
        if ack.duplicate and not await self._is_ours(ack, event.event_id):
            await self._close_late(running, end)

    async def _is_ours(self, ack: PubAck, event_id: str) -> bool:
        """A duplicate is ours when our own first try was stored and only its ack was lost."""
        kept = await read_at(self._connection, subjects.LEDGER, ack.seq)
        event = decode_event(kept.data) if kept else None
        return event is not None and event.event_id == event_id

    async def _close_late(self, running: Running, end: End) -> None:
        """Was the attempt recorded as abandoned with an estimate, the event has the difference."""
        call = running.call
        late = AttemptLate(
            **new_of_call(call, self._clock),
            provider=end.provider,
            engine=end.engine,
            fence=end.fence,
            attempts=end.attempts,
            stream=call.stream,
            operation=call.operation,
            latency_ms=end.timings.total,
            billed_to=billed_to(call, end.provider),
            **of_money(end.usage, end.cost, end.price_id),
        )
        ack = await self._ledger.append(late, message_id_of_attempt(call.id, end.fence))
        if not ack.duplicate:
            return
        kept = await read_at(self._connection, subjects.LEDGER, ack.seq)
        known = decode_event(kept.data) if kept else None
        if isinstance(known, Outcome) and not isinstance(known, AttemptLate):
            await self._ledger.append(_difference(late, known, ack.seq), f"{call.id}.late{ack.seq}")


def _difference(late: AttemptLate, known: Outcome, seq: int) -> AttemptLate:
    """What the truth adds to the record at `seq`; money and tokens may be negative."""
    if late.cost_nano is None or known.cost_nano is None:
        return msgspec.structs.replace(late, corrects=seq)
    before, now = known.usage or Usage(), late.usage or Usage()
    tokens = {name: getattr(now, name) - getattr(before, name) for name in TOKEN_CLASSES}
    cost = Cost(
        input=(late.input_cost_nano or 0) - (known.input_cost_nano or 0),
        output=(late.output_cost_nano or 0) - (known.output_cost_nano or 0),
        cache_savings=late.cache_savings_nano - known.cache_savings_nano,
    )
    money = of_money(Usage(**tokens, status=now.status, tier=now.tier), cost, late.price_id)
    return msgspec.structs.replace(late, corrects=seq, **money)
