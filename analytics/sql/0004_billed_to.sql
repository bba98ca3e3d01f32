-- Who pays the provider: `client` where an attempt was made with the client's own key, else empty.
alter table events $on_cluster add column if not exists billed_to LowCardinality(String) after price_id;

-- What users' SQL sees, under the names `events` and `calls`.
create or replace view public_events $on_cluster as
select
    seq, event_id, event_type, ts, role, call_id, key_id, project, team, user, app, model, provider,
    engine, operation, stream,
    input_tokens, cached_input_tokens, cache_write_tokens, audio_input_tokens, image_input_tokens,
    output_tokens, reasoning_tokens, audio_output_tokens, image_output_tokens, usage_status,
    cost_nano, input_cost_nano, output_cost_nano, cache_savings_nano, toDecimal128(cost_nano, 9) / 1000000000 as cost_usd,
    price_id, billed_to, latency_ms, ttfb_ms, network_ms, attempts,
    status, error_type, error_code, error_message, finish_reason, reason
from events final
where parked = '' and seq not in (select seq from repeats final where copy);

-- One row per call that ended: how its end went, and what all its attempts used and cost.
-- `billed_to` is of the attempt that ended it; where others were billed elsewhere, `events` tells.
create or replace view public_calls $on_cluster as
select
    finished.call_id as call_id,
    finished.seq as seq,
    finished.ts as ts,
    substring(finished.event_type, length('model.request.') + 1) as outcome,
    finished.key_id as key_id,
    finished.project as project,
    finished.team as team,
    finished.user as user,
    finished.app as app,
    finished.model as model,
    finished.provider as provider,
    finished.engine as engine,
    finished.operation as operation,
    finished.stream as stream,
    finished.usage_status as usage_status,
    finished.input_tokens + finished.cached_input_tokens + finished.cache_write_tokens
        + finished.audio_input_tokens + finished.image_input_tokens
        + ifNull(earlier.prompt_tokens, 0) as prompt_tokens,
    finished.output_tokens + finished.reasoning_tokens + finished.audio_output_tokens
        + finished.image_output_tokens + ifNull(earlier.completion_tokens, 0) as completion_tokens,
    if(finished.cost_nano is null and earlier.cost_nano is null, null,
        ifNull(finished.cost_nano, 0) + ifNull(earlier.cost_nano, 0)) as cost_nano,
    toDecimal128(cost_nano, 9) / 1000000000 as cost_usd,
    finished.billed_to as billed_to,
    finished.latency_ms as latency_ms,
    finished.ttfb_ms as ttfb_ms,
    finished.network_ms as network_ms,
    finished.attempts as attempts,
    if(outcome = 'complete', 200, finished.status) as status,
    finished.error_type as error_type,
    finished.error_code as error_code,
    finished.error_message as error_message,
    finished.finish_reason as finish_reason
from
(
    select * from events final
    where parked = '' and call_id != '' and startsWith(event_type, 'model.request.')
        and event_type != 'model.request.start'
        and seq not in (select seq from repeats final)
) as finished
left join
(
    select
        call_id,
        sum(cost_nano) as cost_nano,
        sum(input_tokens + cached_input_tokens + cache_write_tokens + audio_input_tokens
            + image_input_tokens) as prompt_tokens,
        sum(output_tokens + reasoning_tokens + audio_output_tokens + image_output_tokens)
            as completion_tokens
    from events final
    where parked = '' and call_id != ''
        and (startsWith(event_type, 'model.attempt.')
            or seq in (select seq from repeats final where not copy))
        and seq not in (select seq from repeats final where copy)
    group by call_id
) as earlier using call_id;
