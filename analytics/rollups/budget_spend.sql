insert into budget_spend
select
    account,
    {segment:UInt64},
    ifNull(sumIf(cost_nano, not copy and billed_to != 'client'), 0),
    countIf(event_type in {terminals:Array(String)} and not copy and not second_end),
    countIf(not copy and billed_to != 'client' and usage_status in ('reported', 'estimated') and cost_nano is null),
    {version:UInt64} * 4294967296 + count() + countIf(second_end) + 2 * countIf(copy) as ver
from
(
    select
        arrayJoin(arrayDistinct(accounts)) as account,
        event_type,
        cost_nano,
        billed_to,
        usage_status,
        seq in (select seq from repeats final where not copy and seq >= {low:UInt64} and seq < {high:UInt64}) as second_end,
        seq in (select seq from repeats final where copy and seq >= {low:UInt64} and seq < {high:UInt64}) as copy
    from events final
    where seq >= {low:UInt64} and seq < {high:UInt64} and parked = ''
        and event_type in {outcomes:Array(String)}
)
group by account
