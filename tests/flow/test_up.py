"""`nexus up` as an operator meets it: the real thing, real signals, real kills."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
OURS = ("NEXUS_", "GATEWAY_", "UNIFIED_GATEWAY_", "ADMIN_TOKEN", "CONFIG_PATH", "PORT")
ROLES = ("ingress", "worker", "governor", "analytics")


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def environment(**more: str) -> dict[str, str]:
    """This environment without settings of ours, but with those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def processes_of(parent: int) -> dict[int, str]:
    """The live children of a process: command lines by process id."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, ppid = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent and state != "Z":
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(folder.name)] = command
        except (OSError, ValueError):
            continue
    return found


class Up:
    """One running `nexus up`; `out` is what it says to the operator, `logs` are the JSON lines."""

    def __init__(self, folder: Path, *arguments: str, **env: str) -> None:
        self.data = folder / "data"
        self._out, self._logs = folder / "out", folder / "logs"
        command = [sys.executable, "-m", "compose.cli", "up", "--data-dir", str(self.data)]
        with self._out.open("w") as out, self._logs.open("w") as logs:
            self.process = subprocess.Popen(
                [*command, *(arguments or ("--port", "0"))],
                cwd=folder,
                env=environment(**env),
                stdout=logs,
                stderr=out,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def logs(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self._logs.read_text().splitlines()]

    @property
    def url(self) -> str:
        found = re.search(r"API +(http://\S+)/v1", self.out)
        assert found, self.out
        return found[1]

    def serving(self) -> "Up":
        until(lambda: "Try it" in self.out or self.process.poll() is not None)
        assert self.process.poll() is None, self.out
        return self

    def complete(self) -> "Up":
        """Wait until also what comes after the API is ready."""
        until(lambda: all(f"{role} ready" in self.serving().out for role in ROLES))
        return self

    def pid(self, name: str) -> int:
        """The process id of the one child whose command line names it."""
        (pid,) = [pid for pid, command in processes_of(self.process.pid).items() if name in command]
        return pid

    def ask(self, text: str = "hello") -> httpx.Response:
        body = {"model": "mock", "messages": [{"role": "user", "content": text}]}
        headers = {"Authorization": "Bearer dev-key"}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=60)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)


@contextmanager
def running(folder: Path, *arguments: str, **env: str) -> Iterator[Up]:
    """A `nexus up` that is gone, and all of it, after the block."""
    folder.mkdir(exist_ok=True)
    up = Up(folder, *arguments, **env)
    try:
        yield up
    finally:
        up.process.kill()
        up.process.wait()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One `nexus up` for the tests that do not stop it; they may kill its children."""
    with running(tmp_path_factory.mktemp("up")) as one:
        yield one.complete()


def nexus(up: Up, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = environment(NEXUS_URL=up.url, NEXUS_DATA_DIR=str(up.data))
    return subprocess.run(
        [sys.executable, "-m", "compose.cli", *arguments],
        env=env, cwd=up.data.parent, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_every_role_is_a_process_that_can_be_told_by_its_command_line(up: Up) -> None:
    commands = processes_of(up.process.pid).values()
    for role in ROLES:
        assert len([c for c in commands if f"compose.cli {role}" in c]) == 1
    assert len([c for c in commands if "nats-server" in c]) == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_line_to_paste_works_as_pasted(up: Up) -> None:
    (line,) = [line for line in up.out.splitlines() if line.startswith("curl ")]
    result = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert json.loads(result.stdout)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("what", ["API", "metrics", "live events", "health", "key", "durability"])
def test_the_banner_says_where_things_are(up: Up, what: str) -> None:
    assert f"\n  {what} " in up.out


def test_logs_are_json_lines_with_time_level_role_and_message(up: Up) -> None:
    assert up.ask().status_code == 200
    until(lambda: any(line["role"] == "ingress" for line in up.logs))
    for line in up.logs:
        assert {"time", "level", "role", "message"} <= line.keys()


@pytest.mark.parametrize("name", ["nats-server", *(f"compose.cli {role}" for role in ROLES)])
def test_a_killed_process_comes_back_and_calls_go_on(up: Up, name: str) -> None:
    before = up.pid(name)
    os.kill(before, signal.SIGKILL)
    until(lambda: [p for p, c in processes_of(up.process.pid).items() if name in c and p != before])
    until(lambda: up.ask().status_code == 200)


def test_sql_answers_from_the_ledger_and_explains_a_wrong_query(up: Up) -> None:
    assert up.ask().status_code == 200
    query = "select model, count() as calls from events group by model"
    until(lambda: "mock" in nexus(up, "sql", query, "--format", "csv").stdout)
    assert nexus(up, "sql", query).stdout.startswith("model")
    wrong = nexus(up, "sql", "select from where")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("nexus: ")
    assert "Traceback" not in wrong.stderr


def test_tail_prints_events_and_goes_on_after_the_ingress_was_killed(up: Up) -> None:
    command = [sys.executable, "-m", "compose.cli", "tail", "--since", "0", "--json"]
    command += ["--type", "model.request.complete"]
    seen = up.data.parent / "tail"
    with seen.open("w") as out:
        env = environment(NEXUS_URL=up.url, NEXUS_DATA_DIR=str(up.data), PYTHONUNBUFFERED="1")
        tail = subprocess.Popen(command, env=env, cwd=up.data.parent, stdout=out)
    try:
        assert up.ask("first").status_code == 200
        until(lambda: seen.read_text())
        os.kill(up.pid("compose.cli ingress"), signal.SIGKILL)
        until(lambda: up.ask("second").status_code == 200)
        ids = [up.ask("third").json()["id"].removeprefix("chatcmpl-")]
        until(lambda: ids[0] in seen.read_text())
        calls = [json.loads(line)["call_id"] for line in seen.read_text().splitlines()]
        assert len(calls) == len(set(calls)), "an event came twice"
        tail.send_signal(signal.SIGINT)
        assert tail.wait(10) == 0
    finally:
        tail.kill()
        tail.wait()


def test_a_second_start_on_the_same_data_is_refused_and_names_the_first(up: Up) -> None:
    command = [sys.executable, "-m", "compose.cli", "up", "--port", "0"]
    command += ["--data-dir", str(up.data)]
    second = subprocess.run(
        command, env=environment(), cwd=up.data.parent, capture_output=True, text=True, timeout=60
    )
    assert second.returncode == 1
    assert str(up.process.pid) in second.stderr
    assert str(up.data) in second.stderr


def test_a_port_in_use_is_refused(up: Up, tmp_path: Path) -> None:
    port = up.url.rpartition(":")[2]
    with running(tmp_path / "other", "--port", port) as other:
        assert other.process.wait(30) == 1
        assert f"port {port} on 127.0.0.1 is in use" in other.out


def test_listening_beyond_this_machine_without_keys_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "open", "--host", "0.0.0.0", "--port", "0") as up:
        assert up.process.wait(30) == 2
        assert "GATEWAY_API_KEYS" in up.out


def test_ctrl_c_while_a_stream_runs_ends_all_within_five_seconds(tmp_path: Path) -> None:
    with running(tmp_path / "up") as up:
        up.complete()
        children = processes_of(up.process.pid)
        assert len(children) == 5
        body = {"model": "mock", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        headers = {"Authorization": "Bearer dev-key", "X-Mock": "chunks=1000,interval=0.1"}
        request = httpx.stream(
            "POST", f"{up.url}/v1/chat/completions", json=body, headers=headers, timeout=30
        )
        with request as response:
            next(response.iter_lines())
            begun = time.monotonic()
            assert up.stop(signal.SIGINT) == 0
            assert time.monotonic() - begun < 5
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
        assert not [line for line in up.logs if "is killed" in str(line["message"])]


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with running(tmp_path / "up") as up:
        children = processes_of(up.complete().process.pid)
        up.process.kill()
        up.process.wait()

        def gone(pid: int) -> bool:
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                return True
            return stat.rpartition(")")[2].split()[0] == "Z"

        until(lambda: all(map(gone, children)), 5.0)


def test_a_restart_keeps_the_admin_token_and_the_ledger_and_shows_neither(tmp_path: Path) -> None:
    with running(tmp_path / "up") as up:
        assert up.serving().ask().status_code == 200
        token = (up.data / "admin_token").read_text().strip()
        assert token in up.out
        assert up.stop() == 0
    with running(tmp_path / "up") as up:
        up.complete()
        assert token not in up.out
        assert (up.data / "admin_token").read_text().strip() == token
        query = "select count() from events"
        until(lambda: nexus(up, "sql", query, "--format", "csv").stdout.split()[-1:] != ["0"])
        assert up.stop() == 0


def test_the_server_secret_is_made_once_given_to_every_role_and_never_shown(tmp_path: Path) -> None:
    secrets = []
    for _ in range(2):
        with running(tmp_path / "up") as up:
            up.complete()
            secrets.append((up.data / "secret").read_text().strip())
            roles = [pid for pid, line in processes_of(up.process.pid).items() if "cli" in line]
            given = [Path(f"/proc/{pid}/environ").read_text().split("\0") for pid in roles]
            assert len(given) == len(ROLES)
            assert all(f"NEXUS_SECRET={secrets[0]}" in variables for variables in given)
            assert up.stop() == 0
            assert secrets[0] not in up.out + json.dumps(up.logs)
            assert "NEXUS_SECRET" not in up.out
    assert secrets[0] == secrets[1]
    assert (tmp_path / "up/data/secret").stat().st_mode & 0o777 == 0o600


def test_several_ingresses_and_workers_share_one_port(tmp_path: Path) -> None:
    with running(tmp_path / "up", "--port", "0", "--ingress", "2", "--workers", "2") as up:
        up.serving()
        commands = list(processes_of(up.process.pid).values())
        assert len([c for c in commands if "compose.cli ingress" in c]) == 2
        assert len([c for c in commands if "compose.cli worker" in c]) == 2
        assert [up.ask().status_code for _ in range(10)] == [200] * 10
        assert up.stop(signal.SIGTERM) == 0
