"""What a governor that has no checkpoint asks the analytics role, and the book it begins with.

The state of all accounts as of one sequence of the ledger, told in parts: a first question gives
the sequence, each further one a part of what was known there. JSON over request/reply.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

import msgspec

from ledger.budgets.alerts import Told
from ledger.budgets.book_state import AccountState, BookState, CallState, HolderState

Kind = Literal["head", "accounts", "epochs", "warned", "free", "calls"]
PARTS: tuple[Kind, ...] = ("accounts", "epochs", "warned", "free", "calls")


class OpeningParams(msgspec.Struct, frozen=True):
    """Which part, as of which sequence (of the head: none), and behind which key to begin. `kept`
    is for how many seconds an event may be stored a second time."""

    part: Kind
    kept: int
    through: int = 0
    after: str = ""


class Free(msgspec.Struct, frozen=True, array_like=True):
    """Nano-dollars of an account that a holder may spend without asking."""

    holder: str
    account: str
    nano: int


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part as of sequence `through`; it goes on behind `next` where that is set.

    The head has the sequence up to which the database lacks nothing (0: it has nothing), the digest
    of the event there, and from where on the ledger is to be read again for what is known for a
    while only and for the calls that are open. `warned` are in the order of their warnings;
    `cost_nano` is of those open calls whose client wants an alert.
    """

    through: int
    digest: str = ""
    read_from: int = 0
    accounts: tuple[AccountState, ...] = ()
    epochs: dict[str, int] = {}
    warned: tuple[str, ...] = ()
    free: tuple[Free, ...] = ()
    calls: tuple[CallState, ...] = ()
    cost_nano: dict[str, int] = {}
    next: str | None = None


class Opening(msgspec.Struct, frozen=True):
    """All parts together."""

    head: Part
    book: BookState
    alerts: Told


def opening_of(head: Part, parts: Iterable[Part]) -> Opening:
    """The book and the alerts as of the head's sequence."""
    settled: dict[str, int] = {}
    epochs: dict[str, int] = {}
    warned: list[str] = []
    calls: list[CallState] = []
    cost_nano: dict[str, int] = {}
    free: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for part in parts:
        settled.update((one.account, one.settled) for one in part.accounts)
        epochs.update(part.epochs)
        warned += part.warned
        calls += part.calls
        cost_nano.update(part.cost_nano)
        for one in part.free:
            free[one.holder][one.account] = one.nano
    for call in calls:
        for account in call.accounts:
            settled.setdefault(account, 0)
    book = BookState(
        seq=head.through,
        accounts=tuple(AccountState(account, nano) for account, nano in settled.items()),
        holders=tuple(HolderState(name, head.through, has) for name, has in free.items()),
        calls=tuple(calls),
        epochs=epochs,
        remembered_from=head.read_from,
    )
    return Opening(head, book, Told(warned=tuple(warned), spent=cost_nano))
