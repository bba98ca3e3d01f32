"""How many calls of a pool this worker runs at once: fewer after its provider said 429, then more.

Additive increase, multiplicative decrease: a 429 halves what was running, and every second with an
answer gives one back. Each worker does so by itself, because each can be asked for no more than it
runs; the queue's own limit (`max_ack_pending`) stays what the configuration says. It has one value
for all workers and no owner among them: two that changed it would undo each other's change.
"""

import logging
from collections.abc import Callable

from schemas.ids import Clock

log = logging.getLogger("nexus.worker")

_WINDOW = 1.0


class Slots:
    """The slots of one pool, `most` as configured; `allowed` of them may be used now.

    `running` says how many are used, and `on_change` hears of every change.
    """

    def __init__(self, pool: str, most: int, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._changed_at = -_WINDOW
        self.most = most
        self.allowed = most
        self.running: Callable[[], int] = lambda: self.allowed
        self.on_change: Callable[[], None] = lambda: None

    def refused(self) -> None:
        """A provider of the pool limits our rate. What came in the same second counts once: those
        calls were under way together."""
        now = self._clock.monotonic()
        if self.allowed < self.most and now - self._changed_at < _WINDOW:
            return
        self._set(max(1, min(self.allowed, self.running()) // 2), now)

    def answered(self) -> None:
        """A provider of the pool has answered."""
        if self.allowed == self.most:
            return
        now = self._clock.monotonic()
        if now - self._changed_at >= _WINDOW:
            self._set(self.allowed + 1, now)

    def _set(self, allowed: int, now: float) -> None:
        shrinks = allowed < self.allowed
        self._changed_at = now
        self.allowed = allowed
        if shrinks or allowed == self.most:
            log.info("pool.slots", extra={"pool": self._pool, "slots": allowed, "of": self.most})
        self.on_change()
