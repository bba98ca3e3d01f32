"""Puts a call into the work queue: the same way from an ingress and from a worker."""

from ledger.publisher import PubAck, Publisher
from schemas import subjects
from schemas.call import Call, encode_call

QUEUE_FULL = 10077
_KEPT_AFTER_DEADLINE = 60


async def submit(publisher: Publisher, call: Call) -> PubAck:
    """Queue a call for its present target; one target of a call is queued once only.

    The job leaves the queue by itself a minute after the call's deadline. Raises
    publisher.Refused with code QUEUE_FULL when the pool's queue is full, publisher.Unresolved when
    the bus did not answer (the job may or may not be queued then).
    """
    seconds_left = max(1, (call.deadline_ns - call.received_ns) // 1_000_000_000)
    return await publisher.publish(
        subjects.work(call.target.pool, call.lane),
        encode_call(call),
        msg_id=f"{call.id}.t{call.at}",
        ttl=seconds_left + _KEPT_AFTER_DEADLINE,
    )
