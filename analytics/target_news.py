"""Tells every ingress how targets fare, a little after the ledger has told us."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from analytics.store import StoreFailed
from schemas import subjects

log = logging.getLogger("nexus.analytics")

_EVERY = 2.0

_encode = msgspec.json.Encoder().encode


class TargetNews:
    """Publishes the report on `analytics.targets`, and only when the tables have grown: what
    nothing is added to fades in the same way wherever it is kept."""

    def __init__(
        self,
        connection: Client,
        report: Callable[[], Awaitable[msgspec.Struct]],
        as_of_seq: Callable[[], int],
    ) -> None:
        self._connection = connection
        self._report = report
        self._as_of_seq = as_of_seq
        self._told = 0

    async def run(self) -> None:
        """Until it is cancelled. Without bus or database nothing is told, and the next time all."""
        while True:
            await asyncio.sleep(_EVERY)
            now = self._as_of_seq()
            if now == self._told:
                continue
            try:
                await self._connection.publish(subjects.TARGETS, _encode(await self._report()))
                self._told = now
            except (StoreFailed, NatsError, OSError) as error:
                log.warning("nobody was told how targets fare", extra={"error": str(error)})
