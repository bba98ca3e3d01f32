"""How much each scope used in the last hour, as a pure fold of the ledger: requests and tokens of
every key, user, project, team and model, in seconds for a minute and in minutes for an hour.
"""

import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec

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

Counted = Literal["requests", "tokens"]

MINUTE = 60
HOUR = 3600

_SCOPES = ("key", "user", "project", "team", "model")
_ENDS = frozenset((RequestComplete, RequestFailed, RequestCancelled, RequestRejected, RequestLost))
_MOST_OF_A_SCOPE = 10_000
# No id is empty.
_OVERFLOW = ""
_SECOND_NS = 1_000_000_000
_TIMES_KNOWN = 128
# Minutes; each kind of scopes has its turn once an hour.
_SWEEP_EVERY = 12
# So many buckets a window touches at most, and a few more; so many are in a dictionary before it
# would grow.
_KEPT = 63
_TOO_MANY = 84
# One number for both: tokens below, requests above.
_REQUEST = 1 << 40
_TOKENS = _REQUEST - 1
_MOST_TOKENS = 1_000_000_000


class TrailState(msgspec.Struct, frozen=True, array_like=True):
    """What one scope used, by second and by minute since 1970; `mixed`: some of it may be in the
    overflow of its kind."""

    seconds: dict[int, int]
    minutes: dict[int, int]
    mixed: bool = False


RecentState = dict[str, dict[str, TrailState]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(RecentState).decode


def pack(state: RecentState) -> bytes:
    """A state as bytes."""
    return zlib.compress(_encode(state), 1)


def unpack(packed: bytes) -> RecentState:
    """The other way; empty where there is nothing. Raises msgspec.DecodeError, zlib.error."""
    return _decode(zlib.decompress(packed)) if packed else {}


class Trail:
    """One scope. What is in `seconds` moves to `minutes` when there is too much of it.

    `started` and `late` only ever grow, from when this process began to fold: its requests, and the
    tokens of calls that began before the reign and ended in it.
    """

    __slots__ = ("late", "minutes", "mixed", "seconds", "started")

    def __init__(
        self,
        seconds: dict[int, int] | None = None,
        minutes: dict[int, int] | None = None,
        mixed: bool = False,
    ) -> None:
        self.seconds = {} if seconds is None else seconds
        self.minutes = {} if minutes is None else minutes
        self.mixed = mixed
        self.started = 0
        self.late = 0

    def roll(self) -> None:
        """Seconds over a minute old become part of their minute, and minutes over an hour old are
        forgotten."""
        seconds, minutes = self.seconds, self.minutes
        first = max(seconds) - _KEPT
        self.seconds = {}
        for second, amount in seconds.items():
            if second > first:
                self.seconds[second] = amount
            else:
                minute = second // MINUTE
                minutes[minute] = minutes.get(minute, 0) + amount
        if len(minutes) > _TOO_MANY:
            self.minutes = {minute: minutes[minute] for minute in sorted(minutes)[-_KEPT:]}

    @property
    def last_minute(self) -> int:
        """The one that something was added to last."""
        return next(reversed(self.seconds), 0) // MINUTE


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
        for scope, trails in self._trails.items():
            for id, one in (state or {}).get(scope, {}).items():
                trails[id] = Trail(one.seconds, one.minutes, one.mixed)

    def __len__(self) -> int:
        return sum(map(len, self._trails.values()))

    def snapshot(self) -> RecentState:
        """All that was folded; it shares its numbers with the fold, so pack it at once."""
        return {
            scope: {
                id: TrailState(one.seconds, one.minutes, one.mixed) for id, one in trails.items()
            }
            for scope, trails in self._trails.items()
            if trails
        }

    def begin_reign(self, time: str) -> None:
        """From now on the tokens of calls that began up to `time` (RFC 3339) are `late`."""
        self._reign = time

    def fold(self, event: LedgerEvent, start: RequestStart | None) -> None:
        """Take an event, and the start of its call where that is known."""
        kind = type(event)
        if kind is RequestStart:
            if start is not None:
                return
            time, amount, is_late = event.time, _REQUEST, False
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
        ids = (event.key_id, event.user, event.project, event.team, event.model)
        for row, id in enumerate(ids):
            if not id:
                continue
            trail = self._rows[row].get(id) or self._trail(row, id, minute)
            seconds = trail.seconds
            before = seconds.get(second)
            if before is not None:
                seconds[second] = before + amount
            else:
                seconds[second] = amount
                if len(seconds) > _TOO_MANY:
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


def used(
    trails: Iterable[Trail], what: Counted, seconds: int, now_ns: int
) -> list[tuple[int, int]]:
    """What was used within so many seconds, at most an hour: nanoseconds since 1970 at which each
    part of it was surely over, and how much it was; the oldest first."""
    first_ns, now = now_ns - seconds * _SECOND_NS, now_ns // _SECOND_NS
    found: dict[int, int] = {}
    for trail in trails:
        ends = [(second + 1, both) for second, both in trail.seconds.items()]
        if seconds > MINUTE:
            ends += [((minute + 1) * MINUTE, both) for minute, both in trail.minutes.items()]
        for end, both in ends:
            # A clock may be ahead of ours.
            end_ns = min(end, now + 1) * _SECOND_NS
            amount = both & _TOKENS if what == "tokens" else both // _REQUEST
            if end_ns > first_ns and amount:
                found[end_ns] = found.get(end_ns, 0) + amount
    return sorted(found.items())
