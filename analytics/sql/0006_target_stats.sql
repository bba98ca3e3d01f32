-- How targets fared, by minute. Each row is a pure function of one segment of the ledger ($segment
-- sequences), so computing it again changes nothing; read it with FINAL and sum. Latencies are
-- counted in eight buckets for each doubling of the milliseconds (`analytics/latencies.py`): unlike
-- a sketch, counts add up to the same whatever the order.
create table if not exists target_stats $on_cluster
(
    minute DateTime('UTC'),
    provider LowCardinality(String),
    engine LowCardinality(String),
    segment UInt64,
    attempts Int64 comment 'those that the target answered or failed',
    rate_limits Int64 comment 'of these refused for being too many',
    timeouts Int64,
    denials Int64 comment 'refused for the credentials of the gateway',
    failures Int64 comment 'failed in any other way',
    first_byte Map(Int16, UInt64) comment 'from the request to the first byte, by bucket',
    total Map(Int16, UInt64) comment 'from the request to the end, by bucket',
    ver UInt64
)
engine = $replacing(ver)
partition by toYYYYMM(minute)
order by (minute, provider, engine, segment)
settings fsync_after_insert = 1, fsync_part_directory = 1;

-- What the administrator's SQL sees, under the name `target_stats`. The milliseconds are the middles
-- of buckets, right to 5 %; null where no attempt was answered.
create or replace view public_target_stats $on_cluster as
select
    minute,
    provider,
    engine,
    sum(stats.attempts) as attempts,
    sum(stats.rate_limits) as rate_limits,
    sum(stats.timeouts) as timeouts,
    sum(stats.denials) as denials,
    sum(stats.failures) as failures,
    if(empty(sumMap(stats.first_byte)), null, exp2((arrayReduce('quantileExactWeighted(0.50)',
        mapKeys(sumMap(stats.first_byte)), mapValues(sumMap(stats.first_byte))) + 0.5) / 8)) as first_byte_p50_ms,
    if(empty(sumMap(stats.first_byte)), null, exp2((arrayReduce('quantileExactWeighted(0.95)',
        mapKeys(sumMap(stats.first_byte)), mapValues(sumMap(stats.first_byte))) + 0.5) / 8)) as first_byte_p95_ms,
    if(empty(sumMap(stats.total)), null, exp2((arrayReduce('quantileExactWeighted(0.50)',
        mapKeys(sumMap(stats.total)), mapValues(sumMap(stats.total))) + 0.5) / 8)) as total_p50_ms,
    if(empty(sumMap(stats.total)), null, exp2((arrayReduce('quantileExactWeighted(0.95)',
        mapKeys(sumMap(stats.total)), mapValues(sumMap(stats.total))) + 0.5) / 8)) as total_p95_ms
from target_stats as stats final
group by minute, provider, engine;
