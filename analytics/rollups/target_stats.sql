insert into target_stats
select
    toStartOfMinute(ts) as minute,
    provider,
    engine,
    {segment:UInt64},
    countIf(counts),
    countIf(fault = 'rate_limits'),
    countIf(fault = 'timeouts'),
    countIf(fault = 'denials'),
    countIf(fault = 'failures'),
    sumMapIf(map(toInt16(floor(log2(greatest(first_byte_ms, 0.0625)) * 8)), toUInt64(1)), timed),
    sumMapIf(map(toInt16(floor(log2(greatest(total_ms, 0.0625)) * 8)), toUInt64(1)), timed),
    {version:UInt64} * 4294967296 + count() + countIf(second_end) + 2 * countIf(copy) as ver
from
(
    select
        ts,
        provider,
        engine,
        seq in (select seq from repeats final where not copy and seq >= {low:UInt64} and seq < {high:UInt64}) as second_end,
        seq in (select seq from repeats final where copy and seq >= {low:UInt64} and seq < {high:UInt64}) as copy,
        ifNull(network_ms, 0) as first_byte_ms,
        ifNull(latency_ms - ttfb_ms + network_ms, 0) as total_ms,
        not copy and event_type = 'model.request.complete' as answered,
        answered and latency_ms - ttfb_ms + network_ms is not null as timed,
        multiIf(
            copy or answered or error_type in ('', 'server_error', 'invalid_request_error')
                or error_code in ('queue_full', 'budget_exceeded', 'provider_key_missing')
                or (billed_to = 'client' and error_type in ('authentication_error', 'rate_limit_error')), '',
            error_type = 'rate_limit_error', 'rate_limits',
            error_code = 'timeout', 'timeouts',
            error_code = 'provider_auth', 'denials',
            'failures') as fault,
        answered or fault != '' or (not copy and error_type = 'invalid_request_error') as counts
    from events final
    where seq >= {low:UInt64} and seq < {high:UInt64} and parked = '' and provider != ''
        and event_type in ('model.request.complete', 'model.request.failed', 'model.attempt.failed')
)
group by minute, provider, engine
