"""What the events of a ledger say about calls: their ends, their cost."""

from collections.abc import Sequence
from typing import TypeVar

from schemas.events import LedgerEvent, Outcome, RequestStart, Terminal

_T = TypeVar("_T")


def open_calls(events: Sequence[LedgerEvent]) -> list[tuple[str, str]]:
    """Ids and apps of the calls that have a start and no end."""
    ended = {event.call_id for event in events if isinstance(event, Terminal)}
    return [
        (event.call_id, event.app)
        for event in events
        if isinstance(event, RequestStart) and event.call_id not in ended
    ]


def ends(events: Sequence[LedgerEvent], call_id: str = "") -> list[Terminal]:
    """The terminal events, of one call or of all."""
    return [
        event for event in events if isinstance(event, Terminal) and call_id in ("", event.call_id)
    ]


def one_end(events: Sequence[LedgerEvent], call_id: str) -> Terminal:
    """The end of a call, which has exactly one."""
    found = ends(events, call_id)
    assert len(found) == 1, f"{call_id} has the ends {found}"
    return found[0]


def outcomes(events: Sequence[LedgerEvent], kind: type[_T]) -> list[_T]:
    """The events of one type."""
    return [event for event in events if isinstance(event, kind)]


def cost(events: Sequence[LedgerEvent]) -> int:
    """What the calls cost by their events: nano-dollars; what is unknown counts nothing."""
    return sum(event.cost_nano or 0 for event in events if isinstance(event, Outcome))


def price(prompt: int, completion: int) -> int:
    """What so many tokens of the model `chat` cost, in nano-dollars."""
    return prompt * 1_000 + completion * 2_000
