"""The governor's appends: one after the other, each only behind the last one that is known.

So a governor that was taken for dead, and wakes, can append nothing: the other one's events follow
those it knows.
"""

import asyncio
import logging
from collections.abc import Callable

from ledger.connection import Connection, Disconnected, header_block
from ledger.leading import CONFLICTS, Deposed
from ledger.log import Ledger
from ledger.publisher import Publisher, Refused, Unresolved
from ledger.reader import Stored, Unreadable, read_last, read_subject
from schemas import subjects
from schemas.budget_events import GovernorStarted
from schemas.event import Event
from schemas.events import encode_event

log = logging.getLogger("nexus.governor")

_TRY = 2.0
_PAUSE = 0.05
_LOOKS = 40


class Fenced:
    """The one writer of a leading governor; `began` is the sequence its own time began at."""

    def __init__(self, connection: Connection, publisher: Publisher) -> None:
        self._connection = connection
        self._ledger = Ledger(publisher, "governor")
        self._turn = asyncio.Lock()
        self._last = 0
        self.began = 0

    async def begin(self, event: GovernorStarted, may: Callable[[], bool]) -> None:
        """Append the event that ends the time of every governor before, while `may()`.

        Without the bus it waits for it, for ever. Raises publisher.Refused.
        """
        async with self._turn:
            while True:
                if not may():
                    await asyncio.sleep(_PAUSE)
                    continue
                try:
                    newest = await read_last(
                        self._connection, subjects.LEDGER, subjects.LEDGER_GOVERNOR
                    )
                except Unreadable:
                    continue
                self._last = newest.seq if newest else 0
                try:
                    stored = await self._store(event, "")
                except Deposed:
                    # What was read came from a replica behind, or the one before still writes.
                    await asyncio.sleep(_PAUSE)
                    continue
                self.began = stored or self._last
                return

    async def append(self, event: Event, message_id: str = "") -> int | None:
        """Store one event and return its sequence; None if the ledger has its `message_id` already.

        Without the bus it waits for it, for ever. Raises Deposed when another governor has
        appended, publisher.Refused when the stream said no.
        """
        async with self._turn:
            return await self._store(event, message_id)

    async def _store(self, event: Event, message_id: str) -> int | None:
        headers = _only_after(self._last)
        looks = 0
        while True:
            try:
                ack = await self._ledger.append(event, message_id, headers=headers, deadline=_TRY)
                if not ack.duplicate:
                    self._last = ack.seq
                    return ack.seq
                return None
            except (Unresolved, Disconnected) as error:
                log.warning("the ledger does not answer", extra={"reason": str(error)})
            except Refused as error:
                if error.code not in CONFLICTS:
                    raise
                looks += 1
            following = await self._following()
            if following is not None:
                self._fence(following, event)
                return self._last
            if looks == _LOOKS:
                raise Deposed("the ledger does not hold what was appended last")
            await asyncio.sleep(_PAUSE)

    async def _following(self) -> Stored | None:
        """The event behind the last known; None where there is none, or none is heard of."""
        try:
            found = await read_subject(
                self._connection,
                subjects.LEDGER,
                subjects.LEDGER_GOVERNOR,
                from_seq=self._last + 1,
                limit=1,
                timeout=_TRY,
            )
        except Unreadable:
            return None
        return found[0] if found else None

    def _fence(self, following: Stored, event: Event) -> None:
        """Go on if the event is ours: its ack was lost, and sent again it stood in its own way."""
        if following.data != encode_event(event):
            raise Deposed("another governor has appended to the ledger")
        self._last = following.seq


def _only_after(seq: int) -> bytes:
    return header_block(
        {
            "Nats-Expected-Last-Subject-Sequence": str(seq),
            "Nats-Expected-Last-Subject-Sequence-Subject": subjects.LEDGER_GOVERNOR,
        }
    )
