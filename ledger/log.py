"""The ledger: append events to it, and follow it from any sequence on."""

import asyncio
import logging
from collections.abc import AsyncIterator

from ledger.connection import Connection, Message
from ledger.publisher import PubAck, Publisher
from ledger.reader import Stored, Unreadable, read_last, read_subject
from schemas import subjects
from schemas.events import Event, encode_event, type_of

log = logging.getLogger("nexus.ledger")

_IDLE_CHECK = 1.0
_RETRY = 0.25
_AT_ONCE = 4096


class Ledger:
    """Appends events in the name of one role; the bus lets a role write its own token only."""

    def __init__(self, publisher: Publisher, role: str) -> None:
        self._publisher = publisher
        self._role = role

    async def append(self, event: Event, message_id: str = "", *, deadline: float = 10.0) -> PubAck:
        """Append one event and wait until it is stored.

        The ledger keeps one event per `message_id` (default: the event's own id); a repeated one is
        acknowledged as `duplicate` with the sequence of the first. Raises publisher.Unresolved when
        nothing was heard within `deadline` seconds, publisher.Refused when the stream said no.
        """
        return await self._publisher.publish(
            subjects.ledger(self._role, event.project, type_of(event)),
            encode_event(event),
            msg_id=message_id or event.event_id,
            deadline=deadline,
        )

    def append_nowait(self, event: Event, message_id: str = "") -> asyncio.Future[PubAck]:
        """The same, in order with other publishes of this connection; the future is the ack."""
        return self._publisher.publish_nowait(
            subjects.ledger(self._role, event.project, type_of(event)),
            encode_event(event),
            msg_id=message_id or event.event_id,
        )


class Follower:
    """Follows the ledger: everything from a sequence on, in order, without gaps, for ever.

    The republished copies on `agent.events.>` bring news at once; what they miss (they are core
    NATS) is read from the stream. Subjects are those of the stream.
    """

    def __init__(self, connection: Connection, from_seq: int) -> None:
        self._connection = connection
        self.next_seq = from_seq
        self._news: asyncio.Queue[Stored] = asyncio.Queue(maxsize=10_000)
        self._wake = asyncio.Event()
        self.caught_up = asyncio.Event()

    async def records(self) -> AsyncIterator[Stored]:
        subscription = self._connection.subscribe(subjects.LIVE_EVENTS, self._on_live)
        self._connection.on_reconnect(self._wake.set)
        try:
            while True:
                missing = await self._read_missing()
                for record in missing:
                    self.next_seq = record.seq + 1
                    yield record
                if len(missing) == _AT_ONCE:
                    continue
                self.caught_up.set()
                async for record in self._live_run():
                    yield record
        finally:
            subscription.unsubscribe()

    async def _live_run(self) -> AsyncIterator[Stored]:
        """Records in unbroken sequence as they are republished, until a gap or a silence."""
        while True:
            while not self._news.empty():
                record = self._news.get_nowait()
                if record.seq > self.next_seq:
                    return
                if record.seq == self.next_seq:
                    self.next_seq += 1
                    yield record
            self._wake.clear()
            if not self._news.empty():
                continue
            try:
                async with asyncio.timeout(_IDLE_CHECK):
                    await self._wake.wait()
            except TimeoutError:
                return
            if self._news.empty():
                return

    async def _read_missing(self) -> list[Stored]:
        while True:
            try:
                return await read_subject(
                    self._connection, subjects.LEDGER, ">", from_seq=self.next_seq, limit=_AT_ONCE
                )
            except Unreadable as error:
                self.caught_up.clear()
                log.warning("ledger not readable", extra={"reason": str(error)})
                await asyncio.sleep(_RETRY)

    def _on_live(self, message: Message) -> None:
        seq = int(message.header("Nats-Sequence") or 0)
        subject = message.header("Nats-Subject") or ""
        if not self._news.full():
            self._news.put_nowait(Stored(seq=seq, subject=subject, data=message.data))
        self._wake.set()


async def last_sequence(connection: Connection) -> int:
    """The newest sequence of the ledger; 0 while it is empty. Raises reader.Unreadable."""
    newest = await read_last(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
    return newest.seq if newest else 0
