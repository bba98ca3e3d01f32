"""Calls that cannot be paid from the purse wait here until the governor has answered for them.

Those for the same budgets stand in one line, in order of their coming; each line has one ask.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple

import msgspec

from ingress.lease_client import LeaseClient
from ingress.purse import Missing, Taken
from ledger.budgets.messages import Shortage
from schemas.access import Budget
from schemas.ids import Clock

_PAUSE = 0.05
_PATIENCES = 5


class GovernorAway(Exception):
    """Nobody said in time whether the money is there."""


class _Waiter:
    __slots__ = ("answer", "budgets", "nano")

    def __init__(self, budgets: Sequence[Budget], nano: int) -> None:
        self.budgets = budgets
        self.nano = nano
        self.answer: asyncio.Future[Taken | Shortage] = asyncio.get_running_loop().create_future()


class _Line:
    __slots__ = ("asking", "waiters")

    def __init__(self) -> None:
        self.waiters: list[_Waiter] = []
        self.asking = False


class _Closed(NamedTuple):
    """A shortage, as the answer to all who need `need` or more, until `until` (monotonic)."""

    shortage: Shortage
    need: int
    until: float


class Waiting:
    """All lines of one ingress."""

    def __init__(self, leases: LeaseClient, clock: Clock) -> None:
        self._leases = leases
        self._clock = clock
        self._lines: dict[tuple[str, ...], _Line] = {}
        self._closed: dict[str, _Closed] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def obtain(
        self, budgets: Sequence[Budget], nano: int, patience: float
    ) -> Taken | Shortage:
        """Take `nano` from every hard budget as soon as it is there, or say what is short.

        Raises GovernorAway after `patience` seconds, a few times as many while the governor answers
        others.
        """
        refused = self._refusal(budgets, nano)
        if refused is not None:
            return refused
        key = tuple([budget.name for budget in budgets])
        line = self._lines.setdefault(key, _Line())
        waiter = _Waiter(budgets, nano)
        line.waiters.append(waiter)
        self._move(key, line)
        try:
            return await self._patiently(waiter.answer, patience)
        except BaseException:
            if waiter.answer.done() and isinstance(taken := waiter.answer.result(), Taken):
                self._leases.purse.give_back(taken)
            waiter.answer.cancel()
            raise

    async def _patiently(
        self, answer: asyncio.Future[Taken | Shortage], patience: float
    ) -> Taken | Shortage:
        begun = self._clock.monotonic()
        left = patience
        while True:
            await asyncio.wait((answer,), timeout=left)
            if answer.done():
                return answer.result()
            ends = min(self._leases.alive + patience, begun + _PATIENCES * patience)
            left = ends - self._clock.monotonic()
            if left <= 0 or self._leases.silent:
                raise GovernorAway

    def _move(self, key: tuple[str, ...], line: _Line) -> None:
        """Serve who can be served, and ask for the others."""
        if line.asking:
            return
        line.waiters = [waiter for waiter in line.waiters if not self._served(waiter)]
        if line.waiters:
            line.asking = True
            self._spawn(self._ask_for(key, line))
        else:
            self._lines.pop(key, None)

    def _served(self, waiter: _Waiter) -> bool:
        if waiter.answer.done():
            return True
        result: Taken | Missing | Shortage | None
        result = self._leases.take(waiter.budgets, waiter.nano)
        if isinstance(result, Missing):
            result = self._refusal(waiter.budgets, waiter.nano)
        if result is not None:
            waiter.answer.set_result(result)
        return result is not None

    async def _ask_for(self, key: tuple[str, ...], line: _Line) -> None:
        """One ask for what the first of a line needs, and as much as all of them would like."""
        leases, first, asked_ns = self._leases, line.waiters[0], self._clock.now_ns()
        needs = leases.purse.missing(first.budgets, first.nano, asked_ns).needs
        waiting = sum(waiter.nano for waiter in line.waiters)
        wants = leases.purse.wants(needs, waiting, asked_ns)
        answer = await leases.ask(wants)
        if answer is not None and answer.shortage is not None:
            self._close(answer.shortage, first.nano)
            if not first.answer.done():
                first.answer.set_result(answer.shortage)
        elif answer is not None and not leases.put(wants, answer, asked_ns):
            await asyncio.sleep(_PAUSE)
        line.asking = False
        self._move(key, line)

    def _close(self, shortage: Shortage, need: int) -> None:
        now = self._clock.monotonic()
        before = self._closed.get(shortage.budget)
        if before is not None and now < before.until:
            need = min(need, before.need)
        self._closed[shortage.budget] = _Closed(shortage, need, now + self._leases.pace.closed)

    def _refusal(self, budgets: Sequence[Budget], nano: int) -> Shortage | None:
        """What was just said to one that needed no more than this one."""
        if not self._closed:
            return None
        now = self._clock.monotonic()
        for budget in budgets:
            closed = self._closed.get(budget.name)
            if closed is None:
                continue
            if now >= closed.until:
                del self._closed[budget.name]
            elif nano >= closed.need:
                return msgspec.structs.replace(closed.shortage, needed_nano=nano)
        return None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
