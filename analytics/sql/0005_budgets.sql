-- What a call is charged to, what was held for it and by whom; of a movement of leases, the accounts
-- that it moves.
alter table events $on_cluster
    add column if not exists accounts Array(String) codec(ZSTD(1)) after billed_to,
    add column if not exists holder LowCardinality(String) after accounts,
    add column if not exists hold_nano Int64 codec(T64, ZSTD(1)) after holder,
    add column if not exists prompt_estimate Int64 codec(T64, ZSTD(1)) after hold_nano;

-- What calls cost, by the account that pays. Each row is a pure function of one segment of the ledger
-- ($segment sequences), so computing it again changes nothing; read it with FINAL and sum.
create table if not exists budget_spend $on_cluster
(
    account String codec(ZSTD(1)),
    segment UInt64,
    spent_nano Int64 comment 'without what clients paid with keys of their own',
    requests Int64 comment 'calls that ended',
    unpriced Int64 comment 'events with usage but without a known cost',
    ver UInt64
)
engine = $replacing(ver)
order by (account, segment)
settings fsync_after_insert = 1, fsync_part_directory = 1;

-- What users' SQL sees, under the name `events`.
create or replace view public_events $on_cluster as
select
    seq, event_id, event_type, ts, role, call_id, key_id, project, team, user, app, model, provider,
    engine, operation, stream,
    input_tokens, cached_input_tokens, cache_write_tokens, audio_input_tokens, image_input_tokens,
    output_tokens, reasoning_tokens, audio_output_tokens, image_output_tokens, usage_status,
    cost_nano, input_cost_nano, output_cost_nano, cache_savings_nano, toDecimal128(cost_nano, 9) / 1000000000 as cost_usd,
    price_id, billed_to, accounts, holder, hold_nano, prompt_estimate, latency_ms, ttfb_ms, network_ms, attempts,
    status, error_type, error_code, error_message, finish_reason, reason
from events final
where parked = '' and seq not in (select seq from repeats final where copy);

-- What the administrator's SQL sees, under the name `budget_spend`: one row per account.
create or replace view public_budget_spend $on_cluster as
select
    account,
    substring(account, 1, length(account) - position(reverse(account), '@')) as budget,
    sum(spent_nano) as cost_nano,
    toDecimal128(cost_nano, 9) / 1000000000 as cost_usd,
    sum(budget_spend.requests) as requests,
    sum(budget_spend.unpriced) as unpriced
from budget_spend final
group by account;
