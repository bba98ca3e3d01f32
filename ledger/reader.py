"""Reads stored messages of a stream by subject and sequence, with JetStream's direct get.

No consumer is created, so nothing has to be cleaned up and any process may read at any time.
"""

import asyncio
from itertools import count

import msgspec

from ledger.connection import Connection, Disconnected, Message, NoResponders, RequestTimeout
from schemas import subjects

_BATCH = 256
_BATCH_BYTES = 4 * 1024 * 1024
_NOT_FOUND = 404
_END_OF_BATCH = 204
_MARK = b"\r\nNats-Stream:"
_numbers = count(1)


class Unreadable(Exception):
    """The stream did not answer in time; nothing is known about what it holds."""


class Stored(msgspec.Struct, frozen=True):
    """One message as the stream keeps it.

    `subject` is empty where it does not tell who wrote the message: a client can make the server
    publish what it has stored, wherever that client may not publish itself, as the answer to a
    read. Such a copy bears the marks of the reading, and so do headers that a client made up.
    """

    seq: int
    subject: str
    data: bytes


class _BatchGet(msgspec.Struct, omit_defaults=True):
    next_by_subj: str
    seq: int = 0
    start_time: str = ""
    batch: int = 0
    max_bytes: int = 0


class _ExactGet(msgspec.Struct):
    seq: int


class _LastGet(msgspec.Struct):
    last_by_subj: str


async def read_subject(
    connection: Connection,
    stream: str,
    subject: str,
    *,
    from_seq: int = 1,
    since: str = "",
    limit: int = 0,
    limit_bytes: int = 0,
    timeout: float = 2.0,
) -> list[Stored]:
    """All stored messages whose subject matches (wildcards work), in order, from a sequence on, or
    those that were stored `since` a time (RFC 3339).

    `limit` > 0 bounds how many; `limit_bytes` > 0 ends the reading once there are so many
    bytes of them, or up to 4 MiB more. Only the ledger, whose sequences all count, gives out what
    has no subject. Raises Unreadable.
    """
    found: list[Stored] = []
    size = 0
    while True:
        wanted = min(_BATCH, limit - len(found)) if limit else _BATCH
        request = _BatchGet(
            next_by_subj=subject,
            seq=0 if since else from_seq,
            start_time=since,
            batch=wanted,
            max_bytes=_BATCH_BYTES,
        )
        batch, more = await _read_batch(connection, stream, request, timeout)
        found += batch if stream == subjects.LEDGER else filter(_is_genuine, batch)
        if not more or not batch or (limit and len(found) >= limit):
            return found
        size += sum(len(record.data) for record in batch)
        if limit_bytes and size >= limit_bytes:
            return found
        from_seq, since = batch[-1].seq + 1, ""


async def _read_batch(
    connection: Connection, stream: str, request: _BatchGet, timeout: float
) -> tuple[list[Stored], bool]:
    found: list[Stored] = []
    ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def on_message(message: Message) -> None:
        status = _status(message)
        if ended.done():
            return
        if status == _END_OF_BATCH:
            ended.set_result(message.header("Nats-Num-Pending") not in (None, "0"))
        elif status == _NOT_FOUND:
            ended.set_result(False)
        elif status:
            ended.set_exception(Unreadable(f"{stream} refused a read: status {status}"))
        else:
            found.append(stored(message))

    inbox = f"{connection.inbox}.read{next(_numbers)}"
    subscription = connection.subscribe(inbox, on_message)
    try:
        connection.publish(
            subjects.api("DIRECT.GET", stream), msgspec.json.encode(request), reply=inbox
        )
        async with asyncio.timeout(timeout):
            return found, await ended
    except (TimeoutError, Disconnected) as error:
        raise Unreadable(f"{stream} did not answer a read within {timeout} s") from error
    finally:
        subscription.unsubscribe()


async def read_at(
    connection: Connection, stream: str, seq: int, *, timeout: float = 2.0
) -> Stored | None:
    """The message at one sequence; None where there is none. Raises Unreadable."""
    return await _read_one(connection, stream, _ExactGet(seq), timeout)


async def read_last(
    connection: Connection, stream: str, subject: str, *, timeout: float = 2.0
) -> Stored | None:
    """The newest message of a subject; None where there is none. Raises Unreadable."""
    newest = await _read_one(connection, stream, _LastGet(subject), timeout)
    if newest is None or stream == subjects.LEDGER or _is_genuine(newest):
        return newest
    return None


async def _read_one(
    connection: Connection, stream: str, request: _ExactGet | _LastGet, timeout: float
) -> Stored | None:
    try:
        message = await connection.request(
            subjects.api("DIRECT.GET", stream), msgspec.json.encode(request), timeout=timeout
        )
    except (NoResponders, RequestTimeout, Disconnected) as error:
        raise Unreadable(f"{stream} did not answer a read") from error
    status = _status(message)
    if status == _NOT_FOUND:
        return None
    if status:
        raise Unreadable(f"{stream} refused a read: status {status}")
    return stored(message)


def stored(message: Message) -> Stored:
    """What the server says of a message that it has read from a stream or republished."""
    is_genuine = message.headers.count(_MARK) == 1
    return Stored(
        seq=int(message.header("Nats-Sequence") or 0),
        subject=message.header("Nats-Subject") or "" if is_genuine else "",
        data=message.data,
    )


def _status(message: Message) -> int:
    """What the server answers instead of a message; a stored one may look like that as well."""
    return 0 if _MARK in message.headers else message.status


def _is_genuine(record: Stored) -> bool:
    return bool(record.subject)
