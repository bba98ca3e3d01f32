"""How much each scope used in the last hour, as a pure fold of the ledger: requests and tokens of
every key, user, project, team and model, in seconds for a minute and in minutes for an hour.
"""

import asyncio
from datetime import datetime

from ledger.budgets.trails import (
    HOUR,
    MINUTE,
    REQUEST,
    TOO_MANY,
    Packing,
    RecentState,
    Trail,
)
from schemas import subjects
from schemas.events import (
    LedgerEvent,
    RequestCancelled,
    RequestComplete,
    RequestFailed,
    RequestLost,
    RequestRejected,
    RequestStart,
)

_SCOPES = ("key", "user", "project", "team", "model")
_ENDS = frozenset((RequestComplete, RequestFailed, RequestCancelled, RequestRejected, RequestLost))
_MOST_OF_A_SCOPE = 10_000
# No id is empty.
_OVERFLOW = ""
_TIMES_KNOWN = 128
# Minutes; each kind of scopes has its turn once an hour.
_SWEEP_EVERY = 12
_MOST_TOKENS = 1_000_000_000


class Recent:
    """Feed it the events of the ledger in order.

    Tokens are known at a call's end and count from its start, as they do where they are leased.
    Ids may be invented by clients: past `most` scopes of a kind that were used within the hour, new
    ones share one trail, and each of them is taken to have used all that is in it.
    """

    def __init__(self, state: RecentState | None = None, most: int = _MOST_OF_A_SCOPE) -> None:
        self._most = most
        self._trails: dict[str, dict[str, Trail]] = {}
        for scope in _SCOPES:
            self._trails[scope] = {}
        self._rows = tuple(self._trails.values())
        self._known: dict[str, int] = {}
        self._swept = [0] * len(_SCOPES)
        self._reign = ""
        self._turns = self._turn = 0
        for scope, trails in self._trails.items():
            for id, one in (state or {}).get(scope, {}).items():
                trails[id] = Trail(one.seconds, one.minutes, one.mixed)

    def __len__(self) -> int:
        return sum(map(len, self._trails.values()))

    async def packed(self) -> bytes:
        """All that is folded now, for `trails.unpack`; the fold may go on meanwhile."""
        self._turns += 1
        self._turn = self._turns
        packing = Packing(self._trails, self._turn)
        try:
            for _ in packing.steps():
                await asyncio.sleep(0)
        finally:
            self._turn = 0
        return await asyncio.to_thread(packing.packed)

    def begin_reign(self, time: str) -> None:
        """From now on the tokens of calls that began up to `time` (RFC 3339) are `late`."""
        self._reign = time

    def fold(self, event: LedgerEvent, start: RequestStart | None) -> None:
        """Take an event, and the start of its call where that is known."""
        kind = type(event)
        if kind is RequestStart:
            if start is not None:
                return
            time, amount, is_late = event.time, REQUEST, False
        elif kind in _ENDS and (usage := event.usage) is not None:  # type: ignore[union-attr]
            time = event.time if start is None else start.time
            amount = min(max(usage.prompt + usage.completion, 0), _MOST_TOKENS)
            is_late = time <= self._reign
        else:
            return
        try:
            minute = self._known.get(time[:16]) or self._minute_of(time)
            second = minute * MINUTE + int(time[17:19])
        except (ValueError, OverflowError):
            return
        turn = self._turn
        ids = (event.key_id, event.user, event.project, event.team, event.model)
        for row, id in enumerate(ids):
            if not id:
                continue
            trail = self._rows[row].get(id) or self._trail(row, id, minute)
            if turn and trail.turn != turn:
                trail.keep(turn)
            seconds = trail.seconds
            before = seconds.get(second)
            if before is not None:
                seconds[second] = before + amount
            else:
                seconds[second] = amount
                if len(seconds) > TOO_MANY:
                    trail.roll()
            if kind is RequestStart:
                trail.started += 1
            elif is_late:
                trail.late += amount

    def trails(self, scope: str, token: str) -> tuple[Trail, ...]:
        """The trails that have all that a scope used, and perhaps more; its id as subject token."""
        trails = self._trails.get(scope, {})
        own = trails.get((id_of(token) or token) if "=" in token else token)
        overflow = trails.get(_OVERFLOW)
        found = (own, overflow) if own is None or own.mixed else (own,)
        return tuple(trail for trail in found if trail is not None)

    def _minute_of(self, time: str) -> int:
        """Minutes since 1970; some of them are for sweeping, one kind of scopes at a time. Raises
        ValueError, OverflowError."""
        minute = int(datetime.fromisoformat(time).timestamp()) // MINUTE
        if len(self._known) >= _TIMES_KNOWN:
            self._known.clear()
        self._known[time[:16]] = minute
        turn, is_within = divmod(minute, _SWEEP_EVERY)
        if not is_within:
            self._sweep(turn % len(_SCOPES), minute)
        return minute

    def _trail(self, row: int, id: str, minute: int) -> Trail:
        trails, token = self._rows[row], subjects.token(id)
        if subjects.text_of_token(token) is None:
            id = token
            if id in trails:
                return trails[id]
        if len(trails) >= self._most:
            self._sweep(row, minute)
        overflow = trails.get(_OVERFLOW)
        if len(trails) >= self._most:
            return overflow or trails.setdefault(_OVERFLOW, Trail())
        return trails.setdefault(id, Trail(mixed=overflow is not None))

    def _sweep(self, row: int, minute: int) -> None:
        """Forget what was not used within the hour; once a minute at most."""
        if minute <= self._swept[row]:
            return
        self._swept[row] = minute
        trails, first = self._rows[row], minute - HOUR // MINUTE
        for id in [id for id, one in trails.items() if one.last_minute < first]:
            del trails[id]


def id_of(token: str) -> str | None:
    """The id behind a subject token; None for one that was hashed, and for what is no token."""
    try:
        return subjects.text_of_token(token)
    except ValueError:
        return None
