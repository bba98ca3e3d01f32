select
    model,
    provider,
    sum(requests) as requests,
    sum(cost_nano) as cost_nano,
    sum(latency_us) as latency_us,
    sum(latency_count) as latency_count
from model_stats_hourly final
where hour >= toDateTime({start:Int64}, 'UTC') and hour < toDateTime({end:Int64}, 'UTC')
    and ({project:Nullable(String)} is null or project = {project:Nullable(String)})
    and ({key_id:Nullable(String)} is null or key_id = {key_id:Nullable(String)})
group by model, provider
order by model, provider
