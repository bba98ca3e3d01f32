"""The three kinds of rates: so many in any window, so many a second with a burst on top, so many at
once.

What was granted may be used until the lease ends, by a clock that differs from ours by up to
`CLOCKS_DIFFER_NS`. Each kind counts a lease as used at the worst moment of that time, so that the
users' own time stamps show no window with more than its limit (and burst).
"""

from array import array
from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Protocol

from ledger.budgets.legacy import Legacy, WindowLegacy
from ledger.budgets.messages import RateWant

SECOND_NS = 1_000_000_000
CLOCKS_DIFFER_NS = 5_000_000
FOR_EVER_NS = 2**62

_SHORTEST_LEASE_NS = 25_000_000
_LONGEST_LEASE_NS = 5 * SECOND_NS
# Leases of a rate with a burst: how long at most, and which part of the burst may be out in them.
_LONGEST_BURST_LEASE_NS = 100_000_000
_BURST_OUT = 2
_SMALLEST_PARTED = 10
# What is granted within so small a part of a window is counted as if granted at its end.
_GRAINS = 100
# A holder that would like more than it needs gets no more than this part of what is left.
_SHARE_OF_WINDOW = 4
_SHARE_OF_BURST = 2
_SLOT_POLL = 0.01
# The holder of what governors before this one have granted.
_BEFORE = ""


class Rate(Protocol):
    """What is left of one limit. Times are nanoseconds since 1970, and never go back."""

    def adopt(self, want: RateWant, now_ns: int) -> bool:
        """Take over what the limit is now; False: it has become one of another kind."""
        ...

    def left(self, now_ns: int) -> int:
        """How many may be taken now; below 0 while more was used than there was."""
        ...

    def take(self, holder: str, need: int, like: int, now_ns: int) -> tuple[int, int]:
        """Grant `need`, whatever is left, and a part of what is left for `like`. How much that is,
        and until when it may be used."""
        ...

    def give_back(self, holder: str, amount: int, now_ns: int) -> None:
        """Undo a part of what the holder took last; a negative amount takes more."""
        ...

    def forget(self, holder: str, now_ns: int) -> None: ...

    def wait(self, need: int, now_ns: int) -> float:
        """Seconds until `need` are there, if nobody takes more."""
        ...

    def resets_ns(self, now_ns: int) -> int:
        """When everything is there again, if nobody takes more."""
        ...

    def is_idle(self, now_ns: int) -> bool: ...


def rate_for(want: RateWant, legacy: Legacy | None, now_ns: int) -> Rate:
    """A fresh rate of which nothing was taken, but for what is known from before."""
    if want.seconds <= 0:
        return Slots(want, legacy.of_slots(want) if legacy is not None else _none)
    if want.burst:
        return Bucket(want)
    return Window(want, legacy.of_window(want, now_ns) if legacy is not None else None)


class Window:
    """At most `limit` in any `seconds`: a log of what was granted and not given back."""

    def __init__(self, want: RateWant, legacy: WindowLegacy | None = None) -> None:
        self._limit = int(want.limit)
        self._span_ns = int(want.seconds * SECOND_NS)
        self._total = 0
        self._logs: dict[str, _Log] = {}
        self._legacy = legacy
        for used_ns, amount in legacy.used if legacy is not None else ():
            self._add(_BEFORE, used_ns + self._span_ns + CLOCKS_DIFFER_NS, amount)

    def adopt(self, want: RateWant, now_ns: int) -> bool:
        self._limit = int(want.limit)
        return not want.burst and int(want.seconds * SECOND_NS) == self._span_ns

    def left(self, now_ns: int) -> int:
        self._expire(now_ns)
        if self._legacy is not None:
            self._inherit(self._legacy, now_ns)
        return self._limit - self._total

    def take(self, holder: str, need: int, like: int, now_ns: int) -> tuple[int, int]:
        amount = need + _shared(self.left(now_ns) - need, like, _SHARE_OF_WINDOW)
        until_ns = now_ns + self._lease_ns
        counted_until_ns = until_ns + self._span_ns + CLOCKS_DIFFER_NS
        grain_ns = self._span_ns // _GRAINS if self._limit > _GRAINS else 1
        self._add(holder, -(-counted_until_ns // grain_ns) * grain_ns, amount)
        return amount, until_ns

    def give_back(self, holder: str, amount: int, now_ns: int) -> None:
        self._expire(now_ns)
        if amount < 0:
            self.take(holder, -amount, 0, now_ns)
        elif holder in self._logs:
            self._total -= self._logs[holder].remove_newest(amount)

    def forget(self, holder: str, now_ns: int) -> None:
        """What was granted may have been used: it counts until it is too old."""

    def wait(self, need: int, now_ns: int) -> float:
        """May be longer than the window, by a lease (a fortieth of it, 5 s at most) and a grain:
        what was granted a moment ago may be used until its lease ends, and counts for a whole
        window from then on. Whoever came back after one window would be refused again."""
        self._expire(now_ns)
        missing = need - (self._limit - self._total)
        free_ns = now_ns
        entries = [entry for log in self._logs.values() for entry in log.entries()]
        for until_ns, amount in sorted(entries):
            if missing <= 0:
                break
            missing -= amount
            free_ns = until_ns
        return (free_ns - now_ns) / SECOND_NS

    def resets_ns(self, now_ns: int) -> int:
        self._expire(now_ns)
        return max((log.last_ns for log in self._logs.values()), default=now_ns)

    def is_idle(self, now_ns: int) -> bool:
        self._expire(now_ns)
        return not self._logs

    @property
    def _lease_ns(self) -> int:
        return min(max(self._span_ns // 40, _SHORTEST_LEASE_NS), _LONGEST_LEASE_NS)

    def _add(self, holder: str, until_ns: int, amount: int) -> None:
        log = self._logs.get(holder)
        if log is None:
            log = self._logs[holder] = _Log()
        log.add(until_ns, amount)
        self._total += amount

    def _inherit(self, legacy: WindowLegacy, now_ns: int) -> None:
        before = self._logs.get(_BEFORE)
        more = legacy.more(self._total - (before.total if before is not None else 0), now_ns)
        if more:
            self._add(_BEFORE, now_ns + self._span_ns + CLOCKS_DIFFER_NS, more)

    def _expire(self, now_ns: int) -> None:
        for holder, log in list(self._logs.items()):
            self._total -= log.expire(now_ns)
            if not log:
                del self._logs[holder]


class _Log:
    """What one holder was granted: until when it counts, and how much, the oldest first."""

    __slots__ = ("_amounts", "_until")

    def __init__(self) -> None:
        self._until = array("q")
        self._amounts = array("q")

    def __len__(self) -> int:
        return len(self._until)

    def entries(self) -> list[tuple[int, int]]:
        return list(zip(self._until, self._amounts, strict=True))

    @property
    def last_ns(self) -> int:
        return self._until[-1]

    @property
    def total(self) -> int:
        return sum(self._amounts)

    def add(self, until_ns: int, amount: int) -> None:
        if self._until and self._until[-1] >= until_ns:
            self._amounts[-1] += amount
        else:
            self._until.append(until_ns)
            self._amounts.append(amount)

    def remove_newest(self, amount: int) -> int:
        """How much of `amount` was there."""
        missing = amount
        while missing > 0 and self._until:
            part = min(missing, self._amounts[-1])
            self._amounts[-1] -= part
            missing -= part
            if not self._amounts[-1]:
                self._amounts.pop()
                self._until.pop()
        return amount - missing

    def expire(self, now_ns: int) -> int:
        """Drop what counts no longer; how much that was."""
        over = 0
        while over < len(self._until) and self._until[over] <= now_ns:
            over += 1
        if not over:
            return 0
        dropped = sum(self._amounts[:over])
        del self._until[:over], self._amounts[:over]
        return dropped


class Bucket:
    """`limit` per `seconds`, evenly, and up to `burst` at once: GCRA in whole nanoseconds.

    What is out in leases and what is left are together never more than the burst: otherwise
    leases taken before a second could be used in it beside all that the second itself gives.
    A burst too small to be parted like this is granted one by one, each as if used at once.
    """

    def __init__(self, want: RateWant) -> None:
        self._each_ns = 1
        self._burst = 1
        self._full_ns = 0
        self._out = 0
        self._leases: deque[tuple[int, int]] = deque()
        self.adopt(want, 0)

    def adopt(self, want: RateWant, now_ns: int) -> bool:
        each_ns = max(1, ceil(want.seconds * SECOND_NS / want.limit))
        if each_ns != self._each_ns:
            taken = max(0, self._full_ns - now_ns) // self._each_ns
            self._full_ns, self._each_ns = now_ns + taken * each_ns, each_ns
        self._burst = max(1, want.burst - CLOCKS_DIFFER_NS // self._each_ns)
        return want.burst > 0

    def left(self, now_ns: int) -> int:
        """`_full_ns` is when everything is there again: the theoretical arrival time."""
        self._advance(now_ns)
        return (now_ns + self._burst * self._each_ns - self._full_ns) // self._each_ns

    def take(self, holder: str, need: int, like: int, now_ns: int) -> tuple[int, int]:
        left = self.left(now_ns)
        lease_ns = self._burst * self._each_ns // _BURST_OUT
        if lease_ns < _SHORTEST_LEASE_NS or self._burst < _SMALLEST_PARTED:
            self._full_ns += need * self._each_ns
            return need, now_ns + _SHORTEST_LEASE_NS
        amount = need + _shared(left - need, like, _SHARE_OF_BURST)
        until_ns = now_ns + min(lease_ns, _LONGEST_BURST_LEASE_NS)
        self._full_ns += amount * self._each_ns
        self._out += amount
        self._leases.append((until_ns, amount))
        return amount, until_ns

    def give_back(self, holder: str, amount: int, now_ns: int) -> None:
        """What was granted is over in a moment: only what was used beyond it is of interest."""
        self._advance(now_ns)
        if amount < 0:
            self._full_ns -= amount * self._each_ns

    def forget(self, holder: str, now_ns: int) -> None:
        """Its leases end of themselves."""

    def wait(self, need: int, now_ns: int) -> float:
        self._advance(now_ns)
        missing_ns = self._full_ns - now_ns - (self._burst - need) * self._each_ns
        return max(0, missing_ns) / SECOND_NS

    def resets_ns(self, now_ns: int) -> int:
        self._advance(now_ns)
        return self._full_ns

    def is_idle(self, now_ns: int) -> bool:
        self._advance(now_ns)
        return self._full_ns <= now_ns

    def _advance(self, now_ns: int) -> None:
        """Leases that ended make room for what comes from then on, in the order they ended."""
        while self._leases and self._leases[0][0] <= now_ns:
            ended_ns, amount = self._leases.popleft()
            self._full_ns = max(self._full_ns, ended_ns + self._out * self._each_ns)
            self._out -= amount
        self._full_ns = max(self._full_ns, now_ns + self._out * self._each_ns)


class Slots:
    """At most `limit` at once: they belong to their holder until it gives them back or is gone.

    `before` counts those that somebody else granted and that are still in use.
    """

    def __init__(self, want: RateWant, before: Callable[[], int]) -> None:
        self._limit = int(want.limit)
        self._held: dict[str, int] = {}
        self._before = before

    def adopt(self, want: RateWant, now_ns: int) -> bool:
        self._limit = int(want.limit)
        return want.seconds <= 0

    def left(self, now_ns: int) -> int:
        return self._limit - sum(self._held.values()) - self._before()

    def take(self, holder: str, need: int, like: int, now_ns: int) -> tuple[int, int]:
        amount = need + _shared(self.left(now_ns) - need, like, 1)
        self._held[holder] = self._held.get(holder, 0) + amount
        return amount, FOR_EVER_NS

    def give_back(self, holder: str, amount: int, now_ns: int) -> None:
        held = self._held.pop(holder, 0) - amount
        if held > 0:
            self._held[holder] = held

    def forget(self, holder: str, now_ns: int) -> None:
        self._held.pop(holder, None)

    def wait(self, need: int, now_ns: int) -> float:
        """Nobody knows when a call ends."""
        return _SLOT_POLL

    def resets_ns(self, now_ns: int) -> int:
        return now_ns

    def is_idle(self, now_ns: int) -> bool:
        return not self._held and not self._before()


def _none() -> int:
    return 0


def _shared(spare: int, like: int, share: int) -> int:
    return max(0, min(like, spare // share))
