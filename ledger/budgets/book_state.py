"""A book as it is written down, so that a successor of the governor goes on from it."""

import msgspec


class AccountState(msgspec.Struct, frozen=True, array_like=True):
    """What one account has spent, and how many of its events had no known cost."""

    account: str
    settled: int
    unpriced: int = 0


class HolderState(msgspec.Struct, frozen=True, array_like=True):
    """What one holder has free, and what its last requests got."""

    holder: str
    seq: int
    free: dict[str, int] = {}
    granted: tuple[tuple[str, dict[str, int]], ...] = ()
    returned: tuple[str, ...] = ()


class CallState(msgspec.Struct, frozen=True, array_like=True):
    """What one open call holds in each of its accounts, and the events that added to it."""

    call_id: str
    accounts: tuple[str, ...]
    nano: int
    taken: tuple[str, ...] = ()


class BookState(msgspec.Struct, frozen=True):
    """A whole book as of ledger sequence `seq`.

    What an account has free and held is not in it: it follows from the holders and the calls.
    Nanoseconds since 1970 UTC, nano-dollars.
    """

    seq: int = 0
    accounts: tuple[AccountState, ...] = ()
    holders: tuple[HolderState, ...] = ()
    calls: tuple[CallState, ...] = ()
    early_ends: tuple[str, ...] = ()
    expired: tuple[str, ...] = ()
    epochs: dict[str, int] = {}
    forgotten_ns: int = 0
    forgotten_epochs: dict[str, int] = {}
