"""What becomes of a role's process that is forbidden what it needs: it ends and says so."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compose import setup
from compose.authorization import authorization
from compose.nats_server import NatsServer
from ledger.permissions import USERS
from schemas import subjects
from tests.flow.bus_permissions.users import config_at
from tests.foreign_nats import server_with

ROOT = Path(__file__).parents[3]
PATIENCE = 20.0


class Role:
    """A role's process: its exit code and what it said, as JSON lines."""

    def __init__(self, role: str, url: str, folder: Path) -> None:
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "NEXUS_NATS_URL": url,
            "NEXUS_DATA_DIR": str(folder / "data"),
            "GATEWAY_API_KEYS": "a-key",
        }
        more = ("--port", "0") if role == "ingress" else ()
        self._errors = folder / "errors"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "compose.cli", role, *more],
                cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        self.lines: list[dict[str, Any]] = []

    def ready(self, role: str) -> None:
        """Read what it says until it says that it is ready."""
        assert self._process.stdout is not None
        last = "projecting" if role == "analytics" else f"{role} ready"
        while not (self.lines and self.lines[-1]["message"] == last):
            self.lines.append(json.loads(self._process.stdout.readline()))

    def ended(self) -> int:
        """Its exit code, once it has one by itself."""
        try:
            out, _ = self._process.communicate(timeout=PATIENCE)
        finally:
            self.kill()
        self.lines += [json.loads(line) for line in out.splitlines()]
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def last_words(self) -> str:
        """Its one critical line; there must be neither another nor a traceback."""
        assert not [line for line in self.lines if "traceback" in line]
        assert "Traceback" not in self._errors.read_text()
        (said,) = [str(line["message"]) for line in self.lines if line["level"] == "critical"]
        return said


@pytest.mark.parametrize(
    ("role", "taken", "what"),
    [
        ("ingress", subjects.GOVERNOR_BEAT, "publish to"),
        ("ingress", subjects.LIVE_EVENTS, "subscribe to"),
        ("worker", subjects.api("CONSUMER.MSG.NEXT", subjects.WORK, "*"), "publish to"),
        ("worker", subjects.CANCELS, "subscribe to"),
        ("worker", subjects.PINGS, "subscribe to"),
        ("governor", subjects.LIVE_EVENTS, "subscribe to"),
        ("governor", subjects.GOVERNOR_BEAT, "subscribe to"),
        ("analytics", subjects.QUESTIONS, "subscribe to"),
        (
            "analytics",
            subjects.api("CONSUMER.DURABLE.CREATE", subjects.LEDGER, "analytics"),
            "publish to",
        ),
    ],
)
def test_a_role_that_is_forbidden_what_it_needs_ends_and_says_so(
    role: str, taken: str, what: str, tmp_path: Path
) -> None:
    passwords = {user: f"of-{user}" for user in USERS}
    head, mark, tail = authorization(passwords).partition(f'user: "{role}"')
    own, end, others = tail.partition("user: ")
    assert f"{json.dumps(taken)}\n" in own
    narrowed = own.replace(f"{json.dumps(taken)}\n", "", 1)
    store = f'jetstream {{ store_dir: "{tmp_path / "store"}" }}\n'
    with server_with(store + head + mark + narrowed + end + others, tmp_path) as port:
        setup.prepare(config_at(f"nats://operator:of-operator@127.0.0.1:{port}"))
        process = Role(role, f"nats://{role}:of-{role}@127.0.0.1:{port}", tmp_path)
        assert process.ended() == 1
    said = process.last_words()
    # One of the two clients writes the subject small.
    first = taken.lower().rstrip("*>")
    assert said.lower().startswith(f"{role} ends: the bus forbids {role} to {what} {first}")
    assert "nexus bus-permissions" in said


@pytest.mark.parametrize("role", ["ingress", "worker", "governor", "analytics"])
def test_a_role_with_a_wrong_password_ends_and_says_so(
    server: NatsServer, role: str, tmp_path: Path
) -> None:
    process = Role(role, f"nats://{role}:wrong@127.0.0.1:{server.port}", tmp_path)
    assert process.ended() == 1
    assert f"the bus does not accept who we are as {role}" in process.last_words()
    assert "wrong" not in process.last_words()


@pytest.mark.parametrize("role", ["ingress", "worker", "governor"])
def test_a_role_with_the_user_of_another_ends_and_says_so(
    server: NatsServer, role: str, tmp_path: Path
) -> None:
    process = Role(role, server.url_of("analytics"), tmp_path)
    assert process.ended() == 1
    said = process.last_words()
    assert f"the bus forbids {role} to " in said
    assert "use the NATS user of this role" in said


@pytest.mark.parametrize("role", ["ingress", "worker", "governor"])
def test_a_role_on_a_bus_that_is_not_set_up_ends_and_says_so(
    nats_server: NatsServer, role: str, tmp_path: Path
) -> None:
    process = Role(role, nats_server.url_of(role), tmp_path)
    assert process.ended() == 1
    assert "stream LEDGER is missing" in process.last_words()
    assert "`nexus setup`" in process.last_words()


def test_a_role_without_a_bus_ends_and_says_where_it_looked(tmp_path: Path) -> None:
    """Both at once, as each looks for some seconds."""
    processes = []
    for role in ("worker", "governor"):
        folder = tmp_path / role
        folder.mkdir()
        processes.append(Role(role, f"nats://{role}:x@127.0.0.1:9", folder))
    for process in processes:
        assert process.ended() == 1
        assert "no NATS server at 127.0.0.1:9" in process.last_words()
        assert "NEXUS_NATS_URL" in process.last_words()


@pytest.mark.parametrize("role", ["ingress", "worker", "governor", "analytics"])
def test_a_role_whose_password_was_changed_ends_when_it_comes_back(
    set_up: NatsServer, role: str, tmp_path: Path
) -> None:
    process = Role(role, set_up.url_of(role), tmp_path)
    try:
        process.ready(role)
        set_up.kill()
        set_up.password_path(role).write_text("another")
        set_up.start()
        assert process.ended() == 1
    finally:
        process.kill()
    assert f"the bus does not accept who we are as {role}" in process.last_words()
