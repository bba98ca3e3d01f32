"""The processes of the benchmark: started here, asked here, and ended here by their ids."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import urlsplit

import msgspec

from tests.bench import meter, wire
from tests.bench.client import GRACE
from tests.bench.loads import Job, Load, Outcome, Target
from tests.bench.upstream import Counts

ROOT = Path(__file__).resolve().parents[2]
KEY = "bench-key"

_START_LIMIT = 60.0
_STOP_LIMIT = 15.0
_READY_LIMIT = 30.0
_FOREIGN = ("NEXUS_", "GATEWAY_", "UNIFIED_GATEWAY_", "ADMIN_", "HMAC_")
_FOREIGN_ENDS = ("_API_KEY", "CONFIG_PATH", "DATABASE_URL", "REDIS_URL")


class Service(NamedTuple):
    """A running process and the URL of the API it serves."""

    process: subprocess.Popen[str]
    url: str

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self.process.pid


class Started(NamedTuple):
    """Nexus, ready; `seconds` from its start to its first answer."""

    service: Service
    seconds: float


@contextmanager
def serving(module: str, *arguments: str) -> Iterator[Service]:
    """Run a module of the benchmark that prints its URL, for as long as the block lasts."""
    command = [sys.executable, "-m", module, *arguments]
    process = _spawn(command)
    try:
        url = _line(process).strip()
        if not url:
            raise RuntimeError(f"{module} did not start")
        yield Service(process, url)
    finally:
        stop(process)


@contextmanager
def nexus(directory: Path, settings: str) -> Iterator[Started]:
    """Run `nexus up` on `directory` (must not exist) until the block ends; ready when entered.

    `settings` is its YAML and has to know the model `bench-unary`.
    """
    directory.mkdir()
    config, log = directory / "nexus.yaml", directory / "nexus.log"
    config.write_text(settings)
    port = free_port()
    command = [sys.executable, "-m", "compose.cli", "up", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--data-dir", str(directory / "data"), "--config", str(config)]
    url = f"http://127.0.0.1:{port}/v1"
    with log.open("w") as output:
        before = time.monotonic()
        process = _spawn(command, output, environment())
        try:
            _first_answer(process, Target(url, KEY), log)
            yield Started(Service(process, url), time.monotonic() - before)
        finally:
            left = stop(process)
            if left:
                print(f"nexus up left {left} processes behind, ended now", file=sys.stderr)


def _spawn(
    command: list[str], log: IO[str] | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    # A session of its own: Ctrl-C comes to the benchmark, which then ends everything in order.
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=log or subprocess.PIPE,
        stderr=subprocess.STDOUT if log else None,
    )  # fmt: skip


def environment() -> dict[str, str]:
    """This environment without what would configure a gateway, and with what Nexus needs."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and not name.endswith(_FOREIGN_ENDS)
    }
    return {
        **kept,
        "GATEWAY_API_KEYS": KEY,
        "GATEWAY_RATE_LIMIT_PER_MINUTE": "0",
        "BENCH_UPSTREAM_KEY": "unused",
    }


def configuration(upstream: str, models: tuple[str, ...]) -> str:
    """Settings of a gateway with one upstream."""
    lines = [
        "providers:",
        f"  bench: {{dialect: openai, base_url: {upstream}, api_key: '${{BENCH_UPSTREAM_KEY}}'}}",
        "models:",
    ]
    lines += [
        f"  {model}: {{provider: bench, engine: {model}, input_cost: 0.0000025, "
        "output_cost: 0.00001}"
        for model in models
    ]
    return "\n".join(lines) + "\n"


def _first_answer(process: subprocess.Popen[str], target: Target, log: Path) -> None:
    until = time.monotonic() + _START_LIMIT
    while process.poll() is None and time.monotonic() < until:
        if answers(target):
            return
        time.sleep(0.02)
    tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-20:])
    raise RuntimeError(f"nexus up gave no answer (exit {process.poll()}); it said:\n{tail}")


def answers(target: Target) -> bool:
    """Whether one call is answered with 200 now."""
    before, after = wire.request(
        target.url, wire.UNARY, key=target.key, headers={**target.headers, "connection": "close"}
    )
    address = urlsplit(target.url)
    with suppress(OSError), socket.create_connection(
        (address.hostname or "", address.port or 80), timeout=5.0
    ) as connection:  # fmt: skip
        connection.sendall(before + wire.tag(0) + after)
        return connection.makefile("rb").readline().split(b" ")[1:2] == [b"200"]
    return False


def served(url: str) -> Counts:
    """What the upstream at `url` has counted so far."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=5.0)
    try:
        connection.request("GET", "/meter")
        return msgspec.json.decode(connection.getresponse().read(), type=Counts)
    finally:
        connection.close()


class Attack:
    """A load generator process: connected and warmed up when made, runs once on `run`."""

    def __init__(self, load: Load, target: Target) -> None:
        command = [sys.executable, "-m", "tests.bench.client"]
        self._process = _spawn(command)
        limit = load.seconds + 2 * GRACE + _READY_LIMIT
        self._limit = threading.Timer(limit, self._process.kill)
        self._limit.daemon = True
        self._limit.start()
        self._say(msgspec.json.encode(Job(load, target)).decode())
        if _line(self._process) != "ready\n":
            self.close()
            raise RuntimeError(f"the load {load.name} could not be started against {target.url}")

    def run(self) -> Outcome:
        """Run the load."""
        self._say("go")
        line = _line(self._process)
        if not line:
            raise RuntimeError("the load generator died or took too long")
        return msgspec.json.decode(line, type=Outcome)

    def close(self) -> None:
        """End the process."""
        self._limit.cancel()
        stop(self._process)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def stop(process: subprocess.Popen[str]) -> int:
    """End a process with SIGTERM, and by force what is left of its tree; how many those were."""
    known = meter.tree(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            known = meter.tree(process.pid)
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    left = [one for one in {*known, *meter.tree(process.pid)} if meter.alive(one)]
    for one in left:
        with suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    until = time.monotonic() + _STOP_LIMIT
    while any(map(meter.alive, left)) and time.monotonic() < until:
        time.sleep(0.01)
    return len(left)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
