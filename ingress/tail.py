"""One reader of the ledger per ingress, for all who listen there; it reads only while someone does.

A listener that begins in the past reads the ledger at its own pace until it has come to where the
tail is, and joins it there: nothing is missed and nothing comes twice.
"""

import asyncio
import logging
from collections import deque
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from ledger.connection import Connection
from ledger.log import Follower, Truncated, last_sequence
from ledger.reader import Stored, Unreadable, read_subject
from schemas import subjects
from schemas.events import KNOWN_TYPES, WRITERS
from schemas.globs import matches

log = logging.getLogger("nexus.ingress")

_WAITING_EVENTS = 1000
_WAITING_BYTES = 4 * 1024 * 1024
_REPLAY = 500
_AT_ONCE = 100
_RETRY = 0.25
_ASK_WITHIN = 1.0
_BREATHE_EVERY = 256


class TooSlow(Exception):
    """More events wait for this listener than are kept for it."""


class Closed(Exception):
    """The tail ended: this ingress stops, or what it read is no longer the ledger."""


class Ahead(Exception):
    """The listener wants to begin after a sequence that the ledger does not have."""


class Heard(NamedTuple):
    """One event as it goes out; `data` is its JSON, in one line."""

    seq: int
    type: str
    key_id: str
    data: bytes


class Wanted(NamedTuple):
    """What a listener may and wants to hear: one key's events (None: everybody's), some types.

    Types are patterns with `*` and `?`; none at all stands for every type.
    """

    key_id: str | None
    types: tuple[str, ...] = ()

    def includes(self, heard: Heard) -> bool:
        if self.key_id is not None and heard.key_id != self.key_id:
            return False
        return not self.types or any(matches(pattern, heard.type) for pattern in self.types)


class Listener:
    """One client that listens; made by `Tail.listen`, ended by `close`."""

    def __init__(self, tail: "Tail", wanted: Wanted, since: int | None) -> None:
        self._tail = tail
        self._wanted = wanted
        self._since = since
        self._position: int | None = None
        self._ready: deque[Heard] = deque()
        self._bytes = 0
        self._end: Exception | None = None
        self._wake = asyncio.Event()
        self.joined = False

    async def begin(self) -> None:
        """Settle where to begin. Waits while the bus is away; raises Ahead."""
        end = await self._tail.end()
        if self._since is not None and self._since > end:
            raise Ahead(f"the last event of the ledger is {end}")
        self._position = end if self._since is None else self._since
        self.joined = self._position == end

    async def next(self, silence: float) -> list[Heard]:
        """The next events, at most a hundred; none when nothing came for `silence` seconds.

        Raises TooSlow or Closed once what was waiting has been given out, Ahead as `begin` does.
        """
        try:
            async with asyncio.timeout(silence):
                while not self._ready:
                    await self._hear_more()
        except TimeoutError:
            return []
        batch = [self._ready.popleft() for _ in range(min(_AT_ONCE, len(self._ready)))]
        self._bytes -= sum(len(heard.data) for heard in batch)
        return batch

    async def _hear_more(self) -> None:
        if self._end is not None:
            raise self._end
        if self._position is None:
            await self.begin()
        elif self.joined:
            await self._wake.wait()
            self._wake.clear()
        else:
            await self._replay(self._position)

    async def _replay(self, position: int) -> None:
        """Read on in the ledger; join the tail as soon as nothing lies in between."""
        if position >= await self._tail.end():
            self.joined = True
            return
        try:
            records = await self._tail.read(position + 1)
        except Unreadable:
            records = []
        if not records:
            await asyncio.sleep(_RETRY)
        for record in records:
            self._position = record.seq
            self._take(_heard(record))

    def push(self, heard: Heard) -> None:
        """From the tail: never blocks. A listener that cannot follow is told so and left behind."""
        if self._position is not None and heard.seq <= self._position:
            return  # The replay had read ahead of the tail when this listener joined it.
        if len(self._ready) >= _WAITING_EVENTS or self._bytes > _WAITING_BYTES:
            self.end(TooSlow("events came faster than they were read"))
        else:
            self._take(heard)
            self._wake.set()

    def _take(self, heard: Heard | None) -> None:
        if heard is not None and self._wanted.includes(heard):
            self._ready.append(heard)
            self._bytes += len(heard.data)

    def end(self, reason: Exception) -> None:
        """Give out what waits, then raise `reason`."""
        self._end = self._end or reason
        self.joined = False
        self._wake.set()

    def close(self) -> None:
        """Stop listening; may be called twice."""
        self._tail.leave(self)


class Tail:
    """The listeners of one ingress and what feeds them; call `close` before the process stops."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._follower = Follower(connection, 1)
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._stopped: asyncio.Task[None] | None = None
        self._position = 0
        self._known = asyncio.Event()
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    async def listen(self, wanted: Wanted, since: int | None = None) -> Listener:
        """A listener to all events after `since`, or from now on. Raises Ahead, Closed.

        Returns within about a second, also while the bus is away: the listener begins when it is
        back.
        """
        if self._closed:
            raise Closed("this ingress is stopping")
        listener = Listener(self, wanted, since)
        self._listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(_ASK_WITHIN):
                await listener.begin()
        except TimeoutError:
            log.info("a listener waits for the bus")
        except BaseException:
            listener.close()
            raise
        return listener

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners and self._task is not None:
            self._task.cancel()
            self._stopped, self._task = self._task, None
            self._known.clear()

    def close(self) -> None:
        """End every listener, as this ingress stops."""
        self._closed = True
        self._end_all(Closed("this ingress is stopping"))

    async def end(self) -> int:
        """The sequence up to which joined listeners have been served; waits until it is known."""
        await self._known.wait()
        return self._position

    async def read(self, from_seq: int) -> list[Stored]:
        """A piece of the ledger. Raises reader.Unreadable."""
        return await read_subject(
            self._connection, subjects.LEDGER, ">", from_seq=from_seq, limit=_REPLAY
        )

    async def _run(self) -> None:
        if self._stopped is not None:
            await asyncio.wait([self._stopped])
        while True:
            try:
                self._position = await last_sequence(self._connection)
                self._known.set()
                await self._follow(self._position + 1)
            except Unreadable:
                await asyncio.sleep(_RETRY)
            except Truncated as error:
                log.error("ledger.truncated", extra={"reason": str(error)})
                self._known.clear()
                self._end_all(Closed("the ledger lost its end"))

    async def _follow(self, from_seq: int) -> None:
        self._follower.next_seq = from_seq
        async with aclosing(self._follower.records()) as records:
            async for record in records:
                heard = _heard(record)
                self._position = record.seq
                for listener in self._listeners:
                    if listener.joined and heard is not None:
                        listener.push(heard)
                if record.seq % _BREATHE_EVERY == 0:
                    await asyncio.sleep(0)

    def _end_all(self, reason: Exception) -> None:
        for listener in self._listeners:
            listener.end(reason)


class _Head(msgspec.Struct):
    event_type: str
    key_id: str = ""


_decode_head = msgspec.json.Decoder(_Head).decode


def _heard(record: Stored) -> Heard | None:
    """A record as an event to show; None for what is none, or not from a role that may write it.

    A type that this version does not know is shown as it is.
    """
    try:
        role, event_type = subjects.ledger_parts(record.subject)
        head = _decode_head(record.data)
    except (msgspec.DecodeError, ValueError):
        return None
    if head.event_type != event_type or b"\n" in record.data or b"\r" in record.data:
        return None
    if event_type in KNOWN_TYPES and event_type not in WRITERS.get(role, frozenset()):
        return None
    return Heard(record.seq, event_type, head.key_id, record.data)
