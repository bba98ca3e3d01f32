"""The state of all accounts as of one sequence, for a governor that has no checkpoint.

What the governor would know had it folded the ledger up to there: the same rules, as sums over the
stored events (`ledger/budgets/book.py` has the rules one event at a time).
"""

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any

from analytics.migrate import SEGMENT
from analytics.projection import Projection
from analytics.rows import OUTCOME_TYPES, TERMINAL_TYPES
from analytics.store import Store
from ledger.budgets.alerts import REMEMBERED
from ledger.budgets.book_state import AccountState, CallState
from ledger.budgets.opening import Free, Kind, OpeningParams, Part
from schemas.ids import made_us

# What fits into one message, also where names are long.
AT_ONCE = 3_000
CALLS_AT_ONCE = 1_000

_SECOND_US = 1_000_000
# The longest deadline is a day, and a call is ended soon after it.
_LONGEST_CALL_US = 2 * 86_400 * _SECOND_US
# Who has money free spends of it, or gives it back within seconds: both are events.
_LONGEST_SILENCE_US = 3_600 * _SECOND_US
_CLOCKS_DIFFER_US = 600 * _SECOND_US

_READ_FROM = """
select min(seq) from events where seq <= {through:UInt64} and
    (stored_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC') or seq in (select first from open))
"""
_OPEN = """
with open as
(
    select
        call_id,
        min(seq) as first,
        arrayDistinct(argMin(accounts, seq)) as accounts_of_call,
        greatest(argMin(hold_nano, seq), 0) as hold,
        JSONHas(argMin(raw, seq), 'alert_nano') as is_watched
    from events
    where seq <= {through:UInt64} and parked = '' and event_type = 'model.request.start'
        and stored_at > fromUnixTimestamp64Micro({longest:Int64}, 'UTC') and call_id not in
        (
            select call_id from events
            where seq <= {through:UInt64} and parked = ''
                and stored_at > fromUnixTimestamp64Micro({longest:Int64}, 'UTC')
                and event_type in {terminals:Array(String)}
        )
    group by call_id
)
"""
_CALLS = """
select
    call_id,
    any(accounts_of_call),
    any(hold) + sumIf(greatest(more, 0), is_hold),
    groupArrayIf(id, is_hold),
    any(is_watched),
    ifNull(sumIf(cost, not is_hold), 0)
from open
left join
(
    select
        call_id,
        event_type,
        event_type = 'budget.hold.taken' as is_hold,
        toString(event_id) as id,
        min((seq, hold_nano)).2 as more,
        min((seq, cost_nano)).2 as cost
    from events
    where seq <= {through:UInt64} and parked = '' and call_id in (select call_id from open)
        and (event_type = 'budget.hold.taken' or event_type in {outcomes:Array(String)})
    group by call_id, event_type, id
) as later using call_id
where call_id > {after:String}
group by call_id order by call_id limit {most:UInt64}
"""
_ACCOUNTS = """
select account, sum(nano)
from
(
    select account, spent_nano as nano from budget_spend final where segment < {segment:UInt64}
    union all
    select arrayJoin(arrayDistinct(accounts)) as account, ifNull(cost_nano, 0) as nano
    from events final
    where seq >= {low:UInt64} and seq <= {through:UInt64} and parked = ''
        and event_type in {outcomes:Array(String)} and billed_to != 'client'
        and seq not in (select seq from repeats final where copy)
)
where account > {after:String}
group by account order by account limit {most:UInt64}
"""
_EPOCHS = """
select JSONExtractString(raw, 'budget') as budget, max(JSONExtractInt(raw, 'epoch')) from events
where seq <= {through:UInt64} and parked = '' and event_type = 'budget.reset'
    and budget > {after:String}
group by budget order by budget limit {most:UInt64}
"""
_WARNED = """
select account from
(
    select JSONExtractString(raw, 'account') as account, min(seq) as first from events
    where seq <= {through:UInt64} and parked = '' and event_type = 'model.budget.warning'
    group by account order by first desc limit {remembered:UInt64}
)
order by first limit {most:UInt64} offset {told:UInt64}
"""
# Who was heard of lately and has not expired since.
_LIVE = """
select distinct holder from
(
    select holder from events
    where seq <= {through:UInt64} and parked = '' and event_type = 'model.request.start'
        and stored_at > fromUnixTimestamp64Micro({silent:Int64}, 'UTC')
    union all
    select arrayJoin(JSONExtract(raw, 'movements', 'Array(Tuple(holder String))')).1 as holder
    from events
    where seq <= {through:UInt64} and parked = ''
        and event_type in ('budget.lease.granted', 'budget.lease.returned')
        and stored_at > fromUnixTimestamp64Micro({silent:Int64}, 'UTC')
)
where holder != '' and holder not in
(
    select holder from events
    where seq <= {through:UInt64} and parked = '' and event_type = 'budget.lease.expired'
        and stored_at > fromUnixTimestamp64Micro({silent_before:Int64}, 'UTC')
)
"""
# What a holder has is never below zero: a start takes no more than there is. So it is the sum of
# all that came and went, less the lowest that sum has ever been below zero. Nothing moved before
# the first of them began.
_FREE = """
with moves as
(
    select seq, event_type, arrayJoin(JSONExtract(raw, 'movements',
        'Array(Tuple(holder String, request String, amounts Map(String, Int64)))')) as move
    from events
    where seq <= {through:UInt64} and parked = ''
        and event_type in ('budget.lease.granted', 'budget.lease.returned')
        and stored_at >= fromUnixTimestamp64Micro({began:Int64}, 'UTC')
)
select holder, account, argMax(total, seq) - least(min(total), 0) as free
from
(
    select holder, account, seq, sum(nano) over (partition by holder, account order by seq) as total
    from
    (
        select holder, seq, change.1 as account,
            if(event_type = 'budget.lease.granted', 1, -1) * greatest(change.2, 0) as nano
        from
        (
            select move.holder as holder, event_type, min(moves.seq) as seq,
                arrayJoin(argMin(move.amounts, moves.seq)) as change
            from moves where has({live:Array(String)}, move.holder)
            group by holder, event_type, move.request
        )
        union all
        select argMin(events.holder, events.seq) as holder, min(events.seq) as seq,
            arrayJoin(arrayDistinct(argMin(events.accounts, events.seq))) as account,
            -greatest(argMin(hold_nano, events.seq), 0) as nano
        from events
        where events.seq <= {through:UInt64} and parked = ''
            and event_type = 'model.request.start'
            and stored_at >= fromUnixTimestamp64Micro({began:Int64}, 'UTC')
            and has({live:Array(String)}, events.holder)
        group by call_id
    )
)
where (holder, account) > ({holder:String}, {account:String})
group by holder, account having free > 0 order by holder, account limit {most:UInt64}
"""


async def opening(
    params: OpeningParams, projection: Projection, store: Store, as_of_seq: int
) -> Part:
    """One part of the state at a sequence. Raises StoreFailed."""
    through = params.through
    if params.part == "head":
        async with projection.at_rest:
            through = min(as_of_seq, await projection.contiguous_from(1))
    found = await projection.stored(through)
    if found is None or as_of_seq < through:
        return Part(0)
    at_us, raw = found
    asked = {
        "through": through,
        "after": params.after,
        "most": AT_ONCE,
        "outcomes": list(OUTCOME_TYPES),
        "terminals": list(TERMINAL_TYPES),
        "longest": at_us - _LONGEST_CALL_US,
        "silent": at_us - _LONGEST_SILENCE_US,
        "silent_before": at_us - 2 * _LONGEST_SILENCE_US,
        "since": at_us - params.kept * _SECOND_US,
    }
    if params.part == "head":
        ((read_from,),) = (await store.query(_OPEN + _READ_FROM, asked)).rows
        return Part(through, digest=sha256(raw).hexdigest(), read_from=read_from)
    return await _TELL[params.part](asked, store)


async def _accounts(asked: dict[str, Any], store: Store) -> Part:
    segment = asked["through"] // SEGMENT
    bounds = {"segment": segment, "low": segment * SEGMENT}
    rows = (await store.query(_ACCOUNTS, {**asked, **bounds})).rows
    accounts = tuple(AccountState(account, nano) for account, nano in rows)
    return Part(asked["through"], accounts=accounts, next=_next(rows, AT_ONCE))


async def _epochs(asked: dict[str, Any], store: Store) -> Part:
    rows = (await store.query(_EPOCHS, asked)).rows
    return Part(
        asked["through"], epochs={row[0]: row[1] for row in rows}, next=_next(rows, AT_ONCE)
    )


async def _warned(asked: dict[str, Any], store: Store) -> Part:
    told = int(asked["after"] or 0)
    rows = (await store.query(_WARNED, {**asked, "told": told, "remembered": REMEMBERED})).rows
    following = str(told + len(rows)) if len(rows) == AT_ONCE else None
    return Part(asked["through"], warned=tuple(row[0] for row in rows), next=following)


async def _free(asked: dict[str, Any], store: Store) -> Part:
    live = [holder for (holder,) in (await store.query(_LIVE, asked)).rows]
    holder, _, account = asked["after"].partition("\n")
    of_live = {"live": live, "began": _began_us(live), "holder": holder, "account": account}
    rows = (await store.query(_FREE, {**asked, **of_live})).rows
    free = tuple(Free(*row) for row in rows)
    following = f"{rows[-1][0]}\n{rows[-1][1]}" if len(rows) == AT_ONCE else None
    return Part(asked["through"], free=free, next=following)


def _began_us(holders: Sequence[str]) -> int:
    """A time before the first event of any of these: a holder's name is older than all it does, by
    its own clock."""
    return max(0, min(map(_made_us, holders), default=0) - _CLOCKS_DIFFER_US)


def _made_us(holder: str) -> int:
    made = made_us(holder)
    return 0 if made is None else made


async def _calls(asked: dict[str, Any], store: Store) -> Part:
    rows = (await store.query(_OPEN + _CALLS, {**asked, "most": CALLS_AT_ONCE})).rows
    return Part(
        asked["through"],
        calls=tuple(
            CallState(call_id, tuple(accounts), nano, tuple(taken))
            for call_id, accounts, nano, taken, _, _ in rows
        ),
        cost_nano={row[0]: row[5] for row in rows if row[4] and row[5]},
        next=_next(rows, CALLS_AT_ONCE),
    )


def _next(rows: Sequence[Sequence[Any]], at_once: int) -> str | None:
    return rows[-1][0] if len(rows) == at_once else None


_TELL: dict[Kind, Callable[[dict[str, Any], Store], Awaitable[Part]]] = {
    "accounts": _accounts,
    "epochs": _epochs,
    "warned": _warned,
    "free": _free,
    "calls": _calls,
}
