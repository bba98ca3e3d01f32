"""The ledger: append events to it, and follow it from any sequence on."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator

from ledger.connection import Connection, Message
from ledger.publisher import PubAck, Publisher
from ledger.reader import Stored, Unreadable, read_at, read_last, read_subject, stored
from schemas import subjects
from schemas.access_events import AccessEvent
from schemas.event import Event, type_of
from schemas.events import encode_event

log = logging.getLogger("nexus.ledger")

_IDLE_CHECK = 1.0
_RETRY = 0.25
_AT_ONCE = 4096
_LOOKS = 4
_LOOK_PAUSE = 1.0
_LIVE = subjects.live("")


class Truncated(Exception):
    """The ledger lost its end, as a power cut may do: what was followed is no longer there."""


class Ledger:
    """Appends events in the name of one role; the bus lets a role write its own token only."""

    def __init__(self, publisher: Publisher, role: str) -> None:
        self._publisher = publisher
        self._role = role

    async def append(
        self,
        event: Event,
        message_id: str = "",
        *,
        headers: bytes = b"",
        deadline: float = 10.0,
    ) -> PubAck:
        """Append one event and wait until it is stored.

        The ledger keeps one event per `message_id` (default: the event's own id); a repeated one is
        acknowledged as `duplicate` with the sequence of the first. Raises publisher.Unresolved when
        nothing was heard within `deadline` seconds, publisher.Refused when the stream said no.
        """
        return await self._publisher.publish(
            self._subject(event),
            encode_event(event),
            msg_id=message_id or event.event_id,
            headers=headers,
            deadline=deadline,
        )

    def append_nowait(self, event: Event, message_id: str = "") -> asyncio.Future[PubAck]:
        """The same, in order with other publishes of this connection; the future is the ack."""
        return self._publisher.publish_nowait(
            self._subject(event),
            encode_event(event),
            msg_id=message_id or event.event_id,
        )

    def _subject(self, event: Event) -> str:
        project = "" if isinstance(event, AccessEvent) else event.project
        return subjects.ledger(self._role, project, type_of(event))


class Follower:
    """Follows the ledger: everything from a sequence on, in order, without gaps, for ever.

    The republished copies on `agent.events.>` bring news at once; what they miss (they are core
    NATS) is read from the stream. Subjects are those of the stream. After the end of one
    `records()`, `next_seq` may be set anew and another begun; never two at once.
    """

    def __init__(self, connection: Connection, from_seq: int) -> None:
        self._connection = connection
        self.next_seq = from_seq
        self.caught_up = asyncio.Event()
        self._news: asyncio.Queue[Stored] = asyncio.Queue(maxsize=10_000)
        self._wake = asyncio.Event()
        self._reconnected = False
        connection.on_reconnect(self._on_reconnect)

    async def records(self) -> AsyncGenerator[Stored, None]:
        """Raises Truncated when, after a reconnect, the last record given out is gone."""
        subscription = self._connection.subscribe(subjects.LIVE_EVENTS, self._on_live)
        newest: Stored | None = None
        try:
            while True:
                if newest is not None:
                    await self._check_still_there(newest)
                missing = await self._read_missing()
                for newest in missing:
                    self.next_seq = newest.seq + 1
                    yield newest
                if len(missing) == _AT_ONCE:
                    continue
                self.caught_up.set()
                async for record in self._live_run():
                    newest = record
                    yield record
        finally:
            subscription.unsubscribe()

    async def _check_still_there(self, newest: Stored) -> None:
        """A replica that is behind looks like a truncated ledger for a moment: look again."""
        looks = 0
        while self._reconnected:
            self._reconnected = False
            try:
                kept = await read_at(self._connection, subjects.LEDGER, newest.seq)
            except Unreadable:
                self._reconnected = True
                await asyncio.sleep(_RETRY)
                continue
            if kept != newest:
                self._reconnected = True
                looks += 1
                if looks == _LOOKS:
                    raise Truncated(f"the event {newest.seq} is no longer in the ledger")
                await asyncio.sleep(_LOOK_PAUSE)

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
            if self._news.empty() or self._reconnected:
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

    def _on_reconnect(self) -> None:
        self._reconnected = True
        self._wake.set()

    def _on_live(self, message: Message) -> None:
        """Only a hint unless the ledger itself has published it: a client can make the server send
        other things here, as the answer to a read or as a job."""
        is_live = message.subject.startswith(_LIVE)
        if is_live and message.header("Nats-Stream") == subjects.LEDGER and not self._news.full():
            self._news.put_nowait(stored(message))
        self._wake.set()


async def last_sequence(connection: Connection) -> int:
    """The newest sequence of the ledger; 0 while it is empty. Raises reader.Unreadable."""
    newest = await read_last(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
    return newest.seq if newest else 0
