"""Why a call was admitted: the state of its accounts just before its start, told by the ledger.

Nothing here is asked of the governor; it is computed anew from the events.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from analytics.accounts import (
    AccountThen,
    ExplainParams,
    Explanation,
    Moved,
    Recorded,
    RefusedBy,
)
from analytics.rows import OUTCOME_TYPES, TERMINAL_TYPES
from analytics.store import Store
from ledger.budgets.names import budget_of, for_every_id
from schemas.access import Budget
from schemas.access_events import BudgetSet
from schemas.budget_events import BudgetExceeded, LeaseGranted, LeaseReturned
from schemas.errors import NotFound
from schemas.events import Outcome, RequestStart, decode_event
from schemas.ids import made_us

_MOVES = 5
_LONGEST_OPEN_US = 2 * 86_400 * 1_000_000

_EVENTS = """
select seq, toUnixTimestamp64Micro(ts), hex(raw) from events final
where call_id = {call_id:String} and parked = ''
    and seq not in (select seq from repeats final where copy)
order by seq
"""
# A refusal that was told together with others; `since` is when the call came.
_TOLD_TOGETHER = """
select seq, toUnixTimestamp64Micro(ts), hex(raw) from events final
where event_type = 'model.budget.exceeded' and parked = ''
    and ts between fromUnixTimestamp64Micro({since:Int64}, 'UTC')
        and fromUnixTimestamp64Micro({until:Int64}, 'UTC')
    and JSONHas(raw, 'earlier', {call_id:String})
order by seq limit 1
"""
_SPENT = """
select account, ifNull(sum(cost_nano), 0)
from
(
    select arrayJoin(arrayDistinct(accounts)) as account, cost_nano from events final
    where seq < {before:UInt64} and parked = '' and event_type in {outcomes:Array(String)}
        and billed_to != 'client' and hasAny(accounts, {accounts:Array(String)})
        and seq not in (select seq from repeats final where copy)
)
where account in {accounts:Array(String)} group by account
"""
# A call is open for little more than a day at most; `since` is earlier than that.
_HELD = """
select account, sum(hold)
from
(
    select call_id, anyIf(accounts, notEmpty(accounts)) as of_call, sum(hold_nano) as hold
    from events final
    where seq < {before:UInt64} and parked = ''
        and ts > fromUnixTimestamp64Micro({since:Int64}, 'UTC')
        and event_type in ('model.request.start', 'budget.hold.taken')
    group by call_id
)
array join of_call as account
where account in {accounts:Array(String)} and call_id not in
(
    select call_id from events final
    where seq < {before:UInt64} and parked = ''
        and ts > fromUnixTimestamp64Micro({since:Int64}, 'UTC')
        and event_type in {terminals:Array(String)}
)
group by account
"""
_MOVEMENTS = """
select seq, hex(raw) from events final
where seq < {before:UInt64} and parked = '' and hasAny(accounts, {accounts:Array(String)})
    and event_type in ('budget.lease.granted', 'budget.lease.returned')
order by seq
"""
_TAKEN = """
select account, holder, sum(hold_nano)
from
(
    select arrayJoin(arrayDistinct(accounts)) as account, holder, hold_nano from events final
    where seq < {before:UInt64} and parked = '' and event_type = 'model.request.start'
        and hasAny(accounts, {accounts:Array(String)})
)
where account in {accounts:Array(String)} group by account, holder
"""
_EXPIRED = """
select distinct holder from events final
where seq < {before:UInt64} and parked = '' and event_type = 'budget.lease.expired'
"""
_LIMITS = """
select name, max(seq), argMax(hex(raw), seq)
from
(
    select seq, raw, if(event_type = 'access.budget.removed', JSONExtractString(raw, 'name'),
        arrayStringConcat(arrayFilter(part -> part != '', [
            JSONExtractString(raw, 'record', 'scope'), JSONExtractString(raw, 'record', 'id'),
            JSONExtractString(raw, 'record', 'period')]), ':')) as name
    from events final
    where seq < {before:UInt64} and parked = ''
        and event_type in ('access.budget.set', 'access.budget.removed')
)
where name in {budgets:Array(String)} group by name
"""


async def explain(
    params: ExplainParams, configured: Mapping[str, Budget], store: Store, as_of_seq: int
) -> Explanation:
    """The numbers of one call; `configured` are the budgets of the configuration by name.

    Raises NotFound for a call that no event names, and StoreFailed.
    """
    told = await _told(params.call_id, store)
    if not told:
        raise NotFound(
            f"No event up to sequence {as_of_seq} is of a call '{params.call_id[:64]}'. Of all that"
            " a budget refuses within a second, the last hundred are told.",
            code="call_not_found",
        )
    events = [(seq, at_us, decode_event(raw)) for seq, at_us, raw in told]
    outcomes = [event for _, _, event in events if isinstance(event, Outcome)]
    start_seq, start = None, None
    accounts: tuple[AccountThen, ...] = ()
    for seq, at_us, event in events:
        if isinstance(event, RequestStart):
            start_seq, start = seq, event
            then = _Then(store, seq, at_us, start, outcomes, configured)
            accounts = await then.accounts()
            break
    return Explanation(
        call_id=params.call_id,
        as_of_seq=as_of_seq,
        start_seq=start_seq,
        time=start.time if start else None,
        model=start.model if start else next((one.model for one in outcomes), None),
        plan=start.plan if start else (),
        holder=(start.holder or None) if start else None,
        hold_nano=start.hold_nano if start else None,
        prompt_estimate=next((one.prompt_estimate for one in outcomes), None),
        accounts=accounts,
        events=tuple(Recorded(seq, msgspec.Raw(raw)) for seq, _, raw in told),
        refused_by=tuple(
            _refused_by(seq, event, params.call_id)
            for seq, _, event in events
            if isinstance(event, BudgetExceeded)
        ),
    )


async def _told(call_id: str, store: Store) -> list[tuple[int, int, bytes]]:
    """The events of a call: sequence, microseconds since 1970, JSON."""
    found = (await store.query(_EVENTS, {"call_id": call_id})).rows
    since_us = made_us(call_id)
    if not found and since_us is not None:
        until_us = since_us + _LONGEST_OPEN_US
        asked = {"call_id": call_id, "since": since_us, "until": until_us}
        found = (await store.query(_TOLD_TOGETHER, asked)).rows
    return [(int(seq), int(at_us), bytes.fromhex(raw)) for seq, at_us, raw in found]


def _refused_by(seq: int, event: BudgetExceeded, call_id: str) -> RefusedBy:
    return RefusedBy(
        seq=seq,
        time=event.time,
        budget=event.budget,
        account=event.account,
        limit_nano=event.limit_nano,
        spent_nano=event.spent_nano,
        held_nano=event.held_nano,
        needed_nano=event.earlier.get(call_id, event.needed_nano),
        together=event.refused,
    )


class _Then:
    """The accounts of one call as they were before its start."""

    def __init__(
        self,
        store: Store,
        seq: int,
        at_us: int,
        start: RequestStart,
        outcomes: Sequence[Outcome],
        configured: Mapping[str, Budget],
    ) -> None:
        self._store = store
        self._start = start
        self._configured = configured
        self._names = tuple(dict.fromkeys(start.accounts))
        self._cost = sum(one.cost_nano or 0 for one in outcomes if one.billed_to != "client")
        self._asked: dict[str, Any] = {
            "before": seq,
            "since": at_us - _LONGEST_OPEN_US,
            "accounts": list(self._names),
            "outcomes": list(OUTCOME_TYPES),
            "terminals": list(TERMINAL_TYPES),
        }

    async def accounts(self) -> tuple[AccountThen, ...]:
        spent = await self._by_account(_SPENT)
        held = await self._by_account(_HELD)
        free, moves = await self._leases()
        limits = await self._limits()
        return tuple(
            self._account(name, spent[name], held[name], free[name], moves[name], limits)
            for name in self._names
        )

    def _account(
        self,
        name: str,
        spent: int,
        held: int,
        free: Counter[str],
        moves: Sequence[Moved],
        limits: Mapping[str, tuple[int | None, Budget]],
    ) -> AccountThen:
        seq, budget = limits.get(budget_of(name), (None, None))
        leased = sum(free.values())
        return AccountThen(
            account=name,
            budget=budget_of(name),
            limit_nano=budget.limit_nano if budget else None,
            hard_stop=budget.hard_stop if budget else None,
            limit_seq=seq,
            spent_nano=spent,
            held_nano=held,
            leased_nano=leased,
            holder_nano=free[self._start.holder],
            remaining_nano=budget.limit_nano - spent - held - leased if budget else None,
            hold_nano=self._start.hold_nano,
            cost_nano=self._cost,
            moves=tuple(moves[-_MOVES:]),
        )

    async def _rows(self, sql: str, **more: Any) -> Sequence[Sequence[Any]]:
        return (await self._store.query(sql, {**self._asked, **more})).rows

    async def _by_account(self, sql: str) -> Counter[str]:
        return Counter({account: int(nano) for account, nano in await self._rows(sql)})

    async def _leases(self) -> tuple[dict[str, Counter[str]], dict[str, list[Moved]]]:
        """What lies free by account and holder, and the movements of the call's holder."""
        free: defaultdict[str, Counter[str]] = defaultdict(Counter)
        moves: defaultdict[str, list[Moved]] = defaultdict(list)
        for seq, raw in await self._rows(_MOVEMENTS):
            event = decode_event(bytes.fromhex(raw))
            assert isinstance(event, LeaseGranted | LeaseReturned)
            sign = 1 if isinstance(event, LeaseGranted) else -1
            for movement in event.movements:
                for account, amount in movement.amounts.items():
                    free[account][movement.holder] += sign * amount
                    if movement.holder == self._start.holder:
                        moves[account].append(
                            Moved(seq, event.time, movement.request, sign * amount)
                        )
        for account, holder, taken in await self._rows(_TAKEN):
            free[account][holder] -= int(taken)
        expired = {holder for (holder,) in await self._rows(_EXPIRED)}
        left = {
            account: Counter(
                {holder: max(0, n) for holder, n in by.items() if holder not in expired}
            )
            for account, by in free.items()
        }
        return defaultdict(Counter, left), moves

    async def _limits(self) -> dict[str, tuple[int | None, Budget]]:
        """The budget of each account's name, or the one for every id in its place."""
        wanted = {
            budget_of(name): [budget_of(name), for_every_id(budget_of(name))]
            for name in self._names
        }
        names = [name for several in wanted.values() for name in several if name]
        records: dict[str, tuple[int | None, Budget]] = {}
        for name, seq, raw in await self._rows(_LIMITS, budgets=names):
            event = decode_event(bytes.fromhex(raw))
            if isinstance(event, BudgetSet):
                records[name] = int(seq), event.record
        records |= {
            name: (None, self._configured[name]) for name in names if name in self._configured
        }
        return {
            budget: next(records[name] for name in several if name in records)
            for budget, several in wanted.items()
            if any(name in records for name in several)
        }
