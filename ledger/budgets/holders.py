"""Who may spend without asking: what each holder still has, and which requests it was answered."""

from typing import TypeVar

# Those of some seconds, also of a holder that asks without pause: what was answered while a
# governor died is asked again of its successor, and must not count twice.
_REQUESTS = 4096

_Value = TypeVar("_Value")


class Holder:
    """One ingress for as long as it is known under one id.

    `free` is nano-dollars by account, `seq` the last ledger sequence that told of it, `granted` and
    `returned` are the last requests of either kind, the oldest first.
    """

    __slots__ = ("free", "granted", "returned", "seq")

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.free: dict[str, int] = {}
        self.granted: dict[str, dict[str, int]] = {}
        self.returned: dict[str, None] = {}

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

    def remember_grant(self, request: str, amounts: dict[str, int]) -> None:
        _remember(self.granted, request, amounts)

    def remember_return(self, request: str) -> None:
        _remember(self.returned, request, None)


def _remember(requests: dict[str, _Value], request: str, value: _Value) -> None:
    requests[request] = value
    if len(requests) > _REQUESTS:
        del requests[next(iter(requests))]
