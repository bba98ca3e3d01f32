"""A call goes on elsewhere: in the queue of another pool, or with another worker of this one.

The frame that says so is stored in RESP before the queue hears of it, so that whoever gets the job
next knows what was done: everything that was asked of a provider has been recorded by then.
"""

import logging

import msgspec

from ledger.connection import Connection, Disconnected
from ledger.publisher import Publisher, Refused, Unresolved
from ledger.work import submit
from schemas import subjects
from schemas.call import Call
from schemas.frames import Moved, encode_frame, message_id_of_frame
from workers.running import Running

log = logging.getLogger("nexus.worker")

_STORED_WITHIN = 1.0


def moved(call: Call, frame: Moved) -> Call:
    """The call as it goes on after the frame."""
    return msgspec.structs.replace(
        call, at=frame.at, attempts=frame.attempts, hold_used=frame.hold_used
    )


async def move(connection: Connection, publisher: Publisher, running: Running, at: int) -> None:
    """Queues the call for target `at` in its pool and lets go of our job.

    Raises publisher.Refused when that queue takes no more, publisher.Unresolved without a bus.
    """
    await _show(publisher, running, at, deadline=10.0)
    await submit(publisher, running.call)
    connection.publish(running.job.reply, b"+ACK")


async def hand_back(
    connection: Connection, publisher: Publisher, running: Running, *, all_recorded: bool
) -> None:
    """Gives the job back to the queue at once.

    `all_recorded`: the next worker is told that the ledger has all that was asked of a provider.
    Where it is not told, also for want of a bus, it has to assume the contrary.
    """
    if all_recorded:
        try:
            await _show(publisher, running, running.call.at, deadline=_STORED_WITHIN)
        except (Unresolved, Refused, Disconnected) as error:
            log.warning("hand-back not told: %s", error, extra={"call_id": running.call.id})
    connection.publish(running.job.reply, b"-NAK")


async def _show(publisher: Publisher, running: Running, at: int, deadline: float) -> None:
    running.next_attempt(at, counted=False)
    call = running.call
    frame = Moved(running.fence, running.next_index(), at, call.attempts, call.hold_used)
    await publisher.publish(
        subjects.resp(call.ingress, call.id),
        encode_frame(frame),
        msg_id=message_id_of_frame(call.id, frame.fence),
        deadline=deadline,
    )
