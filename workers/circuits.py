"""The circuits of targets in the life of a call: who may pass, who probes, and the ledger told."""

import asyncio
import logging
from typing import Self

from ledger.connection import Connection, Disconnected
from ledger.log import Ledger
from ledger.publisher import PubAck, Publisher, Refused, Unresolved
from ledger.reader import Unreadable, read_at
from ledger.target_states import TargetStates
from schemas import subjects
from schemas.call import Call, Target
from schemas.config import BreakerConfig
from schemas.events import decode_event
from schemas.ids import Clock
from schemas.target_events import TargetState, message_id_of_probe
from workers.breakers import Breakers, Passage
from workers.causes import DEADLINE
from workers.providers.base import AttemptFailed

log = logging.getLogger("nexus.worker")

_LONGEST_PROBE = 60.0
_CLAIMED_WITHIN = 2.0
_ANOTHER_PROBES = 1.0
_TIMED_OUT = 504


class Circuits:
    """What stands between the calls of this worker and their targets."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        settings: BreakerConfig,
        states: TargetStates,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._ledger = Ledger(publisher, "worker")
        self._breakers = Breakers(settings, states, clock)
        self._states = states

    def passage(self, call: Call, target: Target) -> Passage:
        """Whether the call may go to one of its targets now."""
        own_key = target.provider in call.credentials
        return self._breakers.passage(target.provider, target.engine, own_key=own_key)

    async def enter(self, call: Call, target: Target) -> "Visit | Passage":
        """The call's visit to a target; in its place the closed passage where it may not go."""
        passage = self.passage(call, target)
        if passage.seconds:
            return passage
        within = target.timeouts.first_byte if call.stream else target.timeouts.total
        probes: list[TargetState] = []
        for state in passage.probes:
            probe = self._breakers.probe(state, min(within, _LONGEST_PROBE))
            if not await self._claimed(probe):
                for taken in probes:
                    self.tell(self._breakers.release(taken))
                return Passage(_ANOTHER_PROBES, state.reason)
            self._hold(probe)
            probes.append(probe)
        return Visit(self, self._breakers, target, tuple(probes))

    async def _claimed(self, probe: TargetState) -> bool:
        """Whether this probe is ours: the ledger keeps one of all that follow the same state."""
        message_id = message_id_of_probe(probe.follows)
        try:
            ack = await self._ledger.append(probe, message_id, deadline=_CLAIMED_WITHIN)
            if not ack.duplicate:
                return True
            kept = await read_at(self._connection, subjects.LEDGER, ack.seq)
        except (Unresolved, Refused, Disconnected, Unreadable):
            return False
        event = decode_event(kept.data) if kept else None
        return event is not None and event.event_id == probe.event_id

    def tell(self, change: TargetState) -> None:
        """A change that holds here from now on, and everywhere once the ledger has it."""
        self._hold(change)
        try:
            stored = self._ledger.append_nowait(change)
        except Disconnected:
            return
        stored.add_done_callback(_note_unresolved)

    def _hold(self, change: TargetState) -> None:
        self._states.fold(change)
        log.log(
            logging.WARNING if change.state == "open" else logging.INFO,
            "provider.state",
            extra={
                "provider": change.provider,
                "engine": change.engine,
                "state": change.state,
                "failures": change.failures,
                "until": change.until,
                "reason": change.reason,
            },
        )


class Visit:
    """One call at one target, for all of its attempts there.

    Use it as a context: a probe that is left without a verdict is let go to another.
    """

    __slots__ = ("_breakers", "_circuits", "_probes", "_target")

    def __init__(
        self,
        circuits: Circuits,
        breakers: Breakers,
        target: Target,
        probes: tuple[TargetState, ...],
    ) -> None:
        self._circuits = circuits
        self._breakers = breakers
        self._target = target
        self._probes = probes

    @property
    def is_probe(self) -> bool:
        return bool(self._probes)

    def began(self) -> None:
        """The target has begun to answer: enough for a probe."""
        for probe in self._probes:
            self._circuits.tell(self._breakers.close(probe))
        self._probes = ()

    def answered(self) -> None:
        """The target has answered as it should, be it with a refusal that is the client's."""
        self.began()
        self._breakers.answered(self._target.provider, self._target.engine)

    def failed(self, failed: AttemptFailed, *, began: float, again: bool) -> None:
        """An attempt failed that `began` then (monotonic seconds); `again` where this call tries
        the target once more."""
        if not failed.blame:
            if failed.reached and failed.info.status < 500:
                self.began() if failed.info.status == 429 else self.answered()
            return
        probes, self._probes = self._probes, ()
        counted = False
        for probe in probes:
            if failed.blame == "target" and not probe.engine:
                # Whoever answers with an error can be reached.
                self._circuits.tell(self._breakers.close(probe))
            else:
                self._circuits.tell(self._breakers.reopen(probe, failed))
                counted = True
        if counted or (again and failed.info.status != _TIMED_OUT):
            return
        target = self._target
        opened = self._breakers.failed(target.provider, target.engine, failed, began)
        if opened is not None:
            self._circuits.tell(opened)

    def ran_out(self, began: float) -> None:
        """The call's deadline came before any answer to the attempt that `began` then."""
        late = AttemptFailed(DEADLINE, retryable=False, reached=True, blame="target")
        self.failed(late, began=began, again=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for probe in self._probes:
            self._circuits.tell(self._breakers.release(probe))
        self._probes = ()


def _note_unresolved(ack: "asyncio.Future[PubAck]") -> None:
    if not ack.cancelled() and ack.exception() is not None:
        log.warning("state of a target not recorded", extra={"reason": str(ack.exception())})
