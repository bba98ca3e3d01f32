"""Serves what ingresses and workers ask about money and rates, as long as this governor leads.

One loop decides everything, one thing after the other; while an event is on its way to the ledger
the next asks gather.
"""

import asyncio
import logging
from collections.abc import Callable

from ledger.budgets import messages
from ledger.budgets.desk import Desk
from ledger.budgets.door import Reply, serve
from ledger.budgets.further import FurtherHolds
from ledger.budgets.grants import Grants
from ledger.budgets.liveness import Liveness
from ledger.budgets.messages import Answer, Ask, HoldAsk, Pulse, Reset, Return, StateAsk
from ledger.budgets.standing import Standing
from ledger.budgets.standstill import Standstill
from ledger.budgets.warner import Warner
from ledger.publisher import Refused
from schemas import subjects
from schemas.budget_events import LeaseExpired
from schemas.events import LedgerEvent

log = logging.getLogger("nexus.governor")

EXPIRE_AFTER = 20.0
_STRANGER = Answer(stranger=True)
_PATIENCE = 0.02
_LOOKS_PER_EXPIRY = 20


class Lessor:
    """Decides who may spend what. `leads` says whether it still may; a holder that is silent for
    `expire_after` seconds has nothing any more."""

    def __init__(
        self, desk: Desk, leads: Callable[[], bool], expire_after: float = EXPIRE_AFTER
    ) -> None:
        self._desk = desk
        self._leads = leads
        self._expire_after = expire_after
        self._liveness = Liveness(expire_after)
        self._grants = Grants(desk, self._liveness)
        self._further = FurtherHolds(desk)
        self._standing = Standing(desk)
        self._warner = Warner(desk)
        self._standstill = Standstill(desk.connection, desk.clock)
        self._left: dict[str, None] = {}
        self._ending: set[str] = set()
        self._work = asyncio.Event()

    async def run(self) -> None:
        """Runs until cancelled; the fold has everything that governors before have appended.

        Raises leading.Deposed.
        """
        desk = self._desk
        self._liveness.excuse(desk.book.holders(), desk.clock.monotonic())
        desk.fold.on_event = self._hear
        connection = desk.connection
        doors = (
            serve(connection, subjects.GOVERNOR_LEASE, messages.decode_ask, self._on_ask),
            serve(connection, subjects.GOVERNOR_RETURN, messages.decode_return, self._on_return),
            serve(connection, subjects.GOVERNOR_PULSE, messages.decode_pulse, self._on_pulse),
            serve(connection, subjects.GOVERNOR_HOLD, messages.decode_hold_ask, self._on_hold),
            serve(connection, subjects.GOVERNOR_RESET, messages.decode_reset, self._on_reset),
            serve(connection, subjects.GOVERNOR_BUDGETS, messages.decode_state_ask, self._on_look),
        )
        desk.recalls.begin_reign(desk.rates.reign)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._decide())
                tasks.create_task(self._expire())
                tasks.create_task(self._standstill.watch())
                tasks.create_task(self._warner.run())
        finally:
            desk.fold.on_event = None
            for door in doors:
                door.unsubscribe()

    def _on_ask(self, ask: Ask, reply: Reply) -> None:
        """What waited while this process stood still is passed over: whoever still wants it asks
        again, and nobody else is to get it."""
        if self._standstill.is_over() and self._is_known(ask.holder, reply):
            self._grants.ask(ask, reply)
            self._work.set()

    def _on_return(self, returned: Return, reply: Reply) -> None:
        if self._is_known(returned.holder, reply):
            self._grants.give_back(returned, reply)
            self._work.set()

    def _on_pulse(self, pulse: Pulse, reply: Reply) -> None:
        if self._leads() and self._is_known(pulse.holder, reply):
            self._left.update(dict.fromkeys(pulse.before))
            self._work.set()
            reply(Answer(reign=self._desk.rates.reign))

    def _on_hold(self, ask: HoldAsk, reply: Reply) -> None:
        self._further.ask(ask, reply)
        self._work.set()

    def _on_reset(self, reset: Reset, reply: Reply) -> None:
        self._standing.reset(reset, reply)
        self._work.set()

    def _on_look(self, ask: StateAsk, reply: Reply) -> None:
        if self._leads():
            self._standing.tell(ask, reply)

    def _is_known(self, holder: str, reply: Reply) -> bool:
        """Whether a holder may go on under this id; if not, it is told so."""
        if holder in self._ending or self._desk.book.is_expired(holder):
            reply(_STRANGER)
            return False
        self._liveness.hear(holder, self._desk.clock.monotonic())
        return True

    def _hear(self, event: LedgerEvent) -> None:
        self._grants.hear(event)
        self._warner.hear(event)
        if self._grants.late or self._further.late:
            self._work.set()

    async def _decide(self) -> None:
        while True:
            await self._await_work()
            if not self._leads():
                await asyncio.sleep(_PATIENCE)
                self._work.set()
                continue
            await self._grants.take_returns()
            await self._end_left()
            await self._standing.do_resets()
            await self._further.decide()
            await self._grants.decide()

    async def _await_work(self) -> None:
        """Return when there is something to do, or a late ask may have become due."""
        others = self._further.waiting or self._standing.waiting or bool(self._left)
        if self._grants.waiting or others:
            return
        self._work.clear()
        is_late = self._grants.late or self._further.late
        try:
            async with asyncio.timeout(_PATIENCE if is_late else None):
                await self._work.wait()
        except TimeoutError:
            return

    async def _expire(self) -> None:
        """End what silent holders have; nobody is silent who could not be heard."""
        desk = self._desk
        was_deaf = False
        while True:
            await asyncio.sleep(self._expire_after / _LOOKS_PER_EXPIRY)
            now = desk.clock.monotonic()
            if was_deaf or not self._leads():
                self._liveness.excuse((), now)
                was_deaf = not self._leads()
                continue
            for holder in self._liveness.silent(now):
                if await self._end(holder):
                    self._liveness.forget(holder)
                    desk.rates.forget(holder, desk.clock.now_ns())
                    log.warning("holder expired", extra={"holder": holder})
            desk.rates.drop_idle(desk.clock.now_ns())
            desk.book.forget(desk.clock.now_ns())

    async def _end_left(self) -> None:
        """Free at once what holders had that go on under another name. The slots of their calls
        are free when a silent holder's are: the calls may still run."""
        left, self._left = self._left, {}
        for holder in left:
            self._grants.drop(holder)
            if holder in self._desk.book.holders() and await self._end(holder):
                log.info("holder left", extra={"holder": holder})

    async def _end(self, holder: str) -> bool:
        """Whether the ledger says that a holder has nothing any more."""
        desk = self._desk
        if desk.book.is_expired(holder):
            return True
        self._ending.add(holder)
        try:
            seq = await desk.ledger.append(LeaseExpired(**desk.new_event(), holder=holder))
            if seq is not None:
                await desk.fold.reach(seq)
        except Refused as error:
            log.error("expiry not recorded", extra={"holder": holder, "reason": str(error)})
            return False
        finally:
            self._ending.discard(holder)
        return True
