"""When a target is left alone and when it is asked again: a state machine without I/O.

    closed ──max_failures calls in a row──▶ open ──until is over, one probe──▶ half open
      ▲                                      ▲                                    │
      └──────────── the probe answers ───────┼────────────────────────────────────┤
                                             └── the probe fails: twice as long ──┘

What this worker has counted is its own; the states are those of all workers. A call counts once,
whatever was tried for it: what a retry mends is no failure of the target. Only attempts that ran
into a timeout count one by one, because each of them has taken so long.
"""

import math
from datetime import datetime
from typing import NamedTuple

import msgspec

from ledger.target_states import Key, TargetStates
from schemas.config import BreakerConfig
from schemas.ids import Clock, rfc3339
from schemas.target_events import TargetState
from workers.providers.base import AttemptFailed

BAD_CREDENTIALS = "provider_auth"
_PROBES_USUALLY_END = 2.0
_MOST_COUNTED = 4096
_LONGEST_REASON = 200


class Passage(NamedTuple):
    """Whether a target may be asked: at once (`seconds` 0) or not before so many seconds, because
    of `reason`. With `probes` only as the one probe of these circuits."""

    seconds: float = 0.0
    reason: str = ""
    probes: tuple[TargetState, ...] = ()


FREE = Passage()


class Breakers:
    """The circuits as one worker sees and changes them.

    Every change is a new TargetState, made here and for others to store; it holds here once it is
    folded into `states`.
    """

    def __init__(self, settings: BreakerConfig, states: TargetStates, clock: Clock) -> None:
        self._settings = settings
        self._states = states
        self._clock = clock
        self._failures: dict[Key, int] = {}
        self._answered: dict[Key, float] = {}

    def passage(self, provider: str, engine: str, *, own_key: bool) -> Passage:
        """Whether a call may go to a target now. A call with a key of the client's own (`own_key`)
        has nothing to do with bad credentials of ours."""
        if self._states.all_closed or not self._settings.max_failures:
            return FREE
        states = self._states.of(provider, engine)
        if own_key:
            states = tuple(state for state in states if state.code != BAD_CREDENTIALS)
        if not states:
            return FREE
        now_ns = self._clock.now_ns()
        last = max(states, key=lambda state: state.until)
        if last.until > rfc3339(now_ns):
            seconds = datetime.fromisoformat(last.until).timestamp() - now_ns / 1e9
            if last.state == "half_open":
                seconds = min(seconds, _PROBES_USUALLY_END)
            return Passage(max(0.001, seconds), last.reason)
        return Passage(probes=states)

    def probe(self, state: TargetState, within: float) -> TargetState:
        """The half open circuit that follows an open one, or a probe that told nothing in time;
        the end of this probe is told `within` so many seconds."""
        return self._after(state, state="half_open", until=self._in(within))

    def answered(self, provider: str, engine: str) -> None:
        """A target has answered a call: nothing counts against it any more."""
        now = self._clock.monotonic()
        for key in ((provider, engine), (provider, "")):
            self._failures.pop(key, None)
            if key not in self._answered and len(self._answered) >= _MOST_COUNTED:
                del self._answered[next(iter(self._answered))]
            self._answered[key] = now

    def failed(
        self, provider: str, engine: str, failed: AttemptFailed, began: float
    ) -> TargetState | None:
        """A target has failed a call that was no probe, in an attempt that `began` then (monotonic
        seconds); the open circuit if that was one too many.

        What comes of calls that were under way when a circuit opened changes nothing. Neither does
        an attempt that is older than the last answer: calls that hang all end at once, long after
        others have been answered.
        """
        if not failed.blame or not self._settings.max_failures:
            return None
        key = provider, engine if failed.blame == "target" else ""
        if began < self._answered.get(key, -math.inf):
            return None
        if any((state.provider, state.engine) == key for state in self._states.of(*key)):
            return None
        failures = self._failures.pop(key, 0) + 1
        if failures < self._settings.max_failures:
            if len(self._failures) >= _MOST_COUNTED:
                del self._failures[next(iter(self._failures))]
            self._failures[key] = failures
            return None
        return TargetState(
            event_id=self._clock.new_id(),
            time=rfc3339(self._clock.now_ns()),
            v=1,
            provider=key[0],
            engine=key[1],
            state="open",
            reason=failed.info.message[:_LONGEST_REASON],
            code=failed.info.code or "",
            failures=failures,
            opened=1,
            until=self._in(self._reset(1)),
        )

    def close(self, probe: TargetState) -> TargetState:
        """The probe was answered."""
        return self._after(
            probe, state="closed", until="", opened=0, failures=0, reason="", code=""
        )

    def reopen(self, probe: TargetState, failed: AttemptFailed) -> TargetState:
        """The probe failed: open for longer than before."""
        opened = probe.opened + 1
        return self._after(
            probe,
            state="open",
            until=self._in(self._reset(opened)),
            opened=opened,
            failures=probe.failures + 1,
            reason=failed.info.message[:_LONGEST_REASON],
            code=failed.info.code or "",
        )

    def release(self, probe: TargetState) -> TargetState:
        """The probe came to no end that says anything: another may begin at once."""
        return self._after(probe, state="open", until=self._in(0.0))

    def _after(self, before: TargetState, **fields: object) -> TargetState:
        return msgspec.structs.replace(
            before,
            event_id=self._clock.new_id(),
            time=rfc3339(self._clock.now_ns()),
            follows=before.event_id,
            **fields,
        )

    def _in(self, seconds: float) -> str:
        return rfc3339(self._clock.now_ns() + int(seconds * 1e9))

    def _reset(self, opened: int) -> float:
        longest = max(self._settings.reset_seconds, self._settings.longest_reset_seconds)
        return min(longest, self._settings.reset_seconds * 2.0 ** min(opened - 1, 32))
