-- The ledger as rows. Written blindly and as often as redelivery wants: a sequence is one row once
-- merged, so read it with FINAL. Every insert is synced to disk before its messages are acked.
create table if not exists events $on_cluster
(
    seq UInt64 codec(Delta(8), ZSTD(1)),
    event_id UUID,
    event_type LowCardinality(String),
    ts DateTime64(6, 'UTC') codec(Delta(8), ZSTD(1)),
    stored_at DateTime64(6, 'UTC') codec(Delta(8), ZSTD(1)),
    role LowCardinality(String),
    call_id String codec(ZSTD(1)),
    key_id LowCardinality(String),
    project LowCardinality(String),
    team LowCardinality(String),
    user LowCardinality(String),
    app LowCardinality(String),
    model LowCardinality(String),
    provider LowCardinality(String),
    engine LowCardinality(String),
    operation LowCardinality(String),
    stream Bool,
    input_tokens Int64 codec(T64, ZSTD(1)),
    cached_input_tokens Int64 codec(T64, ZSTD(1)),
    cache_write_tokens Int64 codec(T64, ZSTD(1)),
    audio_input_tokens Int64 codec(T64, ZSTD(1)),
    image_input_tokens Int64 codec(T64, ZSTD(1)),
    output_tokens Int64 codec(T64, ZSTD(1)),
    reasoning_tokens Int64 codec(T64, ZSTD(1)),
    audio_output_tokens Int64 codec(T64, ZSTD(1)),
    image_output_tokens Int64 codec(T64, ZSTD(1)),
    usage_status LowCardinality(String),
    cost_nano Nullable(Int64) codec(T64, ZSTD(1)),
    input_cost_nano Nullable(Int64) codec(T64, ZSTD(1)),
    output_cost_nano Nullable(Int64) codec(T64, ZSTD(1)),
    cache_savings_nano Int64 codec(T64, ZSTD(1)),
    price_id LowCardinality(String),
    latency_ms Nullable(Float64) codec(ZSTD(1)),
    ttfb_ms Nullable(Float64) codec(ZSTD(1)),
    network_ms Nullable(Float64) codec(ZSTD(1)),
    attempts Int64 codec(T64, ZSTD(1)),
    fence Array(Int64) codec(ZSTD(1)),
    corrects Int64 codec(T64, ZSTD(1)),
    status Nullable(Int64) codec(T64, ZSTD(1)),
    error_type LowCardinality(String),
    error_code LowCardinality(String),
    error_message String codec(ZSTD(1)),
    finish_reason LowCardinality(String),
    reason LowCardinality(String),
    parked LowCardinality(String) comment 'why this is no event that counts; empty for one that does',
    raw String codec(ZSTD(1)),
    index by_time ts type minmax granularity 1,
    index by_call call_id type minmax granularity 1
)
engine = $replacing
partition by toYYYYMM(ts)
order by seq
settings fsync_after_insert = 1, fsync_part_directory = 1;

-- Events of a call that must not count again. A copy is the same event stored twice and counts
-- nothing; any other is a second end of its call and counts as a late attempt: money, no request.
create table if not exists repeats $on_cluster
(
    seq UInt64,
    copy UInt8
)
engine = $replacing(copy)
order by seq
settings fsync_after_insert = 1, fsync_part_directory = 1;
