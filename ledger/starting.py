"""Where a governor begins: at its own checkpoint; without one at what the analytics role knows;
else at the beginning of the ledger, as long as that is there."""

import asyncio
import logging

import msgspec

from ledger import checkpoint
from ledger.budgets.opening import PARTS, Kind, Opening, OpeningParams, Part, opening_of
from ledger.checkpoint import Checkpoint, digest_of, pack
from ledger.connection import (
    BusRefused,
    Connection,
    Disconnected,
    NoResponders,
    RequestTimeout,
)
from ledger.reader import Unreadable, read_at
from schemas import subjects
from schemas.errors import ErrorInfo

log = logging.getLogger("nexus.governor")

# So many events are folded in about a second, and with them come counters that never began anew.
WORTH_ASKING = 20_000
_PATIENCE = 5.0
_RETRY = 0.25
_SAY_EVERY = 10.0
_PART_SECONDS = 40.0
_INFO_SECONDS = 5.0


class _Answer(msgspec.Struct):
    ok: msgspec.Raw = msgspec.Raw()
    error: ErrorInfo | None = None


class _State(msgspec.Struct):
    first_seq: int
    last_seq: int


class _Info(msgspec.Struct):
    state: _State


class _Untold(Exception):
    """Analytics does not say what is needed; the message says why."""


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_info = msgspec.json.Decoder(_Info).decode
_decode_part = msgspec.json.Decoder(Part).decode


class Start:
    """Looks for the place to begin at, until it is found or `ending` is set.

    `kept` is for how many seconds an event may be stored a second time. A whole ledger of fewer
    than `worth` events is not worth a question.
    """

    def __init__(
        self,
        connection: Connection,
        kept: int,
        ending: asyncio.Event,
        worth: int = WORTH_ASKING,
    ) -> None:
        self._connection = connection
        self._kept = kept
        self._ending = ending
        self._worth = worth

    async def find(self) -> Checkpoint | None:
        """None when `ending` was set before. Raises reader.Unreadable."""
        own = await checkpoint.load(self._connection)
        if own.seq:
            return own
        first, last = await self._bounds()
        if first > 1:
            return await self._insist(own, first)
        if last < self._worth:
            return own
        try:
            head = await self._patient_head()
            if head.read_from > self._worth:
                return await self._begin(own, head)
        except _Untold as reason:
            log.warning(
                "folding the ledger from its beginning: analytics does not tell what was spent",
                extra={"reason": str(reason)},
            )
        return own

    async def _insist(self, own: Checkpoint, first: int) -> Checkpoint | None:
        """What was spent before the first event only analytics knows, and a governor that leads: to
        begin without it would be to let everybody spend it again."""
        loop = asyncio.get_running_loop()
        say_at = 0.0
        while not self._ending.is_set():
            try:
                head = await self._head(first)
                if head.through >= first - 1:
                    return await self._begin(own, head)
                raise _Untold(f"it lacks what follows sequence {head.through}")
            except _Untold as reason:
                if loop.time() >= say_at:
                    say_at = loop.time() + _SAY_EVERY
                    log.error(
                        "no budget is governed: the ledger begins at sequence %d, and analytics"
                        " does not tell what was spent before; start `nexus analytics` with the"
                        " database of this gateway, or restore that database",
                        first,
                        extra={"reason": str(reason)},
                    )
            await self._rest()
            own = await checkpoint.load(self._connection)
            if own.seq:
                return own
        return None

    async def _patient_head(self) -> Part:
        """As `_head`, of a role that may just be starting. Raises _Untold."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        reason = _Untold("it does not answer")
        while loop.time() < until and not self._ending.is_set():
            try:
                async with asyncio.timeout_at(until):
                    return await self._head(1)
            except TimeoutError:
                break
            except _Untold as error:
                reason = error
            await self._rest()
        raise reason

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(_RETRY):
                await self._ending.wait()
        except TimeoutError:
            return

    async def _begin(self, own: Checkpoint, head: Part) -> Checkpoint:
        """What was counted of refusals goes on; all other numbers begin anew. Raises _Untold."""
        told: list[Part] = []
        for part in PARTS:
            after: str | None = ""
            while after is not None:
                told.append(await self._ask(part, head.through, after))
                after = told[-1].next
        opening = opening_of(head, told)
        log.warning(
            "governor begins with what analytics knows; its counters begin anew",
            extra={"seq": head.through, "read_from": head.read_from},
        )
        return _checkpoint(own, opening)

    async def _head(self, first: int) -> Part:
        """A head that is of this ledger, which begins at sequence `first`. Raises _Untold."""
        head = await self._ask("head", 0, "")
        if head.through == 0:
            raise _Untold("it has no events from the ledger's beginning on")
        try:
            kept = await read_at(self._connection, subjects.LEDGER, head.through)
        except Unreadable as error:
            raise _Untold(f"it knows the ledger up to {head.through}, but {error}") from error
        if head.through >= first and (kept is None or digest_of(kept) != head.digest):
            raise _Untold("its events are those of another ledger")
        return head

    async def _ask(self, part: Kind, through: int, after: str) -> Part:
        params = OpeningParams(part, self._kept, through, after)
        try:
            reply = await self._connection.request(
                subjects.OPENING,
                msgspec.json.encode({"params": params}),
                timeout=_PART_SECONDS,
                optional=True,
            )
            answer = _decode_answer(reply.data)
            if answer.error is not None:
                raise _Untold(answer.error.message)
            told = _decode_part(answer.ok)
        except BusRefused as error:
            raise _Untold(f"this governor may not ask it ({error})") from error
        except NoResponders as error:
            raise _Untold("it is not running") from error
        except (RequestTimeout, Disconnected) as error:
            raise _Untold("it does not answer") from error
        except msgspec.DecodeError as error:
            raise _Untold(f"its answer cannot be read: {error}") from error
        if through not in (0, told.through):
            raise _Untold(f"it went back behind sequence {through}")
        return told

    async def _bounds(self) -> tuple[int, int]:
        """The first and the last sequence of the ledger; of one that lost all its events too, the
        first is where it goes on."""
        try:
            reply = await self._connection.request(
                subjects.api("STREAM.INFO", subjects.LEDGER), timeout=_INFO_SECONDS
            )
            state = _decode_info(reply.data).state
        except (NoResponders, RequestTimeout, Disconnected, msgspec.DecodeError) as error:
            raise Unreadable(f"{subjects.LEDGER} does not say what it holds") from error
        return state.first_seq, state.last_seq


def _checkpoint(own: Checkpoint, opening: Opening) -> Checkpoint:
    return msgspec.structs.replace(
        own,
        fold_from=opening.head.read_from,
        seq=opening.head.through,
        digest=opening.head.digest,
        alerts=opening.alerts,
        book=pack(opening.book),
    )
