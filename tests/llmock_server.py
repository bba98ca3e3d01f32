"""llmock, a third party's simulation of providers, as a child process on a free port."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx


class LLMock:
    """A running llmock; `url` is the root under which each dialect has its own path."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url
        self.client = client

    def script(self, *behaviors: dict[str, Any]) -> None:
        """Queues behaviours for the next requests, after forgetting earlier ones."""
        self.client.post(f"{self.url}/_llmock/reset").raise_for_status()
        self.add(*behaviors)

    def add(self, *behaviors: dict[str, Any]) -> None:
        """Queues further behaviours."""
        asked = {"behaviors": list(behaviors)}
        self.client.post(f"{self.url}/_llmock/scenario", json=asked).raise_for_status()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What it has served since the last script, as its journal has it."""
        found = self.client.get(f"{self.url}/_llmock/requests").raise_for_status().json()
        return list(found["requests"])

    @property
    def verdict(self) -> dict[str, Any]:
        """What it thinks of the way its client coped since the last script."""
        judged: dict[str, Any] = (
            self.client.get(f"{self.url}/_llmock/verdict").raise_for_status().json()
        )
        return judged


@contextmanager
def llmock_server(log: Path, *options: str) -> Iterator[LLMock]:
    """Starts llmock, waits until it answers, and stops it in the end; its output goes to `log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("llmock"))
    command = [program, "serve", "--host", "127.0.0.1", "--port", str(port), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}", log)
        with httpx.Client(timeout=30) as client:
            yield LLMock(f"http://127.0.0.1:{port}", client)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/health").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"llmock did not start:\n{log.read_text()}")
