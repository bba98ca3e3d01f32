"""What a governor that takes over knows of the rates before it, so that nobody gets twice what is
there only once.

Who led before has granted leases of which the ledger says nothing. The rule for each:

- **Used before a window is first asked for**: the start of the call is in the ledger; the window
  begins with everything that the ledger shows of its last minute or hour.
- **Used later**: an ingress goes on with such a lease until it hears of the new reign (all are told
  when it begins, and by every answer: so within one pulse where that was missed), or until the
  lease ends, after 5 s at most. For `_HAND_OVER_NS` the window
  therefore has as much as was granted here, or as many calls as the ledger shows to have begun,
  whichever is more: a call begun with a lease from here is in both, so it counts once; one begun
  with an older lease counts as soon as the ledger shows more than was granted.
- **Not used**: counted nowhere, so never to be given back here: an ingress drops what it has, and
  what it owes, when the reign changes; and of a holder that was granted nothing yet in this reign
  nothing is taken back.
- **Tokens of calls that still ran** count when they end (`late`), as many as they used; until then
  they are on their way. Their ingress, which has settled estimates with the governor before, has
  nothing to settle with this one.
- **Slots** in use are the calls that were open when this governor began to lead. Each is free when
  the ledger has its end; its ingress gives nothing back.

So a window admits no more than its limit, the calls that were on their way to the ledger when the
reign began, what ingresses that did not hear of it still let through until their next pulse, and
the tokens of calls that then ran.
"""

from collections.abc import Callable
from itertools import takewhile

from ledger.budgets.messages import RateWant
from ledger.budgets.recent import Recent, id_of
from ledger.budgets.trails import HOUR, MINUTE, Counted, used
from ledger.open_calls import OpenCalls
from schemas import subjects
from schemas.ids import rfc3339

_SECOND_NS = 1_000_000_000
# The longest lease, and a start that is a while on its way to the ledger.
_HAND_OVER_NS = 10 * _SECOND_NS
_FIELDS = {
    "key": "key_id",
    "user": "user",
    "project": "project",
    "team": "team",
    "model": "model",
}


class WindowLegacy:
    """What one window begins with, and what turns up later."""

    def __init__(self, recent: Recent, want: RateWant, now_ns: int) -> None:
        scope, token, what = _parts(want.rate)
        self._recent = recent
        self._of = scope, token
        self._what: Counted = "tokens" if what == "tokens" else "requests"
        self._since = self._seen()
        self._found = 0
        hand_over_ns = int(want.seconds * _SECOND_NS) if what == "tokens" else _HAND_OVER_NS
        self._until_ns = now_ns + hand_over_ns
        self.used = used(recent.trails(*self._of), self._what, int(want.seconds), now_ns)

    def more(self, granted: int, now_ns: int) -> int:
        """What turned up since the last look, where `granted` was granted here in all."""
        if now_ns >= self._until_ns:
            return 0
        found = self._seen() - self._since
        if self._what == "requests":
            found -= granted
        more = max(0, found - self._found)
        self._found += more
        return more

    def _seen(self) -> int:
        trails = self._recent.trails(*self._of)
        return sum(one.late if self._what == "tokens" else one.started for one in trails)


class Legacy:
    """Of all rates, for a governor that leads from `now_ns` on and has folded the ledger up to
    `seq`, which names its reign."""

    def __init__(self, recent: Recent, open_calls: OpenCalls, seq: int, now_ns: int) -> None:
        self.reign = seq
        self._recent = recent
        self._open_calls = open_calls
        self._began_ns = now_ns
        recent.begin_reign(rfc3339(now_ns))

    def of_window(self, want: RateWant, now_ns: int) -> WindowLegacy | None:
        """None where nothing from before can matter: the window is shorter than a minute, or than
        this reign."""
        ends_ns = self._began_ns + int(want.seconds * _SECOND_NS)
        if not MINUTE <= want.seconds <= HOUR or now_ns >= ends_ns:
            return None
        return WindowLegacy(self._recent, want, now_ns)

    def of_slots(self, want: RateWant) -> Callable[[], int]:
        """Counts the calls from before that are still open."""
        scope, token, _ = _parts(want.rate)
        field, id = _FIELDS.get(scope), id_of(token)
        calls: set[str] = set()
        if field is not None:
            calls = {
                call.start.call_id
                for call in takewhile(lambda call: call.seq <= self.reign, self._open_calls)
                if _is_of(getattr(call.start, field), id, token)
            }

        def still_open() -> int:
            nonlocal calls
            if calls:
                calls = {id for id in calls if self._open_calls.start_of(id) is not None}
            return len(calls)

        return still_open


def _is_of(found: str, id: str | None, token: str) -> bool:
    return found == id if id is not None else subjects.token(found) == token


def _parts(rate: str) -> tuple[str, str, str]:
    """Scope, its id as a token, and what is counted."""
    scope, _, rest = rate.partition(":")
    token, _, what = rest.rpartition(":")
    return "key" if scope == "client" else scope, token, what.partition("/")[0]
