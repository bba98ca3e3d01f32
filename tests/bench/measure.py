"""Measuring: one load against one target, idle memory, and memory over many calls."""

import time

import msgspec

from tests.bench import meter, services
from tests.bench.loads import UNARY_16, Load, Outcome, Target
from tests.bench.meter import Memory, Meter

_SETTLE = 0.3
_SOAK_PARTS = 10
_SOAK_RATE_BOUND = 50.0


class Run(msgspec.Struct, frozen=True):
    """One run of one load against one target.

    `cpu_ns` is processor time by role of the target, `upstream_ns` that of the upstream. `served`
    are the calls that reached the upstream; None when it was not involved. `others` is how many
    processors' worth of time was used by what is no part of the run.
    """

    load: str
    target: str
    number: int
    outcome: Outcome
    cpu_ns: dict[str, int]
    upstream_ns: int
    served: int | None
    others: float
    restarted: bool

    def counted_ns(self) -> int | None:
        """Processor time of the roles that count; None when no process was named."""
        counted = {role: ns for role, ns in self.cpu_ns.items() if role not in meter.BESIDE}
        return sum(counted.values()) if counted else None


class Idle(msgspec.Struct, frozen=True):
    """A target at rest: resident memory and processor milliseconds per second, by role."""

    memory: dict[str, Memory]
    cpu_ms: dict[str, float]


class Sample(msgspec.Struct, frozen=True):
    """Resident memory by role after so many calls."""

    calls: int
    memory: dict[str, Memory]


class Place(msgspec.Struct, frozen=True):
    """A target with a name, and the processes that make it up."""

    name: str
    target: Target
    meter: Meter
    uses_upstream: bool = True


def run(load: Load, place: Place, upstream: services.Service, number: int) -> Run:
    """Run `load` once. What the target still does just after the last reply is counted too."""
    attack = services.Attack(load, place.target)
    mock = Meter({upstream.pid: "upstream"})
    try:
        served, busy = services.served(upstream.url), meter.machine_busy_ns()
        before, mock_before, own = place.meter.read(), mock.read(), time.process_time_ns()
        started = time.monotonic()
        outcome = attack.run()
        time.sleep(_SETTLE)
        after, mock_after = place.meter.read(), mock.read()
        own = time.process_time_ns() - own
        busy = meter.machine_busy_ns() - busy
        seconds = time.monotonic() - started
        served_now = services.served(upstream.url)
    finally:
        attack.close()
    cpu = after.since(before)
    upstream_ns = sum(mock_after.since(mock_before).values())
    ours = sum(cpu.values()) + upstream_ns + outcome.cpu_ns + own
    return Run(
        load=load.name,
        target=place.name,
        number=number,
        outcome=outcome,
        cpu_ns=cpu,
        upstream_ns=upstream_ns,
        served=served_now.calls - served.calls if place.uses_upstream else None,
        others=max(0.0, (busy - ours) / 1e9 / seconds),
        restarted=after.restarted(before),
    )


def idle(place: Place, seconds: float) -> Idle:
    """Leave the target alone for a while and look at it."""
    before = place.meter.read()
    time.sleep(seconds)
    used = place.meter.read().since(before)
    return Idle(place.meter.memory(), {role: ns / 1e6 / seconds for role, ns in used.items()})


def soak(place: Place, upstream: services.Service, calls: int) -> tuple[list[Sample], list[Run]]:
    """Make `calls` unary calls on 16 connections; memory before, and after each tenth of them."""
    samples = [Sample(0, place.meter.memory())]
    runs: list[Run] = []
    part = max(calls // _SOAK_PARTS, 1)
    load = msgspec.structs.replace(
        UNARY_16, name="soak", calls=part, seconds=part / _SOAK_RATE_BOUND + 1, warmup=0
    )
    for number in range(_SOAK_PARTS):
        runs.append(run(load, place, upstream, number))
        made = samples[-1].calls + runs[-1].outcome.calls
        samples.append(Sample(made, place.meter.memory()))
    return samples, runs
