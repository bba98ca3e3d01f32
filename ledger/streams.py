"""The JetStream streams and consumers Nexus needs, as data; `ensure` makes the server agree.

Spoken as plain JSON to the JetStream API over our own connection: idempotent, safe to run by every
role at every start, in any order and at once.
"""

from typing import Any

import msgspec

from ledger.connection import Connection, NoResponders, RequestTimeout
from schemas import subjects
from schemas.config import Config

SECOND = 1_000_000_000
_DEDUPE_WINDOW = 120 * SECOND
# The server sets this much disk aside for a bounded stream and refuses it where there is less.
_RESP_BYTES = 1024**3
_BLOB_BYTES = 2 * 1024**3

_NAME_IN_USE = 10058
_CONSUMER_EXISTS = 10148


class BusNotReady(Exception):
    """JetStream did not answer or refused a stream; the message says which and why."""


class _ApiError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Reply(msgspec.Struct):
    error: _ApiError | None = None


_decode_reply = msgspec.json.Decoder(_Reply).decode


def streams(config: Config) -> list[dict[str, Any]]:
    """Every stream with its full configuration; durations in nanoseconds, sizes in bytes."""
    kept = {
        "storage": "file",
        "num_replicas": config.bus.replicas,
        "duplicate_window": _DEDUPE_WINDOW,
        "allow_direct": True,
    }
    answers_age = int((config.call_deadline + 120) * SECOND)
    return [
        {
            **kept,
            "name": subjects.LEDGER,
            "subjects": [subjects.LEDGER_SUBJECTS],
            "retention": "limits",
            "deny_delete": True,
            "deny_purge": True,
            "republish": {"src": subjects.LEDGER_REPUBLISH_SOURCE, "dest": subjects.LIVE_EVENTS},
        },
        {
            **kept,
            "name": subjects.WORK,
            "subjects": [subjects.WORK_SUBJECTS],
            "retention": "workqueue",
            "discard": "new",
            "discard_new_per_subject": True,
            "max_msgs_per_subject": config.queue.max_waiting,
            "allow_msg_ttl": True,
        },
        {
            **kept,
            "name": subjects.RESP,
            "subjects": [subjects.RESP_SUBJECTS],
            "retention": "limits",
            "max_age": answers_age,
            "max_bytes": _RESP_BYTES,
            "discard": "old",
        },
        {
            **kept,
            "name": subjects.BLOBS,
            "subjects": [subjects.BLOB_SUBJECTS],
            "retention": "limits",
            "max_age": answers_age,
            "max_bytes": _BLOB_BYTES,
            "discard": "old",
        },
        {
            **kept,
            "name": subjects.SNAPSHOTS,
            "subjects": [subjects.SNAPSHOT_SUBJECTS],
            "retention": "limits",
        },
        {
            "storage": "file",
            "num_replicas": config.bus.replicas,
            "name": f"KV_{subjects.SETTINGS_BUCKET}",
            "subjects": [f"$KV.{subjects.SETTINGS_BUCKET}.>"],
            "retention": "limits",
            "max_msgs_per_subject": 1,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": True,
            "discard": "new",
        },
    ]


def lane_slots(concurrency: int, lane: str) -> int:
    """How many calls of one lane run at once: a fifth is for batches, together the whole pool."""
    batch = max(1, concurrency // 5)
    return batch if lane == "batch" else max(1, concurrency - batch)


def consumers(config: Config) -> list[dict[str, Any]]:
    """Two durable pull consumers per pool, one for each lane."""
    return [
        {
            "durable_name": subjects.consumer(pool, lane),
            "filter_subject": subjects.work(pool, lane),
            "ack_policy": "explicit",
            "ack_wait": int(config.queue.ack_wait * SECOND),
            "max_deliver": config.queue.max_deliver,
            "max_ack_pending": lane_slots(concurrency, lane),
            "deliver_policy": "all",
            "replay_policy": "instant",
        }
        for pool, concurrency in sorted(config.pools().items())
        for lane in subjects.LANES
    ]


async def ensure(connection: Connection, config: Config) -> None:
    """Create or update every stream and consumer. Raises BusNotReady."""
    for stream in streams(config):
        name = stream["name"]
        error = await _api(connection, f"STREAM.CREATE.{name}", stream)
        if error is not None and error.err_code == _NAME_IN_USE:
            error = await _api(connection, f"STREAM.UPDATE.{name}", stream)
        if error is not None:
            raise BusNotReady(f"stream {name}: {error.description}")
    for consumer in consumers(config):
        await _ensure_consumer(connection, consumer)


async def _ensure_consumer(connection: Connection, consumer: dict[str, Any]) -> None:
    name = consumer["durable_name"]
    subject = f"CONSUMER.CREATE.{subjects.WORK}.{name}.{consumer['filter_subject']}"
    request = {"stream_name": subjects.WORK, "config": consumer}
    error = await _api(connection, subject, request)
    if error is not None and error.err_code == _CONSUMER_EXISTS:
        error = await _api(connection, subject, {**request, "action": "update"})
    if error is not None:
        raise BusNotReady(f"consumer {name}: {error.description}")


async def _api(connection: Connection, call: str, body: dict[str, Any]) -> _ApiError | None:
    try:
        reply = await connection.request(f"$JS.API.{call}", msgspec.json.encode(body), timeout=5.0)
    except NoResponders as error:
        raise BusNotReady("this NATS server has JetStream switched off") from error
    except RequestTimeout as error:
        raise BusNotReady(f"JetStream did not answer {call} within 5 s") from error
    return _decode_reply(reply.data).error
