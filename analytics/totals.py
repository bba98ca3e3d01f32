"""What the database holds of each account up to one sequence, for whoever verifies it."""

from typing import Any

from analytics.accounts import Spent, Totals, TotalsParams
from analytics.projection import Projection
from analytics.rows import OUTCOME_TYPES
from analytics.store import Store

ACCOUNTS_AT_ONCE = 10_000

# Both at one sequence: what later events of the same segments add to the rollup is taken off it.
_SPENT = """
select account, sum(of_events), sum(of_rollup) from
(
    select
        account,
        ifNull(sumIf(cost_nano, seq <= {through:UInt64}), 0) as of_events,
        -ifNull(sumIf(cost_nano, seq > {through:UInt64}), 0) as of_rollup
    from
    (
        select arrayJoin(arrayDistinct(accounts)) as account, seq, cost_nano from events final
        where parked = '' and event_type in {outcomes:Array(String)} and billed_to != 'client'
            and seq not in (select seq from repeats final where copy)
    )
    group by account
    union all
    select account, 0, sum(spent_nano) from budget_spend final group by account
)
where account > {after:String}
group by account order by account limit {most:UInt64}
"""
_STORED = """
select countIf(seq <= {through:UInt64}), uniqExactIf(seq, seq <= {through:UInt64}), max(seq)
from (select seq from events final)
"""


async def totals(
    params: TotalsParams, projection: Projection, store: Store, as_of_seq: int
) -> Totals:
    """The totals at a sequence. Raises StoreFailed."""
    through = params.through
    if as_of_seq < through:
        return Totals(through, as_of_seq)
    asked: dict[str, Any] = {
        "through": through,
        "after": params.after,
        "most": ACCOUNTS_AT_ONCE,
        "outcomes": list(OUTCOME_TYPES),
    }
    async with projection.at_rest:
        found = (await store.query(_SPENT, asked)).rows
        ((rows, sequences, highest),) = (await store.query(_STORED, {"through": through})).rows
        reached = await projection.contiguous_from(1)
    return Totals(
        through,
        as_of_seq,
        rows=rows,
        sequences=sequences,
        first_missing=reached + 1 if reached < through else None,
        highest=highest,
        accounts=tuple(Spent(*row) for row in found),
        next=found[-1][0] if len(found) == ACCOUNTS_AT_ONCE else None,
    )
