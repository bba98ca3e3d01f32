"""When calls are made: the closed loop and the open one."""

import time
from collections import deque
from typing import Protocol


class Source(Protocol):
    """Says when calls are to be made."""

    def due(self) -> int | None:
        """The intended start (monotonic ns) of a call to make now; None if there is none."""
        ...

    def spent(self) -> bool:
        """Whether no call will ever be due again."""
        ...


class Closed:
    """A call is due whenever a connection is free, until a moment or a number of calls."""

    def __init__(self, calls: int, until: int) -> None:
        self._left = calls
        self._until = until

    def due(self) -> int | None:
        now = time.monotonic_ns()
        if self._left <= 0 or now >= self._until:
            return None
        self._left -= 1
        return now

    def spent(self) -> bool:
        return self._left <= 0 or time.monotonic_ns() >= self._until


class Timetable:
    """Calls are due at fixed times; those that no connection was free for wait, their clock on."""

    def __init__(self, calls: int) -> None:
        self._to_come = calls
        self._waiting: deque[int] = deque()

    def arrive(self, at: int) -> None:
        """The time of one more call has come."""
        self._to_come -= 1
        self._waiting.append(at)

    def due(self) -> int | None:
        return self._waiting.popleft() if self._waiting else None

    def spent(self) -> bool:
        return self._to_come <= 0 and not self._waiting
