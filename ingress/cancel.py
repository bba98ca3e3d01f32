"""What happens when a client goes away: the call is stopped wherever it is, and has its end."""

import asyncio
import logging

import msgspec

from ingress.replies import Replies, Reply
from ledger.connection import Connection, Disconnected, NoResponders, RequestTimeout
from ledger.log import Ledger
from ledger.publisher import Refused, Unresolved
from schemas import subjects
from schemas.call import Call
from schemas.events import RequestCancelled, message_id_of_end, new_of_call
from schemas.frames import Failure, Finish
from schemas.ids import Clock
from schemas.money import usd

log = logging.getLogger("nexus.ingress")

_WORKER_ENDS_WITHIN = 2.0
_JETSTREAM_WITHIN = 1.0


class _Delivered(msgspec.Struct):
    stream_seq: int


class _Consumer(msgspec.Struct):
    """What JetStream says of a lane; a `cluster` is there unless the server stands alone."""

    delivered: _Delivered
    cluster: msgspec.Raw = msgspec.Raw()


class _Deletion(msgspec.Struct):
    success: bool = False


_decode_consumer = msgspec.json.Decoder(_Consumer).decode
_decode_deletion = msgspec.json.Decoder(_Deletion).decode


class Canceller:
    """Cancels calls in the background; the worker that runs one ends it, else this ingress does."""

    def __init__(
        self, connection: Connection, ledger: Ledger, replies: Replies, clock: Clock
    ) -> None:
        self._connection = connection
        self._ledger = ledger
        self._replies = replies
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._connected_ns = clock.now_ns()
        connection.on_reconnect(self._on_reconnect)

    def _on_reconnect(self) -> None:
        self._connected_ns = self._clock.now_ns()

    def cancel(self, call: Call, job_seq: int) -> None:
        """Tell the workers at once, take the job out of the queue, then see the call ended."""
        self._connection.publish(subjects.cancel(call.id), b"")
        reply = self._replies.open(call.id)
        task = asyncio.create_task(self._see_ended(call, job_seq, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_ended(self, call: Call, job_seq: int, reply: Reply) -> None:
        try:
            if await self._delete_job(job_seq) and await self._was_never_taken(call, job_seq):
                await self._end(call, cost_nano=0)
                return
            reply.refill()
            async with asyncio.timeout(_WORKER_ENDS_WITHIN):
                while not isinstance(await reply.next(_WORKER_ENDS_WITHIN), Finish | Failure):
                    pass
        except TimeoutError:
            await self._end(call, cost_nano=None)
        except Exception as error:
            log.warning(
                "cancelled call left to the closer",
                extra={"call_id": call.id, "reason": repr(error)},
            )
        finally:
            self._replies.close(reply)

    async def _delete_job(self, job_seq: int) -> bool:
        """Whether the job was still in the queue; taken or not, nobody gets it any more."""
        request = msgspec.json.encode({"seq": job_seq, "no_erase": True})
        try:
            answer = await self._connection.request(
                subjects.api("STREAM.MSG.DELETE", subjects.WORK), request, timeout=_JETSTREAM_WITHIN
            )
        except (NoResponders, RequestTimeout, Disconnected):
            log.info("job not deleted; workers check cancels themselves")
            return False
        return _decode_deletion(answer.data).success

    async def _was_never_taken(self, call: Call, job_seq: int) -> bool:
        """Whether it is certain that a job, deleted by now, had been given to no worker.

        A lane gives its jobs out in their order, so one behind the last that was given out was not.
        A server that crashes forgets its last deliveries: our connection would have been lost with
        it, if it stands alone; of a cluster nothing is certain.
        """
        lane = subjects.consumer(call.target.pool, call.lane)
        try:
            answer = await self._connection.request(
                subjects.api("CONSUMER.INFO", subjects.WORK, lane), timeout=_JETSTREAM_WITHIN
            )
            consumer = _decode_consumer(answer.data)
        except (NoResponders, RequestTimeout, Disconnected, msgspec.DecodeError):
            return False
        is_behind = consumer.delivered.stream_seq < job_seq
        return is_behind and not consumer.cluster and self._connected_ns < call.received_ns

    async def _end(self, call: Call, cost_nano: int | None) -> None:
        """No worker ended it: it was still waiting, or its worker died; what it cost then is known
        only to a worker, and would come as a late attempt."""
        event = RequestCancelled(
            **new_of_call(call, self._clock),
            provider=call.target.provider,
            stream=call.stream,
            operation=call.operation,
            latency_ms=(self._clock.now_ns() - call.received_ns) / 1e6,
            cost_nano=cost_nano,
            usd=None if cost_nano is None else usd(cost_nano),
        )
        try:
            await self._ledger.append(event, message_id_of_end(call.id))
        except (Unresolved, Refused) as error:
            log.warning("cancel not recorded", extra={"call_id": call.id, "reason": str(error)})

    async def drain(self) -> None:
        """Waits for the cancels under way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_WORKER_ENDS_WITHIN + 1.0)
