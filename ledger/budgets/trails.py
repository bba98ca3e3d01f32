"""What one scope used lately, and how that of all scopes is written down while the fold goes on."""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

Counted = Literal["requests", "tokens"]

MINUTE = 60
HOUR = 3600
# One number for both: tokens below, requests above.
REQUEST = 1 << 40
_TOKENS = REQUEST - 1
_SECOND_NS = 1_000_000_000
# So many buckets a window touches at most, and a few more; so many are in a dictionary before it
# would grow.
_KEPT = 63
TOO_MANY = 84
# About a millisecond's work.
_AT_ONCE = 512
_NOTHING = msgspec.Raw()


class TrailState(msgspec.Struct, frozen=True, array_like=True):
    """What one scope used, by second and by minute since 1970; `mixed`: some of it may be in the
    overflow of its kind."""

    seconds: dict[int, int]
    minutes: dict[int, int]
    mixed: bool = False


RecentState = dict[str, dict[str, TrailState]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(RecentState).decode


def unpack(packed: bytes) -> RecentState:
    """What a packing was made of; empty where there is nothing. Raises msgspec.DecodeError,
    zlib.error."""
    return _decode(zlib.decompress(packed)) if packed else {}


class Trail:
    """One scope. What is in `seconds` moves to `minutes` when there is too much of it.

    `started` and `late` only ever grow, from when this process began to fold: its requests, and the
    tokens of calls that began before the reign and ended in it.
    """

    __slots__ = ("kept", "late", "minutes", "mixed", "seconds", "started", "turn")

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
        self.turn = 0
        self.kept = _NOTHING

    def keep(self, turn: int) -> None:
        """Write down what it is now, before it changes, for the packing of that turn."""
        self.turn = turn
        self.kept = self.written()

    def written(self) -> msgspec.Raw:
        """A TrailState of what it is now."""
        return msgspec.Raw(_encode(TrailState(self.seconds, self.minutes, self.mixed)))

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
        if len(minutes) > TOO_MANY:
            self.minutes = {minute: minutes[minute] for minute in sorted(minutes)[-_KEPT:]}

    @property
    def last_minute(self) -> int:
        """The one that something was added to last."""
        return next(reversed(self.seconds), 0) // MINUTE


class Packing:
    """Takes what all trails are at the moment it is made, a few with each step.

    Whoever changes a trail whose `turn` is another one calls `Trail.keep` before.
    """

    def __init__(self, scopes: Mapping[str, Mapping[str, Trail]], turn: int) -> None:
        self._turn = turn
        self._trails = [
            (scope, list(trails), list(trails.values())) for scope, trails in scopes.items()
        ]
        self._taken: dict[str, dict[str, msgspec.Raw]] = {}

    def steps(self) -> Iterator[None]:
        """Takes some before each step, and the last ones after the last."""
        taken = 0
        for scope, ids, trails in self._trails:
            of_scope = self._taken[scope] = {}
            for id, trail in zip(ids, trails, strict=True):
                if trail.turn != self._turn:
                    trail.keep(self._turn)
                of_scope[id], trail.kept = trail.kept, _NOTHING
                taken += 1
                if taken % _AT_ONCE == 0:
                    yield

    def packed(self) -> bytes:
        """All that was taken, for `unpack`; may be called in another thread."""
        return zlib.compress(_encode(self._taken), 1)


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
            amount = both & _TOKENS if what == "tokens" else both // REQUEST
            if end_ns > first_ns and amount:
                found[end_ns] = found.get(end_ns, 0) + amount
    return sorted(found.items())
