"""The closer: ends calls that nobody ended, so that every hold ends."""

import asyncio
import logging

from ledger.connection import Connection
from ledger.fenced import Fenced
from ledger.fold import Fold
from ledger.log import last_sequence
from ledger.publisher import Refused
from ledger.reader import Unreadable
from schemas.events import RequestLost, RequestStart, message_id_of_end
from schemas.ids import Clock, rfc3339

log = logging.getLogger("nexus.governor")

CLOSE_AFTER = 90.0
_CHECK_EVERY = 1.0
_CATCH_UP_WITHIN = 1.0
_CLOSED_AT_ONCE = 256


class Closer:
    """A call still open `close_after` seconds after its deadline is ended as lost."""

    def __init__(
        self, connection: Connection, ledger: Fenced, fold: Fold, close_after: float, clock: Clock
    ) -> None:
        self._connection = connection
        self._ledger = ledger
        self._fold = fold
        self._close_after = close_after
        self._clock = clock

    async def run(self) -> None:
        """Runs until cancelled. Raises leading.Deposed."""
        while True:
            await asyncio.sleep(_CHECK_EVERY)
            try:
                if self._overdue() and await self._is_up_to_date():
                    for start in self._overdue()[:_CLOSED_AT_ONCE]:
                        await self._close(start)
            except Unreadable as error:
                log.warning("closer waits: %s", error)

    def _overdue(self) -> list[RequestStart]:
        return self._fold.open_calls.overdue(self._clock.now_ns(), self._close_after)

    async def _is_up_to_date(self) -> bool:
        """True when the fold has all that the ledger held a moment ago: an end that is not in it
        now is younger than the ledger's memory of message ids, so it cannot be written twice."""
        return await self._fold.reach(await last_sequence(self._connection), _CATCH_UP_WITHIN)

    async def _close(self, start: RequestStart) -> None:
        fields = {"call_id": start.call_id, "model": start.model}
        try:
            if await self._ledger.append(self._lost(start), message_id_of_end(start.call_id)):
                log.warning("call lost", extra=fields)
        except Refused as error:
            log.warning("call not closed: %s", error, extra=fields)

    def _lost(self, start: RequestStart) -> RequestLost:
        return RequestLost(
            event_id=self._clock.new_id(),
            time=rfc3339(self._clock.now_ns()),
            v=1,
            call_id=start.call_id,
            key_id=start.key_id,
            project=start.project,
            team=start.team,
            user=start.user,
            app=start.app,
            model=start.model,
            provider=start.provider,
            stream=start.stream,
            operation=start.operation,
            accounts=start.accounts,
        )
