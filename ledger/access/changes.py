"""Changes of who may call: each is decided on what is known, and appended only if that is all."""

import asyncio
from collections.abc import Callable

from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.connection import Disconnected, header_block
from ledger.log import Ledger
from ledger.publisher import Refused, Unresolved
from ledger.reader import Stored, Unreadable
from schemas import subjects
from schemas.access_events import AccessEvent
from schemas.errors import Unavailable
from schemas.events import encode_event
from schemas.ids import Clock

_WITHIN = 4.0
_RETRY_AFTER = 2.0
_PAUSE = 0.05
# "wrong last sequence"; the second one is what a cluster says of two appends at the same time.
_CONFLICTS = frozenset((10071, 10164))


class Changes:
    """Appends access events, one after the other: no two processes change the same thing at once.

    Every append names the access event that was known as the last one; the ledger refuses it when
    there is a newer one.
    """

    def __init__(self, ledger: Ledger, registry: Registry, feed: Feed, clock: Clock) -> None:
        self._ledger = ledger
        self._registry = registry
        self._feed = feed
        self._clock = clock
        self._turn = asyncio.Lock()

    async def make(self, decide: Callable[[Registry], AccessEvent]) -> AccessEvent:
        """Append what `decide` makes of the registry, and return it once the registry has it.

        `decide` is asked again whenever somebody else was faster; what it raises is raised. Raises
        Unavailable: `key_store_away` before the registry is loaded, `bus_away` when the ledger did
        not answer within 4 s (the change may be stored or not), `conflict` when others were faster
        for all that time.
        """
        if not self._feed.loaded:
            raise Unavailable(
                "The keys are not known yet, as the bus does not answer: try again in a moment.",
                code="key_store_away",
                retry_after=_RETRY_AFTER,
            )
        lost_a_race = False
        try:
            async with asyncio.timeout(_WITHIN) as limit, self._turn:
                while True:
                    known = self._registry.seq
                    event = decide(self._registry)
                    seq = await self._append(event, known)
                    if seq is not None:
                        break
                    lost_a_race = True
                limit.reschedule(None)
                await self._feed.reach(seq)
                return event
        except (TimeoutError, Unresolved, Disconnected) as error:
            raise _out_of_time(lost_a_race and self._feed.fresh) from error

    async def _append(self, event: AccessEvent, known: int) -> int | None:
        """The sequence of the event; None if another followed `known`, and is in the registry."""
        version = self._registry.version
        try:
            return (await self._ledger.append(event, headers=_only_after(known))).seq
        except Refused as error:
            if error.code not in _CONFLICTS:
                raise Unavailable(
                    f"The ledger refused the change: {error.description}.",
                    code="bus_away",
                    retry_after=_RETRY_AFTER,
                ) from error
        while True:
            first = await self._first_after(known)
            if first is not None and first.data == encode_event(event):
                # Its ack was lost, and when it was sent again it stood in its own way.
                return first.seq
            if first is not None:
                await self._feed.reach(first.seq)
                return None
            if self._registry.version != version and self._registry.seq <= known:
                # The ledger has lost its end, and the registry was made anew.
                return None
            await asyncio.sleep(_PAUSE)

    async def _first_after(self, known: int) -> Stored | None:
        try:
            return await self._feed.next_after(known)
        except Unreadable:
            return None


def _only_after(seq: int) -> bytes:
    return header_block(
        {
            "Nats-Expected-Last-Subject-Sequence": str(seq),
            "Nats-Expected-Last-Subject-Sequence-Subject": subjects.LEDGER_ACCESS,
        }
    )


def _out_of_time(conflict: bool) -> Unavailable:
    if conflict:
        return Unavailable(
            "Others changed keys all the time: try again.", code="conflict", retry_after=1.0
        )
    return Unavailable(
        "The bus does not answer: the change may have been made or not; look before trying again.",
        code="bus_away",
        retry_after=_RETRY_AFTER,
    )
