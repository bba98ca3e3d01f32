insert into model_stats_hourly
select
    toStartOfHour(ts) as hour,
    project,
    key_id,
    team,
    model,
    provider,
    {segment:UInt64},
    countIf(ends),
    countIf(ends and event_type in ('model.request.failed', 'model.request.rejected', 'model.request.lost')),
    countIf(ends and event_type = 'model.request.cancelled'),
    countIf(counts and usage_status in ('reported', 'estimated') and cost_nano is null),
    sumIf(input_tokens, counts),
    sumIf(cached_input_tokens, counts),
    sumIf(cache_write_tokens, counts),
    sumIf(audio_input_tokens, counts),
    sumIf(image_input_tokens, counts),
    sumIf(output_tokens, counts),
    sumIf(reasoning_tokens, counts),
    sumIf(audio_output_tokens, counts),
    sumIf(image_output_tokens, counts),
    ifNull(sumIf(cost_nano, counts), 0),
    ifNull(sumIf(input_cost_nano, counts), 0),
    ifNull(sumIf(output_cost_nano, counts), 0),
    sumIf(cache_savings_nano, counts),
    ifNull(sumIf(toInt64(round(latency_ms * 1000)), completes), 0),
    countIf(completes and latency_ms is not null),
    ifNull(sumIf(toInt64(round(ttfb_ms * 1000)), completes), 0),
    countIf(completes and ttfb_ms is not null),
    {version:UInt64} * 4294967296 + count() + countIf(second_end) + 2 * countIf(copy) as ver
from
(
    select
        *,
        seq in (select seq from repeats final where not copy and seq >= {low:UInt64} and seq < {high:UInt64}) as second_end,
        seq in (select seq from repeats final where copy and seq >= {low:UInt64} and seq < {high:UInt64}) as copy,
        event_type in {outcomes:Array(String)} and not copy as counts,
        event_type in {terminals:Array(String)} and not copy and not second_end as ends,
        ends and event_type = 'model.request.complete' as completes
    from events final
    where seq >= {low:UInt64} and seq < {high:UInt64} and parked = ''
        and event_type in {calls:Array(String)}
)
group by hour, project, key_id, team, model, provider
