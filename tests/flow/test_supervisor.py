"""The supervisor with small real processes: signals, deaths, order, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# A child that keeps a journal: when it started, when it was asked to stop, when it went.
CHILD = """
import json, os, signal, sys, time
name, journal, wish = sys.argv[1:4]
def note(what):
    line = json.dumps({"name": name, "what": what, "pid": os.getpid()}) + "\\n"
    with open(journal, "a") as file:
        file.write(line)
def stop(*_):
    note("asked")
    if wish != "stubborn":
        note("gone")
        os._exit(0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, lambda *_: note("interrupted"))
note("started")
if wish == "broken":
    sys.exit(3)
if wish != "silent":
    os.write(int(os.environ["NEXUS_READY_FD"]), b"ready")
while True:
    time.sleep(60)
"""

# The supervisor with the processes that its arguments name, telling what it sees on stdout.
SUPERVISED = """
import json, sys
from compose import logs
from compose.child import Child
from compose.supervisor import Stage, StartFailed, Supervisor
script, journal, wishes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
def child(name):
    return Child(name, [sys.executable, script, name, journal, wishes.get(name, "")])
def say(what):
    print(what, flush=True)
logs.start("up")
supervisor = Supervisor(
    child("bus"),
    [
        Stage([child("ingress-1"), child("ingress-2")], 1.0),
        Stage([child("worker")], 2.0),
        Stage([child("analytics")], 3.0, essential=False),
    ],
    on_ready=lambda name, seconds: None,
    on_serving=lambda: say("serving"),
    on_stop=lambda: say("stopping"),
)
try:
    supervisor.run()
except StartFailed as error:
    say(f"failed: {error}")
    sys.exit(1)
"""


class Supervised:
    """A running supervisor and the journal of its children."""

    def __init__(self, folder: Path, wishes: dict[str, str]) -> None:
        script, program = folder / "child.py", folder / "supervised.py"
        script.write_text(CHILD)
        program.write_text(SUPERVISED)
        self.journal = folder / "journal"
        self.journal.touch()
        self.out = folder / "out"
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, str(program), str(script), str(self.journal), json.dumps(wishes)],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )

    def notes(self) -> list[tuple[str, str]]:
        return [(entry["name"], entry["what"]) for entry in self._entries()]

    def pids(self, name: str) -> list[int]:
        """The process ids that a child has had, oldest first."""
        return [e["pid"] for e in self._entries() if (e["name"], e["what"]) == (name, "started")]

    def all_pids(self) -> set[int]:
        return {entry["pid"] for entry in self._entries()}

    def _entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.journal.read_text().splitlines()]

    def said(self, text: str) -> bool:
        return text in self.out.read_text()

    def serving(self) -> "Supervised":
        """Wait until it serves and each of the five children has begun."""
        until(lambda: self.said("serving") and len(self.all_pids()) == 5)
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """Starts supervisors; whatever a test leaves running is killed by its own id."""
    started: list[Supervised] = []

    def start(**wishes: str) -> Supervised:
        named = {name.replace("_", "-"): wish for name, wish in wishes.items()}
        started.append(Supervised(tmp_path, named))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


Start = Callable[..., Supervised]


def test_a_stop_goes_through_the_stages_in_order_and_the_bus_is_last(supervised: Start) -> None:
    one = supervised().serving()
    assert one.stop() == 0
    gone = [name for name, what in one.notes() if what == "gone"]
    assert sorted(gone[:2]) == ["ingress-1", "ingress-2"]
    assert gone[2:] == ["worker", "analytics", "bus"]
    assert one.said("stopping")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_stop_signal_leaves_no_process(supervised: Start, number: signal.Signals) -> None:
    one = supervised().serving()
    assert one.stop(number) == 0
    assert not any(map(alive, one.all_pids()))


def test_a_signal_to_the_terminal_reaches_the_supervisor_alone(supervised: Start) -> None:
    one = supervised().serving()
    os.killpg(one.process.pid, signal.SIGINT)
    assert one.process.wait(10) == 0
    assert not [name for name, what in one.notes() if what == "interrupted"]


@pytest.mark.parametrize("name", ["bus", "ingress-2", "worker", "analytics"])
def test_a_killed_process_is_started_again(supervised: Start, name: str) -> None:
    one = supervised().serving()
    os.kill(one.pids(name)[0], signal.SIGKILL)
    until(lambda: len(one.pids(name)) == 2)
    assert one.said("SIGKILL")
    assert one.stop() == 0
    assert not any(map(alive, one.all_pids()))


def test_a_process_that_dies_often_is_given_longer_pauses(supervised: Start) -> None:
    one = supervised().serving()
    for count in (1, 2, 3):
        until(lambda count=count: len(one.pids("worker")) == count)
        os.kill(one.pids("worker")[-1], signal.SIGKILL)
    until(lambda: one.out.read_text().count("again_in_s") == 3)
    lines = [json.loads(line) for line in one.out.read_text().splitlines() if line[0] == "{"]
    assert [line["again_in_s"] for line in lines if "again_in_s" in line] == [0.1, 0.2, 0.4]


def test_a_process_that_ignores_the_request_is_killed_in_its_turn(supervised: Start) -> None:
    one = supervised(ingress_1="stubborn", worker="stubborn").serving()
    begun = time.monotonic()
    assert one.stop() == 0
    assert time.monotonic() - begun < 5
    assert not any(map(alive, one.all_pids()))
    assert one.said("ingress-1 did not stop in time and is killed")
    gone = [name for name, what in one.notes() if what == "gone"]
    assert gone == ["ingress-2", "analytics", "bus"]


def test_a_second_signal_hurries(supervised: Start) -> None:
    one = supervised(ingress_1="stubborn", ingress_2="stubborn", worker="stubborn").serving()
    one.process.send_signal(signal.SIGINT)
    until(lambda: ("ingress-1", "asked") in one.notes())
    begun = time.monotonic()
    assert one.stop(signal.SIGINT) == 0
    assert time.monotonic() - begun < 1
    assert not any(map(alive, one.all_pids()))


def test_nothing_outlives_a_supervisor_that_was_killed(supervised: Start) -> None:
    one = supervised(worker="stubborn").serving()
    one.process.kill()
    one.process.wait()
    until(lambda: not any(map(alive, one.all_pids())))


def test_it_serves_although_what_is_not_essential_is_not_ready(supervised: Start) -> None:
    one = supervised(analytics="silent").serving()
    assert one.stop() == 0


def test_it_does_not_serve_before_all_that_is_essential_is_ready(supervised: Start) -> None:
    one = supervised(ingress_2="silent")
    until(lambda: len(one.all_pids()) == 4)
    assert one.stop() == 0
    assert not one.said("serving")
    assert not one.pids("analytics")


def test_a_start_that_cannot_succeed_ends_with_the_reason(supervised: Start) -> None:
    one = supervised(worker="broken")
    assert one.process.wait(20) == 1
    assert one.said("failed: worker does not start: it ended with exit code 3 each time")
    assert len(one.pids("worker")) == 3
    assert not any(map(alive, one.all_pids()))
