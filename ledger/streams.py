"""The JetStream streams and consumers Nexus needs, as data; `ensure` makes the server agree.

Spoken as plain JSON to the JetStream API over our own connection: idempotent, safe to run by every
role at every start, in any order and at once. Where all is as it should be nothing is written.
"""

import asyncio
from typing import Any

import msgspec

from ledger.connection import BusRefused, Connection, NoResponders, RequestTimeout
from schemas import subjects
from schemas.config import Config

SECOND = 1_000_000_000
_DEDUPE_WINDOW = 120 * SECOND
# The server sets this much disk aside for a bounded stream and refuses it where there is less.
_RESP_BYTES = 1024**3
_BLOB_BYTES = 2 * 1024**3

_NOT_FOUND = frozenset((10059, 10014))  # a stream, a consumer


class BusNotReady(Exception):
    """JetStream did not answer or refused a stream; the message says which and why."""


class _ApiError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Reply(msgspec.Struct):
    """The answer to INFO, CREATE and UPDATE; `config` is what the server now has."""

    config: dict[str, Any] = {}
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
            "name": subjects.SETTINGS,
            "subjects": [subjects.setting(">")],
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


async def ensure(connection: Connection, config: Config) -> list[str]:
    """Create what is missing and update what differs; the result says what that was.

    Raises BusNotReady, also when something has to be done that this user may not do, and what
    Connection.request raises.
    """
    wanted = [*map(_of_stream, streams(config)), *map(_of_consumer, consumers(config))]
    found = await asyncio.gather(*(_ask(connection, one.info) for one in wanted))
    done: list[str] = []
    for one, reply in zip(wanted, found, strict=True):
        if reply.error is None and one.is_in(reply.config):
            continue
        is_new = reply.error is not None
        if reply.error is not None and reply.error.err_code not in _NOT_FOUND:
            raise BusNotReady(f"{one.name}: {reply.error.description}")
        call, body = (one.create, one.body) if is_new else (one.update, one.update_body)
        try:
            error = (await _ask(connection, call, body)).error
        except BusRefused as refused:
            trouble = "is missing" if is_new else "is not as the configuration wants it"
            raise BusNotReady(
                f"{one.name} {trouble}, and this user of the bus may not change that: run "
                "`nexus setup` as one who may"
            ) from refused
        if error is not None:
            raise BusNotReady(f"{one.name}: {error.description}")
        done.append(f"{one.name} {'created' if is_new else 'updated'}")
    return done


class _Wanted(msgspec.Struct, frozen=True):
    """One stream or consumer, and how JetStream is asked for it."""

    name: str
    config: dict[str, Any]
    info: str
    create: str
    update: str
    body: dict[str, Any]
    update_body: dict[str, Any]

    def is_in(self, present: dict[str, Any]) -> bool:
        """Whether the server has it so; what we do not say is the server's to choose."""
        return all(present.get(key) == value for key, value in self.config.items())


def _of_stream(config: dict[str, Any]) -> _Wanted:
    name = config["name"]
    info, create, update = (
        subjects.api(f"STREAM.{verb}", name) for verb in ("INFO", "CREATE", "UPDATE")
    )
    return _Wanted(f"stream {name}", config, info, create, update, config, config)


def _of_consumer(config: dict[str, Any]) -> _Wanted:
    name, work = config["durable_name"], subjects.WORK
    create = subjects.api("CONSUMER.CREATE", work, name, config["filter_subject"])
    body = {"stream_name": work, "config": config}
    update = {**body, "action": "update"}
    info = subjects.api("CONSUMER.INFO", work, name)
    return _Wanted(f"consumer {name}", config, info, create, create, body, update)


async def _ask(connection: Connection, call: str, body: dict[str, Any] | None = None) -> _Reply:
    data = b"" if body is None else msgspec.json.encode(body)
    try:
        reply = await connection.request(call, data, timeout=5.0, optional=True)
    except NoResponders as error:
        raise BusNotReady("this NATS server has JetStream switched off") from error
    except RequestTimeout as error:
        raise BusNotReady(f"JetStream did not answer {call} within 5 s") from error
    return _decode_reply(reply.data)
