"""The findings as text: Markdown tables, with what missed its figure said plainly."""

from collections.abc import Callable, Iterator

from tests.bench.findings import (
    MEGABYTE,
    Figure,
    Findings,
    Measure,
    added,
    figures,
    first,
    late,
    per_call_us,
    total,
)
from tests.bench.loads import LOADS, Load
from tests.bench.measure import Run, Sample
from tests.bench.stats import median

_UNKNOWN = "-"


def text(found: Findings) -> str:
    """The whole report."""
    parts = [
        _facts(found),
        _asked(found),
        _loads(found),
        _cpu(found),
        _added(found),
        _memory(found),
        _troubles(found),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(found: Findings) -> str:
    return "Machine: " + ", ".join(f"{name} {value}" for name, value in found.machine.items())


def _asked(found: Findings) -> str:
    header = ["figure", "asked", "stretch", "measured (median)", "runs from - to", "verdict"]
    return _table(header, [_asked_row(figure) for figure in figures(found)])


def _asked_row(figure: Figure) -> list[str]:
    bound = f"{'≥' if figure.least else '≤'} {{:g}} {figure.unit}".rstrip()
    span = f"{_number(figure.low)} - {_number(figure.high)}" if figure.low is not None else ""
    return [
        figure.name,
        bound.format(figure.asked),
        bound.format(figure.stretch),
        f"{_number(figure.measured)} {figure.unit if figure.measured is not None else ''}".rstrip(),
        span,
        figure.verdict,
    ]


def _loads(found: Findings) -> str:
    header = ["load", "target", "runs", "calls", "faults", "calls/s", "total ms p50 / p90 / p99",
              "first token ms p50 / p99", "chunk lateness ms p50 / p99"]  # fmt: skip
    rows = [_load_row(load.name, target, runs) for load, target, runs in _groups(found)]
    return _table(header, rows)


def _load_row(load: str, target: str, runs: list[Run]) -> list[str]:
    return [
        load,
        target,
        str(len(runs)),
        str(sum(run.outcome.calls for run in runs)),
        str(sum(sum(run.outcome.faults.values()) for run in runs)),
        _number(median(run.outcome.good / run.outcome.seconds for run in runs)),
        _spreads(runs, total, 50, 90, 99),
        _spreads(runs, first, 50, 99),
        _spreads(runs, late, 50, 99),
    ]


def _cpu(found: Findings) -> str:
    header = ["load", "target", "CPU µs per call", "to the floor", "by role, µs per call",
              "by role, µs per chunk", "upstream µs", "client µs", "other load, cores"]  # fmt: skip
    rows = [_cpu_row(found, load, target, runs) for load, target, runs in _groups(found)]
    return _table(header, rows)


def _cpu_row(found: Findings, load: Load, target: str, runs: list[Run]) -> list[str]:
    own = median(map(per_call_us, runs))
    floor = median(map(per_call_us, found.of(load.name, "floor")))
    return [
        load.name,
        target,
        _number(own),
        f"{own / floor:.1f}x" if own and floor else _UNKNOWN,
        _by_role(runs, lambda run: run.outcome.good),
        _by_role(runs, lambda run: run.outcome.chunks),
        _number(median(_share_us(run.upstream_ns, run.outcome.good) for run in runs)),
        _number(median(_share_us(run.outcome.cpu_ns, run.outcome.good) for run in runs)),
        _number(median(run.others for run in runs)),
    ]


def _by_role(runs: list[Run], parts: Callable[[Run], int]) -> str:
    shares = {
        role: median(_share_us(run.cpu_ns.get(role, 0), parts(run)) for run in runs)
        for role in sorted({role for run in runs for role in run.cpu_ns})
    }
    known = [f"{role} {_number(share)}" for role, share in shares.items() if share is not None]
    return ", ".join(known) or _UNKNOWN


def _share_us(nanoseconds: int, parts: int) -> float | None:
    return nanoseconds / parts / 1000 if parts else None


def _added(found: Findings) -> str:
    header = ["load", "added total ms p50 / p90 / p99", "added first token ms p50 / p99"]
    rows = [
        [
            load.name,
            _differences(found, load.name, total, 50, 90, 99),
            _differences(found, load.name, first, 50, 99),
        ]
        for load in LOADS
        if found.of(load.name) and found.of(load.name, "direct")
    ]
    return _table(header, rows) if rows else ""


def _memory(found: Findings) -> str:
    if found.idle is None and not found.soak:
        return ""
    samples: list[tuple[str, Sample]] = []
    if found.idle is not None:
        samples.append(("idle", Sample(0, found.idle.memory)))
    samples += [(f"after {sample.calls} calls", sample) for sample in found.soak]
    roles = sorted({role for _, sample in samples for role in sample.memory})
    rows = [[when, *(_resident(sample, role) for role in roles)] for when, sample in samples]
    if found.idle is not None:
        idle = found.idle.cpu_ms
        rows.append(["idle, CPU ms per s", *(_number(idle.get(role)) for role in roles)])
    return _table(["RSS / PSS, MB", *roles], rows)


def _troubles(found: Findings) -> str:
    lines: list[str] = []
    for run in found.runs:
        where = f"{run.load} against {run.target}, run {run.number + 1}"
        if run.outcome.faults:
            lines.append(f"- {where}: {run.outcome.faults}; the first: {run.outcome.first_fault!r}")
        if run.restarted:
            lines.append(f"- {where}: processes came or went, its CPU figures are not complete")
        if run.served is not None and run.served != run.outcome.calls:
            lines.append(
                f"- {where}: {run.outcome.calls} calls made, {run.served} came to the upstream"
            )
    return "Troubles:\n" + "\n".join(lines) if lines else "No trouble seen in any run."


def _groups(found: Findings) -> Iterator[tuple[Load, str, list[Run]]]:
    for load in LOADS:
        for target in ("direct", "floor", found.name):
            runs = found.of(load.name, target)
            if runs:
                yield load, target, runs


def _spreads(runs: list[Run], of: Measure, *percents: int) -> str:
    known = [spread for spread in (of(run.outcome) for run in runs) if spread is not None]
    return _joined([[spread.at(percent) for spread in known] for percent in percents])


def _differences(found: Findings, load: str, of: Measure, *percents: int) -> str:
    return _joined([added(found, load, of, percent) for percent in percents])


def _joined(columns: list[list[float]]) -> str:
    return " / ".join(_number(median(column)) for column in columns) if columns[0] else _UNKNOWN


def _resident(sample: Sample, role: str) -> str:
    memory = sample.memory.get(role)
    if memory is None:
        return _UNKNOWN
    return f"{memory.rss / MEGABYTE:.0f} / {memory.pss / MEGABYTE:.0f}"


def _number(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
