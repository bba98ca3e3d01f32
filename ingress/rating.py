"""Whether a call may begin now, by the rates it has to pass: out of what this process has leased,
else by asking the governor.

Where the governor does not answer within a second, calls are let through: a limiter that is away
must not stop the gateway. What must never be exceeded is money, and has its own guard.
"""

import asyncio
import logging
from collections import deque

from ingress import rate_refusals
from ingress.auth import Principal
from ingress.limits import Applying, Rule
from ingress.rate_owed import Lender, Owed, Term
from ingress.rate_pocket import Pockets, needed
from ledger.budgets.messages import Answer
from schemas.call import Tenant
from schemas.errors import RateLimited
from schemas.ids import Clock

log = logging.getLogger("nexus.rates")

_PATIENCE = 1.0
# Once the governor is known to be away, so long that its coming back is noticed by asking.
_PATIENCE_AWAY = 0.05
_LATE_TWICE = 2
_AT_ONCE_NS = 1_000_000
_SECOND_LOOK = 0.02
_LONGEST_LINE = 1000
_LOG_EVERY = 1.0

Headers = list[tuple[bytes, bytes]]


class Passed:
    """A call that may begin; `headers` tell its client how much is left."""

    __slots__ = ("_rating", "_rules", "_term", "_tokens", "headers")

    def __init__(
        self,
        headers: Headers,
        rating: "Rating | None" = None,
        rules: tuple[Rule, ...] = (),
        tokens: int = 0,
        term: Term | None = None,
    ) -> None:
        self.headers = headers
        self._rating = rating
        self._rules = rules
        self._tokens = tokens
        self._term = term

    def release(self, tokens: int | None) -> None:
        """The call is over and used so many tokens; None: nobody knows, the estimate stands.
        Only the first time counts."""
        rating, self._rating = self._rating, None
        if rating is not None:
            used_more = 0 if tokens is None else tokens - self._tokens
            rating.settle(self._rules, used_more, self._term)


_FREE = Passed([])


class _Waiter:
    __slots__ = ("deadline_ns", "passed", "tokens")

    def __init__(self, tokens: int, deadline_ns: int) -> None:
        self.tokens = tokens
        self.deadline_ns = deadline_ns
        self.passed: asyncio.Future[Passed] = asyncio.get_running_loop().create_future()


class _Line:
    """The calls that wait for the same rates, in the order of their coming; one ask for all."""

    __slots__ = ("late", "looked_twice", "patient", "rules", "silent", "waiters")

    def __init__(self, rules: tuple[Rule, ...], patient: bool) -> None:
        self.rules = rules
        self.patient = patient
        self.waiters: deque[_Waiter] = deque()
        self.silent = False
        self.looked_twice = False
        self.late = 0


class Rating:
    """One per process. `let_through` counts the calls that passed because nobody answered."""

    def __init__(self, applying: Applying, lender: Lender, clock: Clock) -> None:
        self.let_through = 0
        self._applying = applying
        self._lender = lender
        self._clock = clock
        self._pockets = Pockets()
        self._owed = Owed(self._pockets, lender, clock)
        self._lines: dict[tuple[tuple[Rule, ...], bool], _Line] = {}
        self._next_log = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def admit(
        self, principal: Principal, tenant: Tenant, model: str, tokens: int, deadline_ns: int
    ) -> Passed:
        """Pass all rates of a call of about so many tokens. Raises RateLimited.

        With `principal.queue` it waits for its turn instead, up to `deadline_ns`. What is returned
        must be released when the call is over.
        """
        rules = self._applying.rules(principal, tenant, model)
        if not rules:
            return _FREE
        tokens, now_ns = max(tokens, 1), self._clock.now_ns()
        self._pockets.measure(rules, tokens, now_ns)
        line = self._lines.get((rules, principal.queue))
        if line is None:
            passed = self._take(rules, tokens, now_ns)
            if passed is not None:
                return passed
            refusal = self._refusal(rules, tokens, now_ns, deadline_ns if principal.queue else 0)
            if refusal is not None:
                raise refusal
            line = self._begin_line(rules, principal.queue)
        elif line.silent:
            return self._let_through()
        elif len(line.waiters) >= _LONGEST_LINE:
            raise rate_refusals.line_full(rules[0], self._shown(rules))
        return await self._wait(line, _Waiter(tokens, deadline_ns))

    def settle(self, rules: tuple[Rule, ...], used_more: int, term: Term | None) -> None:
        """A call that passed is over. Called by `Passed.release`. A governor knows of the calls
        that another one let pass by the ledger."""
        now = self._owed.follow()
        if term is None or term.reign != now.reign:
            return
        for rule in rules:
            if rule.what == "tokens" and used_more:
                self._owed.add(rule.rate, -used_more)
            elif rule.what == "calls" and term == now:
                self._owed.add_slot(rule.rate)

    def _take(self, rules: tuple[Rule, ...], tokens: int, now_ns: int) -> Passed | None:
        term = self._owed.follow()
        if not self._pockets.take(rules, tokens, now_ns):
            return None
        shown = rate_refusals.headers(rules, self._pockets.by_rate)
        headers = [(name.lower().encode(), value.encode()) for name, value in shown.items()]
        return Passed(headers, self, rules, tokens, term)

    def _refusal(
        self, rules: tuple[Rule, ...], tokens: int, now_ns: int, deadline_ns: int
    ) -> RateLimited | None:
        """Why the call cannot pass in time, as far as it is known without asking."""
        for rule in rules:
            need, pocket = needed(rule, tokens), self._pockets.of(rule.rate, now_ns)
            if need > max(rule.limit, rule.burst):
                return rate_refusals.too_large(rule, tokens, self._shown(rules))
            closed_ns = pocket.closed_for_ns(need, now_ns)
            if closed_ns and now_ns + max(closed_ns, int(pocket.wait * 1e9)) > deadline_ns:
                return rate_refusals.reached(rule, pocket.wait, self._shown(rules))
        return None

    def _shown(self, rules: tuple[Rule, ...]) -> dict[str, str]:
        return rate_refusals.headers(rules, self._pockets.by_rate)

    # Waiting for leases.

    def _begin_line(self, rules: tuple[Rule, ...], patient: bool) -> _Line:
        line = self._lines[rules, patient] = _Line(rules, patient)
        task = asyncio.get_running_loop().create_task(self._run(line))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return line

    async def _wait(self, line: _Line, waiter: _Waiter) -> Passed:
        line.waiters.append(waiter)
        try:
            return await waiter.passed
        except asyncio.CancelledError:
            future = waiter.passed
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().release(0)
            raise

    async def _run(self, line: _Line) -> None:
        """Until nobody waits any more."""
        try:
            while True:
                self._serve(line)
                if not line.waiters:
                    return
                pause_ns = self._pockets.closed_for_ns(
                    line.rules, line.waiters[0].tokens, self._clock.now_ns()
                )
                if pause_ns:
                    await asyncio.sleep(pause_ns / 1e9)
                else:
                    await self._ask(line)
        finally:
            del self._lines[line.rules, line.patient]
            self._release_all(line)

    def _serve(self, line: _Line) -> None:
        """Let pass or refuse whom we can; the others keep their order."""
        now_ns = self._clock.now_ns()
        waiting: deque[_Waiter] = deque()
        for waiter in line.waiters:
            if waiter.passed.done():
                continue
            passed = None if waiting else self._take(line.rules, waiter.tokens, now_ns)
            if passed is not None:
                waiter.passed.set_result(passed)
                continue
            deadline_ns = waiter.deadline_ns if line.patient else 0
            refusal = self._refusal(line.rules, waiter.tokens, now_ns, deadline_ns)
            if refusal is not None:
                waiter.passed.set_exception(refusal)
            else:
                waiting.append(waiter)
        line.waiters = waiting

    async def _ask(self, line: _Line) -> None:
        """One ask for what the first of the line needs, and as much as the others would like."""
        first = line.waiters[0]
        tokens = first.tokens
        others = sum(waiter.tokens for waiter in line.waiters) - tokens, len(line.waiters) - 1
        wants = self._pockets.wants(line.rules, tokens, others, self._clock.now_ns())
        patience = _PATIENCE_AWAY if self._lender.away else _PATIENCE
        timer = asyncio.get_running_loop().call_later(patience, self._give_up, line)
        try:
            answer = await self._lender.ask((), wants)
        finally:
            timer.cancel()
            line.silent = False
        self._owed.follow()
        now_ns = self._clock.now_ns()
        if answer is None:
            return
        short = answer.rate_shortage
        if short is None:
            self._put(line, answer, now_ns)
            return
        self._owed.obey(short.reign)
        rule = next(rule for rule in line.rules if rule.rate == short.rate)
        if rule.what == "calls" and not line.looked_twice:
            # Whose call just ended elsewhere is here sooner than the slot that it had.
            line.looked_twice = True
            await asyncio.sleep(_SECOND_LOOK)
            return
        self._pockets.of(short.rate, now_ns).close(needed(rule, tokens), short, now_ns)

    def _put(self, line: _Line, answer: Answer, now_ns: int) -> None:
        """Keep what was granted. What comes too late, time and again, is used all the same: the bus
        is slow, and nothing would ever be in time."""
        line.looked_twice = False
        in_time = True
        for lease in answer.rates:
            self._owed.obey(lease.reign)
            self._owed.collect(lease.rate)
            pocket = self._pockets.of(lease.rate, now_ns)
            if pocket.put(lease, now_ns):
                self._owed.watch(lease, now_ns)
            elif line.late >= _LATE_TWICE:
                pocket.amount, pocket.until_ns = lease.amount, now_ns + _AT_ONCE_NS
            else:
                in_time = False
                self._owed.add(lease.rate, lease.amount)
        line.late = 0 if in_time else line.late + 1

    def _give_up(self, line: _Line) -> None:
        line.silent = True
        self._release_all(line)

    def _release_all(self, line: _Line) -> None:
        waiting = [waiter for waiter in line.waiters if not waiter.passed.done()]
        line.waiters.clear()
        for waiter in waiting:
            waiter.passed.set_result(self._let_through())

    def _let_through(self) -> Passed:
        self.let_through += 1
        now = self._clock.monotonic()
        if now >= self._next_log:
            self._next_log = now + _LOG_EVERY
            log.warning("rates are not enforced", extra={"let_through": self.let_through})
        return Passed([])
