"""The statistics of a ledger computed the slow and obvious way, to compare projections with."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any, get_args

from schemas.event import Event
from schemas.events import Outcome, RequestCancelled, RequestComplete, Terminal
from tests.warehouse import Warehouse

Key = tuple[int, str, str, str, str, str]
MEASURES = (
    "requests",
    "errors",
    "cancelled",
    "unpriced",
    "input_tokens",
    "output_tokens",
    "cost_nano",
    "latency_us",
    "latency_count",
)


def fold(ledger: Iterable[tuple[int, Event]]) -> dict[Key, dict[str, int]]:
    """Totals by (hour, project, key, team, model, provider).

    The lowest sequence of several ends is the end; the same event stored again counts nothing.
    """
    totals: defaultdict[Key, Counter[str]] = defaultdict(Counter)
    seen: set[tuple[str, str]] = set()
    ended: set[str] = set()
    for _, event in sorted(ledger, key=lambda one: one[0]):
        hour = int(datetime.fromisoformat(event.time).timestamp()) // 3600 * 3600
        key = (hour, event.project, event.key_id, event.team, event.model, event.provider)
        total = totals[key]
        if not isinstance(event, Outcome):
            continue
        if event.call_id:
            if (event.call_id, event.event_id) in seen:
                continue
            seen.add((event.call_id, event.event_id))
        total["cost_nano"] += event.cost_nano or 0
        if event.usage is not None:
            total["input_tokens"] += event.usage.input
            total["output_tokens"] += event.usage.output
        if event.usage_status != "unknown" and event.cost_nano is None:
            total["unpriced"] += 1
        if isinstance(event, get_args(Terminal)) and event.call_id not in ended:
            if event.call_id:
                ended.add(event.call_id)
            total["requests"] += 1
            if isinstance(event, RequestCancelled):
                total["cancelled"] += 1
            elif not isinstance(event, RequestComplete):
                total["errors"] += 1
            elif event.latency_ms is not None:
                total["latency_us"] += round(event.latency_ms * 1000)
                total["latency_count"] += 1
    return {key: {name: total[name] for name in MEASURES} for key, total in totals.items()}


def spent(ledger: Iterable[tuple[int, Event]]) -> dict[str, tuple[int, int, int]]:
    """(nano-dollars, calls that ended, events without a known cost) by account."""
    totals: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    seen: set[tuple[str, str]] = set()
    ended: set[str] = set()
    for _, event in sorted(ledger, key=lambda one: one[0]):
        if not isinstance(event, Outcome):
            continue
        is_end = isinstance(event, get_args(Terminal)) and event.call_id not in ended
        if is_end and event.call_id:
            ended.add(event.call_id)
        if event.call_id and (event.call_id, event.event_id) in seen:
            is_end, cost, unpriced = False, 0, 0
        else:
            is_ours = event.billed_to != "client"
            cost = (event.cost_nano or 0) * is_ours
            unpriced = is_ours and event.usage_status != "unknown" and event.cost_nano is None
        seen.add((event.call_id, event.event_id))
        for account in dict.fromkeys(event.accounts):
            total = totals[account]
            total[0] += cost
            total[1] += is_end
            total[2] += unpriced
    return {account: (total[0], total[1], total[2]) for account, total in totals.items()}


async def projected_spend(warehouse: Warehouse) -> dict[str, tuple[int, int, int]]:
    """The same from the rollup."""
    rows: list[Any] = await warehouse.rows(
        "select account, sum(spent_nano), sum(requests), sum(unpriced) "
        "from budget_spend final group by account"
    )
    return {account: (int(cost), int(ended), int(dark)) for account, cost, ended, dark in rows}


async def projected(warehouse: Warehouse) -> dict[Key, dict[str, int]]:
    """The same from the rollup."""
    sums = ", ".join(f"sum({name})" for name in MEASURES)
    dimensions = "toUnixTimestamp(hour), project, key_id, team, model, provider"
    rows: list[Any] = await warehouse.rows(
        f"select {dimensions}, {sums} from model_stats_hourly final group by {dimensions}"
    )
    return {tuple(row[:6]): dict(zip(MEASURES, row[6:], strict=True)) for row in rows}
