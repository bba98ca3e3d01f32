"""The loads of the benchmark, as data, and what one run of a load found."""

import msgspec

from tests.bench.stats import Spread


class Load(msgspec.Struct, frozen=True):
    """One way of calling a gateway.

    `rate` 0 is the closed loop: each of `connections` asks again as soon as it was answered, for
    `seconds` or `calls`, whichever comes first. With a `rate` (calls per second) calls start at
    fixed times, whether or not earlier ones were answered, and latency counts from those times.
    `warmup` calls go first and are not measured.
    """

    name: str
    model: str
    connections: int
    seconds: float
    calls: int = 0
    rate: float = 0.0
    warmup: int = 0
    about: str = ""


class Target(msgspec.Struct, frozen=True):
    """Where a load goes: the URL of an OpenAI-compatible API, up to and with `/v1`."""

    url: str
    key: str = ""
    headers: dict[str, str] = {}


class Job(msgspec.Struct, frozen=True):
    """What a load generator process is told to do."""

    load: Load
    target: Target


class Outcome(msgspec.Struct, frozen=True):
    """What one run found. Spreads are over good replies only; `faults` counts the others by kind.

    `total` is the whole answer, `first` the time to the first token, `late` the one-way lateness of
    each chunk, `lag` how late the generator itself started calls of an open loop.
    """

    calls: int
    good: int
    seconds: float
    chunks: int
    faults: dict[str, int]
    first_fault: str
    cpu_ns: int
    total: Spread | None
    first: Spread | None
    late: Spread | None
    lag: Spread | None


UNARY_16 = Load("unary16", "bench-unary", 16, 3.0, warmup=400, about="unary calls, 16 connections")

LOADS = (
    Load("unary1", "bench-unary", 1, 3.0, warmup=100, about="unary calls, one connection"),
    UNARY_16,
    Load("unary64", "bench-unary", 64, 3.0, warmup=400, about="unary calls, 64 connections"),
    Load(
        "open200", "bench-unary", 64, 3.0, rate=200.0, warmup=64,
        about="unary calls, open loop, 200 per second",
    ),
    Load(
        "stream16", "bench-stream-100", 16, 4.0, warmup=32,
        about="streams of 100 chunks, 16 connections",
    ),
    Load(
        "slow200", "bench-stream-50-20ms", 200, 1.0, calls=200, rate=200.0,
        about="200 streams of 50 chunks 20 ms apart, started over 1 s",
    ),
)  # fmt: skip


def shortened(load: Load, factor: float) -> Load:
    """The same load for a part of its time; one with a number of calls keeps them."""
    return load if load.calls else msgspec.structs.replace(load, seconds=load.seconds * factor)
