"""What every admin resource works with: who asks, what is known, how it is changed and answered."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast

import msgspec
from fastapi import Request, Response

from ingress.answering import json_response
from ingress.auth import Authenticator
from ingress.body import read_body
from ingress.governor_client import GovernorClient
from ingress.routing import shown
from ledger.access.changes import Changes
from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.secret import ServerSecret
from schemas.access import Budget, BudgetScope, moment
from schemas.access_events import AccessEvent
from schemas.config import Config
from schemas.errors import InvalidRequest, NotFound, Unavailable
from schemas.event import type_of
from schemas.ids import Clock, rfc3339

log = logging.getLogger("nexus.admin")

T = TypeVar("T")
E = TypeVar("E", bound=AccessEvent)

_LONGEST_BODY = 256 * 1024
_AT_ONCE = 256


class Author(NamedTuple):
    """Who makes a change, and the clock it is dated by."""

    key_id: str
    clock: Clock

    def signs(self) -> dict[str, Any]:
        """The fields that every event of a change begins with."""
        return {
            "event_id": self.clock.new_id(),
            "time": rfc3339(self.clock.now_ns()),
            "v": 1,
            "by": self.key_id,
        }

    def now(self) -> datetime:
        return moment(self.clock.now_ns())


class Desk:
    """Where the admin's requests are received and answered."""

    def __init__(
        self,
        keys: Authenticator,
        changes: Changes,
        registry: Registry,
        feed: Feed,
        secret: ServerSecret,
        config: Config,
        clock: Clock,
        governor: GovernorClient,
    ) -> None:
        self.governor = governor
        self.registry = registry
        self.secret = secret
        self.config = config
        self.clock = clock
        self._keys = keys
        self._changes = changes
        self._feed = feed
        self._limits = msgspec.structs.replace(config.limits, max_body_bytes=_LONGEST_BODY)

    async def admit(self, request: Request) -> Author:
        """The admin, once the registry is known. Raises Unauthenticated, Forbidden, Unavailable."""
        principal = await self._keys.require_admin(request.scope["headers"])
        if not self._feed.loaded:
            raise Unavailable(
                "The keys are not known yet, as the bus does not answer: try again in a moment.",
                code="key_store_away",
                retry_after=1.0,
            )
        return Author(principal.tenant.key_id, self.clock)

    def now(self) -> datetime:
        return moment(self.clock.now_ns())

    async def body(self, request: Request) -> bytes:
        """The request's body, at most 256 KiB. Raises what `read_body` raises."""
        return await read_body(request.scope, request.receive, self._limits)

    async def change(self, id: str, decide: Callable[[Registry], E]) -> E:
        """Make one change, which the registry has when this returns; `id` is what it changes.

        Raises what `decide` raises, and Unavailable.
        """
        event = cast(E, await self._changes.make(decide))
        log.info("access changed", extra={"what": type_of(event), "id": id, "by": event.by})
        return event

    async def budgets_of(self, scope: BudgetScope, *ids: str) -> dict[str, list[Budget]]:
        """The budgets of some records of one scope, by id."""
        found: dict[str, list[Budget]] = {id: [] for id in ids}
        async for budget in unhurried(self.registry.budgets.values()):
            if budget.scope == scope and budget.id in found:
                found[budget.id].append(budget)
        return found

    def answer(self, content: object, status: int = 200, as_of: int | None = None) -> Response:
        """A JSON answer, with the sequence of the newest event of the ledger that it knows of."""
        seq = self.registry.seq if as_of is None else as_of
        headers = {"X-Nexus-Ledger-Seq": str(seq), "Cache-Control": "no-store"}
        response = json_response(content, headers)
        response.status_code = status
        return response

    def answer_list(
        self, data: Sequence[msgspec.Struct], as_of: int, next: str | None = None
    ) -> Response:
        """A list, or a part of it; `next` begins the part that follows."""
        return self.answer(Page(data, next is not None, next, as_of), as_of=as_of)


class Page(msgspec.Struct, Generic[T], frozen=True, tag_field="object", tag="list"):
    """A list, or a part of it: `next` is what to send as `after` for the part that follows."""

    data: Sequence[T]
    has_more: bool
    next: str | None
    as_of_seq: int


class Removed(msgspec.Struct, frozen=True):
    """What is no longer there; `object` says what it was."""

    object: str
    id: str
    deleted: Literal[True]


async def unhurried(records: Iterable[T]) -> AsyncGenerator[T, None]:
    """Any number of records; other requests have their turn every few hundred."""
    for number, record in enumerate(records, 1):
        yield record
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)


def missing(kind: str, id: str, but: str = "") -> NotFound:
    """There is no such record; `but` says what there is."""
    return NotFound(f"There is no {kind} '{shown(id)}'{but}.", code=f"{kind}_not_found")


def declared(kind: str, id: str) -> InvalidRequest:
    """The record is not one of the ledger's, so that nobody changes it here."""
    return InvalidRequest(
        f"The {kind} '{shown(id)}' is declared in the configuration: change it there.",
        code="configured",
    )


def already_there(kind: str, id: str) -> InvalidRequest:
    """Somebody has made it before."""
    return InvalidRequest(
        f"There is a {kind} '{shown(id)}' already.", code="already_exists", param="id"
    )
