"""What the open calls hold, by call: which starts, further attempts and ends take and give back."""

from collections.abc import Iterator

_EARLY_ENDS = 4096


class Hold:
    """Nano-dollars that one open call holds in each of its accounts; `taken` names the events by
    which further attempts added to it."""

    __slots__ = ("accounts", "nano", "taken")

    def __init__(self, accounts: tuple[str, ...], nano: int, taken: tuple[str, ...] = ()) -> None:
        self.accounts = accounts
        self.nano = nano
        self.taken = taken


class Holds:
    """As `ledger.open_calls` has it: an end that comes before its start is remembered for a while,
    and the start that follows opens nothing."""

    def __init__(self) -> None:
        self._open: dict[str, Hold] = {}
        self._early: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def get(self, call_id: str) -> Hold | None:
        return self._open.get(call_id)

    def items(self) -> Iterator[tuple[str, Hold]]:
        return iter(self._open.items())

    def early(self) -> tuple[str, ...]:
        """The calls that ended before they started."""
        return tuple(self._early)

    def start(self, call_id: str, hold: Hold) -> bool:
        """Open a call; False for one that has ended before."""
        if call_id in self._early:
            del self._early[call_id]
            return False
        self._open[call_id] = hold
        return True

    def end(self, call_id: str) -> Hold | None:
        """Close a call; None for one that is not open."""
        hold = self._open.pop(call_id, None)
        if hold is None:
            self.remember(call_id)
        return hold

    def remember(self, call_id: str) -> None:
        """An end without a start."""
        self._early[call_id] = None
        if len(self._early) > _EARLY_ENDS:
            del self._early[next(iter(self._early))]
