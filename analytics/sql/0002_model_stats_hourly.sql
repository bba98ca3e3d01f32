-- What calls used and cost, by hour. Each row is a pure function of one segment of the ledger
-- ($segment sequences), so computing it again changes nothing; read it with FINAL and sum.
create table if not exists model_stats_hourly $on_cluster
(
    hour DateTime('UTC'),
    project LowCardinality(String),
    key_id LowCardinality(String),
    team LowCardinality(String),
    model LowCardinality(String),
    provider LowCardinality(String),
    segment UInt64,
    requests Int64 comment 'calls that ended',
    errors Int64 comment 'of these failed, rejected or lost',
    cancelled Int64,
    unpriced Int64 comment 'events with usage but without a known cost',
    input_tokens Int64,
    cached_input_tokens Int64,
    cache_write_tokens Int64,
    audio_input_tokens Int64,
    image_input_tokens Int64,
    output_tokens Int64,
    reasoning_tokens Int64,
    audio_output_tokens Int64,
    image_output_tokens Int64,
    cost_nano Int64,
    input_cost_nano Int64,
    output_cost_nano Int64,
    cache_savings_nano Int64,
    latency_us Int64 comment 'sum over the calls that completed',
    latency_count Int64,
    ttfb_us Int64,
    ttfb_count Int64,
    ver UInt64
)
engine = $replacing(ver)
partition by toYYYYMM(hour)
order by (hour, project, key_id, team, model, provider, segment)
settings fsync_after_insert = 1, fsync_part_directory = 1;
