"""How a person sees in a terminal where a call would run."""

from compose import show
from ingress.route_pages import ConsideredTarget, RouteExplained

_COLUMNS = (
    "target", "model", "place", "USD", "quality", "first byte", "total", "errors", "region",
    "state", "why not",
)  # fmt: skip
_SPARE = ("region", "errors", "quality", "model")


def explained(found: RouteExplained, room: int | None) -> str:
    """The plan in a line each, and every target that was looked at in a table."""
    told = {
        "model": found.model,
        "strategy": found.strategy or "as configured",
        "plan": ", then ".join(found.targets) or "none: the call would be refused",
        "because": found.reason,
    }
    cells = [_row(one) for one in found.considered]
    table = show.table(_COLUMNS, cells, room, _SPARE) if cells else ""
    return f"{show.record(told)}\n{table}"


def _row(one: ConsideredTarget) -> list[str]:
    return [
        f"{one.provider}/{one.engine}",
        one.model,
        "" if one.place is None else str(one.place),
        "unknown" if one.cost_usd is None else f"{one.cost_usd:.9f}".rstrip("0").rstrip("."),
        "" if one.quality is None else str(one.quality),
        _milliseconds(one.first_byte_ms),
        _milliseconds(one.total_ms),
        "" if one.error_rate is None else f"{one.error_rate:.1%}",
        one.region or "",
        "broken" if one.broken else "",
        one.left or "",
    ]


def _milliseconds(time: float | None) -> str:
    return "" if time is None else f"{time:.0f} ms"
