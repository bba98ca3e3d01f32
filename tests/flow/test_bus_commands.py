"""`nexus setup` and `nexus bus-permissions`, for an operator who brings a bus."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.nats_server import NatsServer, find_binary

ROOT = Path(__file__).parents[2]
OURS = ("NEXUS_", "GATEWAY_", "UNIFIED_GATEWAY_", "ADMIN_TOKEN", "CONFIG_PATH", "PORT")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.stop()


def nexus(folder: Path, command: str, bus: str) -> subprocess.CompletedProcess[str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(OURS)}
    return subprocess.run(
        [sys.executable, "-m", "compose.cli", command],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), "NEXUS_NATS_URL": bus},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_setup_makes_the_streams_once_and_says_what_it_did(
    server: NatsServer, tmp_path: Path
) -> None:
    first = nexus(tmp_path, "setup", server.url)
    assert (first.returncode, first.stderr) == (0, "")
    for stream in ("LEDGER", "WORK", "RESP"):
        assert f"stream {stream} created\n" in first.stdout
    again = nexus(tmp_path, "setup", server.url)
    assert again.returncode == 0
    assert "created" not in again.stdout + again.stderr
    assert "as they should be" in again.stdout


def test_who_may_not_set_up_the_bus_is_told_so(server: NatsServer, tmp_path: Path) -> None:
    result = nexus(tmp_path, "setup", server.url_of("ingress"))
    assert (result.returncode, result.stdout) == (1, "")
    assert "the bus forbids operator" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_nats_server_reads_the_users_that_are_printed(tmp_path: Path) -> None:
    printed = nexus(tmp_path, "bus-permissions", "tls://bus.example.com:4222")
    assert printed.returncode == 0
    assert "tls://" in printed.stdout
    file = tmp_path / "nats.conf"
    file.write_text(printed.stdout)
    checked = subprocess.run(
        [str(find_binary()), "-t", "-c", str(file)], capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
