"""Which worker pools are alive: asked over the bus, remembered for a tenth of a second."""

import asyncio

from ledger.connection import Connection, Disconnected, NoResponders, RequestTimeout
from schemas import subjects
from schemas.errors import Unavailable
from schemas.ids import Clock

_REMEMBERED = 0.1
_ANSWER_WITHIN = 0.25
_RETURN_WITHIN = 3.0
_ASK_AGAIN = 0.05


class Pools:
    """Knows for each pool whether any worker listens; concurrent questions share one ping."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._known: dict[str, tuple[float, bool]] = {}
        self._asking: dict[str, asyncio.Task[bool]] = {}
        self._all_back_at = 0.0
        connection.on_reconnect(self._on_reconnect)

    async def require(self, pool: str, provider: str) -> None:
        """Returns when the pool has a worker. Raises Unavailable, within milliseconds, when not.

        A worker that is there but does not answer in time is taken for busy: the job will wait.
        After a loss of the bus the workers get three seconds to come back to it as well.
        """
        asked, alive = self._known.get(pool, (0.0, False))
        if self._clock.monotonic() - asked > _REMEMBERED:
            asking = self._asking.get(pool)
            if asking is None:
                asking = asyncio.create_task(self._ask(pool))
                self._asking[pool] = asking
            alive = await asyncio.shield(asking)
        if not alive:
            raise Unavailable(
                f"No worker is running for provider '{provider}'. Start one with "
                f"'nexus worker --pool {pool}' or try again shortly.",
                code="no_worker",
                provider=provider,
                retry_after=1.0,
            )

    async def _ask(self, pool: str) -> bool:
        try:
            while not (alive := await self._answers(pool)):
                if self._clock.monotonic() >= self._all_back_at:
                    break
                await asyncio.sleep(_ASK_AGAIN)
        finally:
            del self._asking[pool]
        self._known[pool] = (self._clock.monotonic(), alive)
        return alive

    async def _answers(self, pool: str) -> bool:
        try:
            await self._connection.request(subjects.ping(pool), timeout=_ANSWER_WITHIN)
        except NoResponders:
            return False
        except (RequestTimeout, Disconnected):
            return True
        return True

    def _on_reconnect(self) -> None:
        if self._connection.reconnects:
            self._all_back_at = self._clock.monotonic() + _RETURN_WITHIN
