"""All that a benchmark found, and the figures asked for judged by it."""

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from tests.bench.adapters import BASE, Adapter
from tests.bench.admission import Admission
from tests.bench.balance import Balance
from tests.bench.budgets import Decisions
from tests.bench.keys import Keys
from tests.bench.loads import Outcome
from tests.bench.measure import Idle, Run, Sample
from tests.bench.rates import BURST, LIMIT, Admitted
from tests.bench.routes import MODELS, Planned
from tests.bench.stats import Spread, median

MEGABYTE = 1_000_000
FLAT_AFTER = 0.2
"""The part of the calls of a soak that may still fill caches before memory has to be flat."""

Verdict = Literal["stretch", "met", "MISSED", "not measured"]


Measure = Callable[[Outcome], Spread | None]


def total(outcome: Outcome) -> Spread | None:
    """How long whole answers took."""
    return outcome.total


def first(outcome: Outcome) -> Spread | None:
    """How long the first token took."""
    return outcome.first


def late(outcome: Outcome) -> Spread | None:
    """How late chunks came."""
    return outcome.late


class Findings(msgspec.Struct):
    """The raw results; `name` is the gateway's name among the targets of the runs."""

    name: str
    machine: dict[str, str | int | float]
    starts: list[float] = msgspec.field(default_factory=list[float])
    idle: Idle | None = None
    soak: list[Sample] = msgspec.field(default_factory=list[Sample])
    adapters: list[Adapter] = msgspec.field(default_factory=list[Adapter])
    keys: Keys | None = None
    admission: Admission | None = None
    budgets: list[Decisions] = msgspec.field(default_factory=list[Decisions])
    rates: list[Admitted] = msgspec.field(default_factory=list[Admitted])
    balance: Balance | None = None
    routes: list[Planned] = msgspec.field(default_factory=list[Planned])
    runs: list[Run] = msgspec.field(default_factory=list[Run])

    def of(self, load: str, target: str | None = None) -> list[Run]:
        """The runs of a load against a target (the gateway unless named)."""
        wanted = (load, target or self.name)
        return [run for run in self.runs if (run.load, run.target) == wanted]


class Figure(msgspec.Struct, frozen=True):
    """One figure asked for: the median of what was measured, and its range over the runs.

    Smaller is better, except where `least` is asked for.
    """

    name: str
    unit: str
    asked: float
    stretch: float
    measured: float | None
    low: float | None
    high: float | None
    least: bool = False

    @property
    def verdict(self) -> Verdict:
        """How the measured value compares."""
        if self.measured is None:
            return "not measured"
        if self._reaches(self.measured, self.stretch):
            return "stretch"
        return "met" if self._reaches(self.measured, self.asked) else "MISSED"

    def _reaches(self, measured: float, bound: float) -> bool:
        return measured >= bound if self.least else measured <= bound


def per_call_us(run: Run) -> float | None:
    """Processor time per good reply, over the roles that count, in µs."""
    counted = run.counted_ns()
    return counted / run.outcome.good / 1000 if counted is not None and run.outcome.good else None


def figures(found: Findings) -> list[Figure]:
    """The figures asked for, each beside what was measured."""
    stream_ms = [
        us / 1000 if us is not None else None for us in map(per_call_us, found.of("stream16"))
    ]
    slow = (late(run.outcome) for run in found.of("slow200"))
    lateness = [spread.p99 for spread in slow if spread is not None]
    return [
        _figure("unary16: CPU per call", "µs", 900, 600, map(per_call_us, found.of("unary16"))),
        _figure("stream16: CPU per stream of 100 chunks", "ms", 3, 2, stream_ms),
        _figure("unary1: added p50", "ms", 2.5, 1.5, added(found, "unary1", total, 50)),
        _figure("unary1: added p99", "ms", 10, 5, added(found, "unary1", total, 99)),
        _figure("slow200: added time to first token p50", "ms", 20, 5,
                added(found, "slow200", first, 50)),
        _figure("slow200: chunk lateness p99", "ms", 60, 20, lateness),
        _figure("idle memory of ingress + worker", "MB", 150, 110, [_idle_memory(found)]),
        _figure("memory growth over the soak", "%", 5, 2, [growth(found)]),
        _figure("start to first answer", "s", 5, 3, found.starts),
        *_of_adapters(found.adapters),
        *_of_keys(found.keys),
        *_of_admission(found.admission),
        *[figure for decisions in found.budgets for figure in _of_budgets(decisions)],
        *[figure for admitted in found.rates for figure in _of_rates(admitted)],
        *_of_balance(found.balance),
        *[_of_route(planned) for planned in found.routes],
        _figure("replies wrong, lost or reordered", "", 0, 0, [_faults(found)]),
    ]  # fmt: skip


def _of_adapters(found: list[Adapter]) -> list[Figure]:
    """What each adapter costs more than the openai one in the same round."""
    base = next((one for one in found if one.name == BASE), None)
    if base is None:
        return []
    return [
        figure
        for one in found
        if one is not base
        for figure in (
            _figure(f"{one.name} over {BASE}: CPU of a call", "µs", 60, 30,
                    _more_us(one.text_ns, base.text_ns)),
            _figure(f"{one.name} over {BASE}: CPU of a call with tools", "µs", 60, 30,
                    _more_us(one.tools_ns, base.tools_ns)),
            _figure(f"{one.name} over {BASE}: CPU of a chunk", "µs", 10, 5,
                    _more_us(one.chunk_ns, base.chunk_ns)),
        )
    ]  # fmt: skip


def _more_us(these: list[float], those: list[float]) -> list[float]:
    return [(one - other) / 1e3 for one, other in zip(these, those, strict=True)]


def _of_keys(keys: Keys | None) -> list[Figure]:
    if keys is None:
        return []
    many = f"{keys.count} keys"
    return [
        _figure(f"{many}: ingress ready after its start", "s", 3, 2, keys.ready_s),
        _figure(f"{many}: memory of an ingress", "MB", 150, 130, _megabytes(keys.rss)),
        _figure(f"{many}: CPU of a look-up", "µs", 10, 5, [keys.cold_ns / 1e3]),
        _figure(f"{many}: CPU of the same look-up again", "µs", 10, 3, [keys.warm_ns / 1e3]),
        _figure("a revoked key refused by four ingresses", "ms", 1000, 500, keys.revoked_ms),
    ]


def _of_admission(found: Admission | None) -> list[Figure]:
    if found is None:
        return []
    half = found.times.p50 * 1e3 if found.times is not None else None
    return [
        _figure("admission with a key, a budget and a limit: CPU", "µs", 150, 50,
                [found.guarded_ns / 1e3]),
        _figure("admission with a key alone: CPU", "µs", 150, 50, [found.plain_ns / 1e3]),
        _figure("admission with a key, a budget and a limit: time p50", "µs", 150, 50, [half]),
    ]  # fmt: skip


def _of_budgets(found: Decisions) -> list[Figure]:
    of = "one budget" if found.budgets == 1 else f"{found.budgets} budgets at once"
    times = found.times
    half, most = (times.p50 * 1e3, times.p99 * 1e3) if times is not None else (None, None)
    return [
        _figure(f"{of}: decisions of four ingresses", "/s", 15_000, 30_000, [found.per_second],
                least=True),
        _figure(f"{of}: CPU of a decision", "µs", 15, 8, [found.cpu_ns / 1e3]),
        _figure(f"{of}: time of a decision p50", "µs", 15, 5, [half]),
        _figure(f"{of}: time of a decision p99", "µs", 5000, 100, [most]),
    ]  # fmt: skip


def _of_rates(found: Admitted) -> list[Figure]:
    """The most that is allowed is not a goal: more is wrong."""
    of = f"one limit of {LIMIT:,}/s, {max(found.parts):.0%} asked at one of four ingresses"
    return [
        _figure(f"{of}: admitted", "/s", 0.97 * LIMIT, 0.99 * LIMIT, [found.per_second],
                least=True),
        _figure(f"{of}: most in any second", "", LIMIT + BURST, LIMIT + BURST,
                [found.most_in_a_second]),
    ]  # fmt: skip


def _of_balance(found: Balance | None) -> list[Figure]:
    if found is None:
        return []
    better = found.in_turn.p95 / found.balanced.p95
    return [
        _figure("one deployment of three ten times slower: p95 in turn over balanced", "times",
                2, 5, [better], least=True),
        _figure("CPU of a choice among three deployments", "µs", 5, 3, [found.choice_ns / 1e3]),
    ]  # fmt: skip


def _of_route(found: Planned) -> Figure:
    of = f"{MODELS:,} models, asked for {found.asked}"
    return _figure(f"{of}: CPU of a plan", "µs", 30, 15, [found.each_ns / 1e3])


def _megabytes(sizes: Iterable[int]) -> list[float]:
    return [size / MEGABYTE for size in sizes]


def added(found: Findings, load: str, of: Measure, percent: int) -> list[float]:
    """What the gateway adds, run by run: a percentile of each run less the direct one beside it."""
    direct = {run.number: of(run.outcome) for run in found.of(load, "direct")}
    pairs = ((of(run.outcome), direct.get(run.number)) for run in found.of(load))
    return [
        with_it.at(percent) - without.at(percent)
        for with_it, without in pairs
        if with_it is not None and without is not None
    ]


def _figure(
    name: str,
    unit: str,
    asked: float,
    stretch: float,
    values: Iterable[float | None],
    least: bool = False,
) -> Figure:
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (None, None)
    return Figure(name, unit, asked, stretch, median(known), low, high, least)


def resident(sample: Sample | Idle, roles: tuple[str, ...] = ("ingress", "worker")) -> int | None:
    """Resident bytes of some roles together; None when one of them is not there."""
    if any(role not in sample.memory for role in roles):
        return None
    return sum(sample.memory[role].rss for role in roles)


def _idle_memory(found: Findings) -> float | None:
    rss = resident(found.idle) if found.idle is not None else None
    return rss / MEGABYTE if rss is not None else None


def growth(found: Findings) -> float | None:
    """Growth of ingress + worker over a soak once its first part is over, in percent."""
    if not found.soak:
        return None
    settled = next(s for s in found.soak if s.calls >= found.soak[-1].calls * FLAT_AFTER)
    before, after = resident(settled), resident(found.soak[-1])
    return (after / before - 1) * 100 if before and after is not None else None


def _faults(found: Findings) -> float | None:
    runs = [run for run in found.runs if run.target == found.name]
    return float(sum(sum(run.outcome.faults.values()) for run in runs)) if runs else None
