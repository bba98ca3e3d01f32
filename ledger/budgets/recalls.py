"""What all ingresses hear: that accounts are short or were reset, and that a reign began."""

from collections.abc import Iterable

from ledger.budgets.messages import Recall, encode
from ledger.connection import Connection
from schemas import subjects
from schemas.ids import Clock

_FORGET_ABOVE = 1024


class Recalls:
    """Each account is recalled once per `pause` seconds, however many calls it is short for."""

    def __init__(self, connection: Connection, clock: Clock, pause: float) -> None:
        self._connection = connection
        self._clock = clock
        self._pause = pause
        self._last: dict[str, float] = {}

    def recall(self, accounts: Iterable[str]) -> None:
        """Idle leases of these accounts are wanted back."""
        now = self._clock.monotonic()
        due = tuple(one for one in accounts if now - self._last.get(one, -1e9) >= self._pause)
        if len(self._last) > _FORGET_ABOVE:
            self._last = {one: at for one, at in self._last.items() if now - at < self._pause}
        self._last.update(dict.fromkeys(due, now))
        if due:
            self._send(Recall(due))

    def drop(self, account: str) -> None:
        """The leases of an account are good for nothing any more."""
        self._send(Recall((account,), drop=True))

    def begin_reign(self, reign: int) -> None:
        """Leases of rates that another governor granted are good for nothing any more."""
        self._send(Recall(reign=reign))

    def _send(self, recall: Recall) -> None:
        if self._connection.connected:
            self._connection.publish(subjects.GOVERNOR_RECALL, encode(recall))
