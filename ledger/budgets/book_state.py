"""A book as it is written down, so that a successor of the governor goes on from it."""

import msgspec


class AccountState(msgspec.Struct, frozen=True, array_like=True):
    """What one account has spent."""

    account: str
    settled: int


class HolderState(msgspec.Struct, frozen=True, array_like=True):
    """What one holder has free, what its last requests got, and in which second of the ledger's
    time each of them was answered."""

    holder: str
    seq: int
    free: dict[str, int] = {}
    granted: tuple[tuple[str, dict[str, int]], ...] = ()
    returned: tuple[str, ...] = ()
    granted_at: tuple[int, ...] = ()
    returned_at: tuple[int, ...] = ()


class CallState(msgspec.Struct, frozen=True, array_like=True):
    """What one open call holds in each of its accounts, and the events that added to it."""

    call_id: str
    accounts: tuple[str, ...]
    nano: int
    taken: tuple[str, ...] = ()


class BookState(msgspec.Struct, frozen=True):
    """A whole book as of ledger sequence `seq`.

    What an account has free and held is not in it: it follows from the holders and the calls.
    Where `remembered_from` is set, all that is kept for a while only is missing: it is known again
    once the events from there up to `seq` are read. Nanoseconds since 1970 UTC, nano-dollars.
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
    counted: dict[int, bytes] = {}
    remembered_from: int | None = None
