"""The benchmark's own arithmetic, metering and suspicion: a wrong reply never counts as good."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import adapters, meter, routes, services, upstream, wire
from tests.bench.adapters import Adapter
from tests.bench.admission import Admission
from tests.bench.balance import Balance, Way
from tests.bench.budgets import Decisions
from tests.bench.client import Generator
from tests.bench.findings import Figure, Findings, figures
from tests.bench.loads import Load, Outcome, Target
from tests.bench.measure import Run
from tests.bench.rates import EVEN, Admitted
from tests.bench.reply import Reply
from tests.bench.routes import Planned
from tests.bench.stats import median, percentile, spread

CHUNKS = 5
UNARY = Load("unary", "bench-unary", connections=2, seconds=10.0, calls=8)
STREAM = Load("stream", f"bench-stream-{CHUNKS}", connections=2, seconds=10.0, calls=8)

Answering = Callable[[bytes, bytes, asyncio.StreamWriter], Awaitable[None]]
"""Writes the answer to a request: its tag, another request's tag, and where to write."""


def _chunks(tag: bytes) -> list[bytes]:
    return [wire.chunk(tag, index, time.monotonic_ns()) for index in range(CHUNKS)]


def _stream(writer: asyncio.StreamWriter, chunks: list[bytes], end: bytes | None = None) -> None:
    body = b"".join(chunks) + (wire.ending(CHUNKS, usage=False) if end is None else end)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    writer.write(head % len(body) + body)


def _body(writer: asyncio.StreamWriter, body: bytes, status: bytes = b"200 OK") -> None:
    writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))


@asynccontextmanager
async def _server(answer: Answering) -> AsyncIterator[Target]:
    """A server of this test; every request is answered by `answer`."""
    earlier = wire.tag(7)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal earlier
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: (\d+)", head)
                assert length is not None
                tag = wire.tag_in(await reader.readexactly(int(length[1])))
                await answer(tag, earlier, writer)
                earlier = tag
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "key")


async def _attack(load: Load, target: Target) -> Outcome:
    generator = Generator(load, target)
    await generator.open()
    try:
        return await generator.run()
    finally:
        generator.close()


async def _crossed(tag: bytes, other: bytes, writer: asyncio.StreamWriter) -> None:
    _body(writer, wire.answer(other, 0))


async def _crossed_stream(tag: bytes, other: bytes, writer: asyncio.StreamWriter) -> None:
    _stream(writer, [*_chunks(tag)[:-1], _chunks(other)[-1]])


async def _missing(tag: bytes, other: bytes, writer: asyncio.StreamWriter) -> None:
    _stream(writer, [*_chunks(tag)[:2], *_chunks(tag)[3:]])


async def _reordered(tag: bytes, other: bytes, writer: asyncio.StreamWriter) -> None:
    first, second, *rest = _chunks(tag)
    _stream(writer, [second, first, *rest])


async def _repeated(tag: bytes, other: bytes, writer: asyncio.StreamWriter) -> None:
    _stream(writer, [_chunks(tag)[0], *_chunks(tag)])


async def _unfinished(tag: bytes, other: bytes, writer: asyncio.StreamWriter) -> None:
    _stream(writer, _chunks(tag), b'data: {"error":{"message":"broken"}}\n\n')


async def _cut(tag: bytes, other: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + _chunks(tag)[0])
    await writer.drain()
    writer.close()


async def _refused(tag: bytes, other: bytes, writer: asyncio.StreamWriter) -> None:
    _body(writer, b'{"error":{"message":"busy"}}', b"503 Service Unavailable")


async def _garbled(tag: bytes, other: bytes, writer: asyncio.StreamWriter) -> None:
    _body(writer, wire.answer(tag, 0)[:-1])


@pytest.mark.parametrize(
    ("load", "answer", "fault"),
    [
        (UNARY, _crossed, "crossed"),
        (STREAM, _crossed_stream, "crossed"),
        (STREAM, _missing, "missing"),
        (STREAM, _reordered, "reordered"),
        (STREAM, _repeated, "repeated"),
        (STREAM, _unfinished, "incomplete"),
        (STREAM, _cut, "incomplete"),
        (UNARY, _cut, "incomplete"),
        (UNARY, _refused, "status 503"),
        (UNARY, _garbled, "invalid"),
    ],
)
async def test_a_wrong_reply_is_named_and_never_counted_as_good(
    load: Load, answer: Answering, fault: str
) -> None:
    async with _server(answer) as target:
        outcome = await _attack(load, target)
    assert outcome.faults == {fault: load.calls}
    assert outcome.good == 0
    assert outcome.total is None
    assert outcome.first_fault.startswith(fault)


@pytest.mark.parametrize("load", [UNARY, STREAM])
async def test_the_upstream_answers_every_call_rightly_and_counts_it(load: Load) -> None:
    server, url = await upstream.serve()
    async with server:
        outcome = await _attack(load, Target(url))
        counts = await asyncio.to_thread(services.served, url)
    assert (outcome.good, outcome.faults, counts.calls) == (load.calls, {}, load.calls)
    assert outcome.chunks == counts.chunks == (load.calls * CHUNKS if load is STREAM else 0)
    assert counts.cut == 0


async def test_a_client_that_leaves_ends_its_stream() -> None:
    server, url = await upstream.serve()
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        before, after = wire.request(url, "bench-stream-100000-10ms")
        writer.write(before + wire.tag(1) + after)
        await reader.readuntil(b"[bench ")
        writer.close()
        await writer.wait_closed()
        counts = await asyncio.to_thread(services.served, url)
        while counts.cut == 0:
            counts = await asyncio.to_thread(services.served, url)
    assert counts.chunks < 100_000


async def test_an_open_loop_counts_latency_from_the_intended_start() -> None:
    pause, calls = 0.02, 10

    async def slow(tag: bytes, other: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(pause)
        _body(writer, wire.answer(tag, time.monotonic_ns()))

    load = Load("open", "bench-unary", connections=1, seconds=1.0, calls=calls, rate=1000.0)
    async with _server(slow) as target:
        outcome = await _attack(load, target)
    assert (outcome.good, outcome.faults) == (calls, {})
    assert outcome.total is not None
    # The last call was due 9 ms after the first, and had to wait for nine others.
    assert outcome.total.top >= (calls * pause - 0.009) * 1000


async def test_a_gateway_that_goes_away_is_a_fault_and_not_a_hang() -> None:
    async with _server(_refused) as target:
        pass
    generator = Generator(msgspec.structs.replace(UNARY, seconds=0.2), target)
    outcome = await generator.run()
    assert outcome.good == 0
    assert outcome.faults.keys() == {"unreachable"}


@given(st.data())
def test_a_right_stream_is_right_however_its_bytes_are_cut(data: st.DataObject) -> None:
    tag = wire.tag(3)
    body = b"".join(_chunks(tag)) + wire.ending(CHUNKS, usage=True)
    cuts = data.draw(st.lists(st.integers(0, len(body))).map(sorted))
    reply = Reply(tag, CHUNKS, intended=0)
    reply.status = 200
    for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        reply.feed(body[begin:end], time.monotonic_ns())
    assert reply.fault(time.monotonic_ns()) == ""
    assert reply.indexes == list(range(CHUNKS))


@given(st.lists(st.integers(), min_size=1).map(sorted), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_covers_its_part(
    values: list[int], percent: int
) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_a_spread_is_in_milliseconds() -> None:
    found = spread(range(1_000_000, 101_000_000, 1_000_000))
    assert found is not None
    assert (found.count, found.p50, found.p90, found.p99, found.top) == (100, 50, 90, 99, 100)
    assert spread([]) is None


def test_a_median_leaves_out_what_is_unknown() -> None:
    assert median([None, 3.0, 1.0, None, 2.0]) == 2.0
    assert median([None]) is None


BUSY = """
import time
while time.process_time() < 0.3:
    pass
print(time.process_time_ns(), flush=True)
time.sleep(600)
"""


def test_the_processor_time_of_a_busy_process_is_what_it_says_itself() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, "ingress"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        gauge = meter.Meter({process.pid: ""})
        before = gauge.read()
        said = int(process.stdout.readline())
        after = gauge.read()
        metered = meter.cpu_ns(process.pid)
        memory = gauge.memory()["ingress"]
    finally:
        process.kill()
        process.communicate()
    assert said >= 300_000_000
    assert said <= metered < said + 50_000_000
    assert 0 < after.since(before)["ingress"] <= metered
    assert not after.restarted(before)
    assert 1_000_000 < memory.pss <= memory.rss


def test_roles_are_found_by_command_line_and_inherited_by_nameless_children() -> None:
    start = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {!r}, {!r}]).wait()"
    grandchild = "import time; print('up', flush=True); time.sleep(600)"
    parent = start.format(start.format(grandchild, "nameless"), "worker")
    process = subprocess.Popen(
        [sys.executable, "-c", parent, "up"],
        stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        process.stdout.readline()
        roles = meter.Meter({process.pid: ""}).roles()
    finally:
        left = services.stop(process)
    assert sorted(roles.values()) == ["supervisor", "worker", "worker"]
    assert left == 2
    assert not any(meter.alive(found) for found in roles)


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (["/x/.venv/bin/python", "/x/.venv/bin/nexus", "ingress", "--port", "1"], "ingress"),
        (["python3", "-m", "compose.cli", "worker", "--pool", "openai"], "worker"),
        (["/x/.venv/bin/nats-server", "-c", "/data/nats.conf"], "nats-server"),
        (["/x/.venv/bin/python", "/x/.venv/bin/nexus-analytics"], "analytics"),
        (["/x/.venv/bin/python", "/x/.venv/bin/nexus", "up", "--host", "::1"], "supervisor"),
        (["/usr/bin/python", "-m", "http.server"], None),
    ],
)
def test_a_role_is_read_from_a_command_line(arguments: list[str], role: str | None) -> None:
    assert meter.role_of(arguments) == role


def _run(
    load: str,
    target: str,
    p50: float,
    cpu_ns: dict[str, int] | None = None,
    faults: dict[str, int] | None = None,
) -> Run:
    total = spread([int(p50 * 1e6)] * 10)
    outcome = Outcome(10, 10, 1.0, 0, faults or {}, "", 0, total, None, None, None)
    return Run(load, target, 0, outcome, cpu_ns or {}, 0, 10, 0.0, restarted=False)


def _figure(found: Findings, name: str) -> Figure:
    return next(figure for figure in figures(found) if figure.name.startswith(name))


def test_figures_are_added_time_and_the_counted_roles_only() -> None:
    found = Findings("nexus", {})
    cpu = {"ingress": 3_000_000, "worker": 2_000_000, "nats-server": 2_000_000, "governor": 10**9}
    found.runs = [
        _run("unary1", "direct", 0.5),
        _run("unary1", "nexus", 2.5),
        _run("unary16", "nexus", 4.0, cpu, {"missing": 1}),
    ]
    assert _figure(found, "unary16: CPU").measured == pytest.approx(700)
    assert _figure(found, "unary16: CPU").verdict == "met"
    assert _figure(found, "unary1: added p50").measured == pytest.approx(2.0)
    assert _figure(found, "stream16: CPU").verdict == "not measured"
    assert _figure(found, "replies wrong").verdict == "MISSED"


def test_an_admission_is_judged_as_a_whole() -> None:
    found = Findings("nexus", {}, admission=Admission(9_000, 160_000, spread([40_000] * 10)))
    whole, alone, took = (one for one in figures(found) if one.name.startswith("admission"))
    assert (whole.measured, whole.verdict) == (160.0, "MISSED")
    assert (alone.verdict, took.verdict) == ("stretch", "stretch")


def test_of_decisions_on_budgets_more_are_better() -> None:
    few = Decisions(5, 14_000.0, spread([4_000] * 10), 20_000)
    found = Findings("nexus", {}, budgets=[few])
    assert _figure(found, "5 budgets at once: decisions").verdict == "MISSED"
    assert _figure(found, "5 budgets at once: CPU").verdict == "MISSED"
    assert _figure(found, "5 budgets at once: time of a decision p50").measured == pytest.approx(4)
    found.budgets = [msgspec.structs.replace(few, per_second=16_000.0)]
    assert _figure(found, "5 budgets at once: decisions").verdict == "met"
    found.budgets = [msgspec.structs.replace(few, per_second=90_000.0)]
    assert _figure(found, "5 budgets at once: decisions").verdict == "stretch"


def test_of_rates_more_than_the_limit_and_its_burst_is_missed() -> None:
    found = Findings("nexus", {}, rates=[Admitted(EVEN, 1_999.0, 2_200, None, 0)])
    assert _figure(found, "one limit of 2,000/s, 25% asked").verdict == "stretch"
    assert "MISSED" not in {one.verdict for one in figures(found) if "any second" in one.name}
    found.rates = [Admitted(EVEN, 1_900.0, 2_201, None, 0)]
    verdicts = [one.verdict for one in figures(found) if "one limit" in one.name]
    assert verdicts == ["MISSED", "MISSED"]


def test_an_adapter_is_judged_by_what_it_adds_to_the_openai_one_of_the_same_round() -> None:
    base = Adapter("openai", [9_000, 99_000, 9_000], [10_000] * 3, [5_000] * 3)
    slow = Adapter("slow", [29_000, 119_000, 29_000], [71_000] * 3, [14_000] * 3)
    found = Findings("nexus", {}, adapters=[base, slow])
    text, tools, chunk = (one for one in figures(found) if one.name.startswith("slow over openai"))
    assert (text.measured, text.low, text.high, text.verdict) == (20, 20, 20, "stretch")
    assert (tools.measured, tools.verdict) == (61, "MISSED")
    assert (chunk.measured, chunk.verdict) == (9, "met")
    assert not any(one.name.startswith("openai over") for one in figures(found))


def test_every_adapter_is_measured_by_bytes_of_its_own_stage() -> None:
    found = adapters.measure(1)
    assert next(one.name for one in found) == adapters.BASE
    assert {one.name for one in found} >= {"azure", "anthropic", "gemini", "cohere", "bedrock"}
    assert all(time > 0 for one in found for time in (*one.text_ns, *one.tools_ns, *one.chunk_ns))


def test_balancing_is_judged_by_how_much_longer_calls_take_in_turn() -> None:
    balanced = Way(600, 100.0, 150.0, 0.01)
    found = Findings("nexus", {}, balance=Balance(Way(600, 110.0, 1200.0, 1 / 3), balanced, 4_000))
    assert _figure(found, "one deployment of three").measured == pytest.approx(8)
    assert _figure(found, "one deployment of three").verdict == "stretch"
    assert _figure(found, "CPU of a choice").verdict == "met"
    found.balance = Balance(balanced, balanced, 6_000)
    assert _figure(found, "one deployment of three").verdict == "MISSED"
    assert _figure(found, "CPU of a choice").verdict == "MISSED"


def test_plans_are_measured_by_every_way_of_asking() -> None:
    found = Findings("nexus", {}, routes=[Planned("a name", 2_000, 90_000)])
    assert _figure(found, "2,000 models, asked for a name: CPU").verdict == "stretch"
    found.routes = [Planned("a name", 31_000, 90_000)]
    assert _figure(found, "2,000 models, asked for a name: CPU").verdict == "MISSED"
    measured = routes.measure(1)
    assert {"a name", "a name and a wish", "auto by cost"} <= {one.asked for one in measured}
    assert all(one.each_ns > 0 and one.first_ns > 0 for one in measured)
