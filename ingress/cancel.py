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

log = logging.getLogger("nexus.ingress")

_WORKER_ENDS_WITHIN = 2.0


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

    def cancel(self, call: Call, job_seq: int) -> None:
        """Tell the workers at once, take the job out of the queue, then see the call ended."""
        self._connection.publish(subjects.cancel(call.id), b"")
        reply = self._replies.open(call.id)
        task = asyncio.create_task(self._see_ended(call, job_seq, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_ended(self, call: Call, job_seq: int, reply: Reply) -> None:
        try:
            await self._delete_job(job_seq)
            reply.refill()
            async with asyncio.timeout(_WORKER_ENDS_WITHIN):
                while not isinstance(await reply.next(_WORKER_ENDS_WITHIN), Finish | Failure):
                    pass
        except TimeoutError:
            await self._end(call)
        except Exception as error:
            log.warning(
                "cancelled call left to the closer",
                extra={"call_id": call.id, "reason": repr(error)},
            )
        finally:
            self._replies.close(reply)

    async def _delete_job(self, job_seq: int) -> None:
        request = msgspec.json.encode({"seq": job_seq, "no_erase": True})
        try:
            await self._connection.request(
                f"$JS.API.STREAM.MSG.DELETE.{subjects.WORK}", request, timeout=1.0
            )
        except (NoResponders, RequestTimeout, Disconnected):
            log.info("job not deleted; workers check cancels themselves")

    async def _end(self, call: Call) -> None:
        """No worker ended it: it was still waiting, or its worker died; what it cost is unknown
        only to a worker, and would come as a late attempt."""
        event = RequestCancelled(
            **new_of_call(call, self._clock),
            provider=call.target.provider,
            stream=call.stream,
            operation=call.operation,
            latency_ms=(self._clock.now_ns() - call.received_ns) / 1e6,
        )
        try:
            await self._ledger.append(event, message_id_of_end(call.id))
        except (Unresolved, Refused) as error:
            log.warning("cancel not recorded", extra={"call_id": call.id, "reason": str(error)})

    async def drain(self) -> None:
        """Waits for the cancels under way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_WORKER_ENDS_WITHIN + 1.0)
