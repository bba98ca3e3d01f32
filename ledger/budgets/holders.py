"""Who may spend without asking: what each holder still has, and which requests it was answered."""

from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import Generic, TypeVar

from ledger.budgets.book_state import HolderState
from schemas.budget_events import Movement

# Longer than a governor takes to follow another and a holder goes on asking: what was answered
# while a governor died is asked again of its successor, and must not count twice.
KEPT_SECONDS = 60
_MOST = 16_384

_Value = TypeVar("_Value")


class Requests(Generic[_Value]):
    """What came of the requests of the last minute, the oldest first."""

    def __init__(self, known: Iterable[tuple[str, _Value, int]] = ()) -> None:
        self._known = {request: (value, second) for request, value, second in known}

    def __contains__(self, request: str) -> bool:
        return request in self._known

    def __iter__(self) -> Iterator[tuple[str, _Value, int]]:
        return ((request, value, second) for request, (value, second) in self._known.items())

    def get(self, request: str) -> _Value | None:
        known = self._known.get(request)
        return known[0] if known else None

    def remember(self, request: str, value: _Value, second: int) -> None:
        """Take the newest, of that second, and drop what is too old beside it."""
        self._known[request] = value, second
        while len(self._known) > _MOST or self._oldest() < second - KEPT_SECONDS:
            del self._known[next(iter(self._known))]

    def _oldest(self) -> int:
        _, second = next(iter(self._known.values()))
        return second


class Holder:
    """One ingress for as long as it is known under one id.

    `free` is nano-dollars by account, `seq` the last ledger sequence that told of it, `granted` and
    `returned` are its last requests of either kind.
    """

    __slots__ = ("free", "granted", "returned", "seq")

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.free: dict[str, int] = {}
        self.granted: Requests[dict[str, int]] = Requests()
        self.returned: Requests[None] = Requests()

    @classmethod
    def restore(cls, state: HolderState) -> "Holder":
        """Whom a snapshot tells of, but for what is free. A request whose time it does not tell, as
        an older one, is the first to go."""
        holder = cls(state.seq)
        granted_at, returned_at = _padded(state.granted_at), _padded(state.returned_at)
        holder.granted = Requests(
            (request, amounts, second)
            for (request, amounts), second in zip(state.granted, granted_at, strict=False)
        )
        holder.returned = Requests(
            (request, None, second)
            for request, second in zip(state.returned, returned_at, strict=False)
        )
        return holder

    def state(self, name: str) -> HolderState:
        """What `restore` goes on from, and what is free."""
        return HolderState(
            holder=name,
            seq=self.seq,
            free=dict(self.free),
            granted=tuple((request, amounts) for request, amounts, _ in self.granted),
            returned=tuple(request for request, _, _ in self.returned),
            granted_at=tuple(second for _, _, second in self.granted),
            returned_at=tuple(second for _, _, second in self.returned),
        )

    def recollect(self, movement: Movement, was_granted: bool, second: int) -> None:
        """A movement that counts already."""
        if was_granted:
            self.granted.remember(movement.request, movement.amounts, second)
        else:
            self.returned.remember(movement.request, None, second)

    def give(self, account: str, nano: int) -> None:
        self.free[account] = self.free.get(account, 0) + nano

    def take(self, account: str, nano: int) -> int:
        """Take up to `nano` from what it has; returns how much that was."""
        has = self.free.get(account, 0)
        if nano < has:
            self.free[account] = has - nano
            return nano
        self.free.pop(account, None)
        return has


def _padded(seconds: Iterable[int]) -> Iterator[int]:
    return chain(seconds, repeat(0))
