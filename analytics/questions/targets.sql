select
    provider,
    engine,
    sum(attempts * weight) as weighed,
    sum(rate_limits * weight),
    sum(timeouts * weight),
    sum(denials * weight),
    sum(failures * weight),
    sumMap(mapApply((bucket, count) -> (bucket, count * weight), first_byte)),
    sumMap(mapApply((bucket, count) -> (bucket, count * weight), total))
from
(
    -- As if all of a minute had happened in its middle.
    select *, exp2(-greatest({now:Int64} - 30 - toUnixTimestamp(minute), 0) / {half_life:Int64}) as weight
    from target_stats final
    where minute >= toDateTime({since:Int64}, 'UTC')
)
group by provider, engine
having weighed > 0
order by weighed desc, provider, engine
limit {most:UInt64}
