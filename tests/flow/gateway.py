"""A whole gateway for tests of its HTTP door: bus, ingress, worker and governor as real processes.

Its providers `up` and `openai` are an Upstream that the test scripts, `mock` is the built-in one.
"""

import asyncio
import json
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from compose import settings, setup
from compose.child import Child
from compose.nats_server import NatsServer
from compose.roles import LISTEN_FD
from tests.upstream import Recorded, Script, Upstream

ROOT = Path(__file__).parents[2]
ROLES = ("governor", "worker", "ingress")
KEY = "test-key-1"
OTHER_KEY = "test-key-2"
ADMIN = "test-admin-token"
UP_KEY = "sk-key-of-the-upstream"
_NOT_PASSED = ("NEXUS_", "GATEWAY_", "UNIFIED_GATEWAY_", "ADMIN_TOKEN", "CONFIG_PATH", "PORT")

CONFIG = """
providers:
  up: {{dialect: openai, base_url: "{url}/v1", api_key: "${{UP_API_KEY}}"}}
  openai: {{dialect: openai, base_url: "{url}/v1", api_key: "${{UP_API_KEY}}"}}
{providers}
models:
  up-model: {{provider: up, engine: engine-1, input_cost: 0.0000025, output_cost: 0.00001}}
  up/other: {{provider: up, engine: org/engine-2}}
  "spaced name, 100%": {{provider: up, engine: engine-3}}
"""


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Provider:
    """An Upstream in a thread of its own, so that a test may block while it answers."""

    def __init__(self) -> None:
        self._upstream = Upstream()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._upstream.__aenter__(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._upstream.__aexit__(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return self._upstream.url

    @property
    def requests(self) -> list[Recorded]:
        """What has arrived since the last script."""
        return self._upstream.requests

    @property
    def request(self) -> Recorded:
        """The only request since the last script."""
        (request,) = self._upstream.requests
        return request

    def script(self, *replies: Script) -> None:
        """What to answer from now on; what was asked before is forgotten."""
        self._upstream.requests.clear()
        self._upstream.script(*replies)

    def wait_for(self, event: asyncio.Event, seconds: float = 10.0) -> None:
        """Returns when an event of a request is set, such as its `gone`."""
        asyncio.run_coroutine_threadsafe(event.wait(), self._loop).result(seconds)


@dataclass
class Gateway:
    """A running gateway: the URLs of its ingress and its bus, `log` with the lines of all roles."""

    url: str
    bus: str
    log: Path
    up: Provider
    client: httpx.Client
    children: dict[str, Child]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def connect(self, timeout: float = 10.0) -> socket.socket:
        """A raw connection to the ingress."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def post(
        self,
        path: str = "/v1/chat/completions",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """One POST with the key of the tests."""
        own = {"authorization": f"Bearer {KEY}", **(headers or {})}
        return self.client.post(path, headers=own, **more)

    def ask(self, model: str = "mock", text: str = "Hi", **fields: Any) -> httpx.Response:
        """One chat call."""
        return self.post(json={"model": model, "messages": [message(text)], **fields})

    def rss(self, role: str) -> int:
        """Resident bytes of one role's process."""
        pid = self.children[role].pid
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")


def message(text: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def basic(**fields: Any) -> dict[str, Any]:
    """The fields of a good call to the scripted provider."""
    return {"model": "up-model", "messages": [message("Hi")], **fields}


def told(response: httpx.Response) -> list[Any]:
    """The events of a stream, decoded; it must end with `[DONE]`, or with an error and without."""
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    blocks = response.text.split("\n\n")
    assert blocks.pop() == "", "the last event has no end"
    data = [block.removeprefix("data: ") for block in blocks if not block.startswith(":")]
    events = [json.loads(line) for line in data if line != "[DONE]"]
    is_error = "error" in events[-1]
    assert data[len(events) :] == ([] if is_error else ["[DONE]"])
    return events


def refusal(response: httpx.Response, status: int, kind: str, code: str | None) -> dict[str, Any]:
    """The error in a response, after checking its shape, its headers and what it is."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code", "provider", "request_id"}
    assert (error["type"], error["code"]) == (kind, code), error
    assert error["request_id"] == response.headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-f-]{36}", error["request_id"])
    assert isinstance(error["message"], str) and len(error["message"]) > 10
    return error


@contextmanager
def running_gateway(folder: Path, more_config: str = "", providers: str = "") -> Iterator[Gateway]:
    """Starts everything, waits until it is ready, and leaves no process behind.

    `providers` are further lines of that section of the configuration, `more_config` comes behind
    its models.
    """
    provider = Provider()
    provider.start()
    server = NatsServer(folder / "nats")
    server.start()
    config = folder / "nexus.yaml"
    config.write_text(CONFIG.format(url=provider.url, providers=providers) + more_config)
    with ExitStack() as stack:
        stack.callback(provider.stop)
        stack.callback(server.stop)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        log = folder / "log"
        setup.prepare(settings.load(None, _environment(server.url, config, listener), {}).config)
        environs = {role: _environment(server.url_of(role), config, listener) for role in ROLES}
        children = {role: _child(role, environs[role], listener, log) for role in ROLES}
        stack.callback(_kill, children.values())
        heard = [child.start() for child in children.values()]
        for role, told in zip(ROLES, heard, strict=True):
            _await_ready(role, told, log)
        yield Gateway(url, server.url, log, provider, client, children)


def _kill(children: Iterable[Child]) -> None:
    for child in children:
        child.kill()
    until(lambda: all(child.pid is None or child.exit_code() is not None for child in children))


def _environment(bus: str, config: Path, listener: socket.socket) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(_NOT_PASSED)}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")])),
        "CONFIG_PATH": str(config),
        "NEXUS_NATS_URL": bus,
        "GATEWAY_API_KEYS": f"{KEY},{OTHER_KEY}",
        "GATEWAY_RATE_LIMIT_PER_MINUTE": "0",
        "ADMIN_TOKEN": ADMIN,
        "UP_API_KEY": UP_KEY,
        LISTEN_FD: str(listener.fileno()),
    }


def _child(role: str, environ: dict[str, str], listener: socket.socket, log: Path) -> Child:
    fds = (listener.fileno(),) if role == "ingress" else ()
    # The shell puts all output into one file: a Child gives its own streams to its process.
    line = f'exec "$0" -m compose.cli {role} >>"$1" 2>&1'
    command = ["sh", "-c", line, sys.executable, str(log)]
    return Child(role, command, lambda: environ, fds)


def _await_ready(role: str, told: int, log: Path) -> None:
    try:
        ready, _, _ = select.select([told], [], [], 60)
        assert ready and os.read(told, 16), f"{role} did not start:\n{log.read_text()}"
    finally:
        os.close(told)
