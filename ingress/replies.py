"""The frames of all calls of this ingress: one subscription, one bounded reply per call.

Frames come over core NATS as they are made. What is missed (a reconnect, a client that reads too
slowly for the buffer) is read again from the stream RESP, which keeps them for a while.
"""

import asyncio
from collections import deque

from ingress.sequencer import Sequencer
from ledger.connection import Connection, Message
from ledger.reader import Unreadable, read_subject
from schemas import subjects
from schemas.frames import Frame, decode_frame

_REFILL_FRAMES = 64
_GAP_WAIT = 0.05
_GAP_TRIES = 60
_STORED_WITHIN = 1.0


class Gap(Exception):
    """Frames are missing and RESP does not have them either."""


class Reply:
    """The frames of one call, in order, at most `limit` bytes of them waiting."""

    __slots__ = (
        "_connection",
        "_lagging",
        "_limit",
        "_queue",
        "_ready",
        "_refill_from",
        "_sequencer",
        "_size",
        "_subject",
        "_waiter",
        "call_id",
        "gone",
    )

    def __init__(self, connection: Connection, call_id: str, subject: str, limit: int) -> None:
        self.call_id = call_id
        self._connection = connection
        self._subject = subject
        self._limit = limit
        self._queue: deque[bytes] = deque()
        self._ready: deque[Frame] = deque()
        self._size = 0
        self._lagging = False
        self._refill_from = 1
        self._sequencer = Sequencer()
        self._waiter: asyncio.Future[None] | None = None
        self.gone = False

    def push(self, data: bytes) -> None:
        """From the subscription: never blocks; over the limit the frame is left to RESP."""
        if self._size > self._limit:
            self._lagging = True
            return
        self._queue.append(data)
        self._size += len(data)
        self._wake()

    def leave(self) -> None:
        """The client went away: whoever waits for frames is told at once."""
        self.gone = True
        self._wake()

    def refill(self) -> None:
        """Something may have been missed: read RESP before waiting on."""
        self._lagging = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self, silence: float) -> Frame | None:
        """The next frame in order; None when nothing came for `silence` seconds or the client left.

        After a silence the next call looks into RESP first. Raises Gap, Interrupted.
        """
        tries = 0
        while not self.gone:
            if self._ready:
                return self._ready.popleft()
            if self._queue:
                data = self._queue.popleft()
                self._size -= len(data)
                self._ready.extend(self._sequencer.accept(decode_frame(data)))
            elif self._lagging:
                self._lagging = False
                await self._read_again()
            elif self._sequencer.has_gap:
                tries += 1
                if tries > _GAP_TRIES:
                    raise Gap
                if not await self._wait(_GAP_WAIT):
                    self._lagging = True
            elif not await self._wait(silence):
                self._lagging = True
                return None
        return None

    async def _read_again(self) -> None:
        try:
            stored = await read_subject(
                self._connection,
                subjects.RESP,
                self._subject,
                from_seq=self._refill_from,
                limit=_REFILL_FRAMES,
                limit_bytes=self._limit,
            )
        except Unreadable:
            await asyncio.sleep(_GAP_WAIT)
            self._lagging = True
            return
        for record in stored:
            self._refill_from = record.seq + 1
            self._ready.extend(self._sequencer.accept(decode_frame(record.data)))
        if stored:
            self._lagging = True

    async def _wait(self, seconds: float) -> bool:
        """True when something happened within the time."""
        self._waiter = asyncio.get_running_loop().create_future()
        if self._queue or self._lagging or self.gone:
            return True
        timer = asyncio.get_running_loop().call_later(seconds, self._waiter.cancel)
        try:
            await self._waiter
        except asyncio.CancelledError:
            if self._waiter.cancelled() and not _being_cancelled():
                return False
            raise
        finally:
            timer.cancel()
        return True


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Replies:
    """All open replies of one ingress, by call."""

    def __init__(self, connection: Connection, ingress: str, limit: int) -> None:
        self.ingress = ingress
        self._connection = connection
        self._limit = limit
        self._open: dict[str, Reply] = {}
        connection.subscribe(subjects.resp_of_ingress(ingress), self._on_message)
        connection.on_reconnect(self._on_reconnect)

    def __len__(self) -> int:
        return len(self._open)

    def open(self, call_id: str) -> Reply:
        """Listens for a call's frames; do it before the job is queued."""
        subject = subjects.resp(self.ingress, call_id)
        reply = Reply(self._connection, call_id, subject, self._limit)
        self._open[call_id] = reply
        return reply

    def close(self, reply: Reply) -> None:
        if self._open.get(reply.call_id) is reply:
            del self._open[reply.call_id]

    def _on_message(self, message: Message) -> None:
        reply = self._open.get(message.subject.rpartition(".")[2])
        if reply is not None:
            reply.push(message.data)

    def _on_reconnect(self) -> None:
        """RESP is read now, and once more when it surely has what came to the bus before us."""
        self._refill_all()
        asyncio.get_running_loop().call_later(_STORED_WITHIN, self._refill_all)

    def _refill_all(self) -> None:
        for reply in self._open.values():
            reply.refill()
