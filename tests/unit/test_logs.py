"""Log lines, as a process of its own writes them."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def lines_of(program: str, role: str = "worker", level: str = "info") -> list[dict[str, Any]]:
    """What a program writes to stdout after `logs.start`, one decoded line each."""
    start = f"import logging\nfrom compose import logs\nlogs.start({role!r}, {level!r})\n"
    process = subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        timeout=30,
    )
    assert process.stderr == b""
    return [json.loads(line) for line in process.stdout.splitlines()]


def test_a_line_has_time_level_role_message_and_the_extra_fields() -> None:
    (line,) = lines_of(
        """
        extra = {"request_id": "req_1", "status": 200, "usd": 0.5, "stream": False, "key": None}
        logging.getLogger("nexus.calls").info("call %s", "done", extra=extra)
        """
    )
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "role": "worker",
        "message": "call done",
        "request_id": "req_1",
        "status": 200,
        "usd": 0.5,
        "stream": False,
        "key": None,
    }


def test_the_time_is_utc_with_microseconds() -> None:
    (line,) = lines_of(
        """
        import os, time
        os.environ["TZ"] = "Asia/Tokyo"
        time.tzset()
        record = logging.makeLogRecord({"msg": "then", "created": 0.25, "levelno": 20})
        logging.getLogger().handle(record)
        """
    )
    assert line["time"] == "1970-01-01T00:00:00.250000Z"


@pytest.mark.parametrize(
    ("level", "heard"),
    [("debug", ["a", "b", "c"]), ("info", ["b", "c"]), ("warning", ["c"]), ("error", [])],
)
def test_the_level_decides_what_is_heard(level: str, heard: list[str]) -> None:
    lines = lines_of("log = logging.getLogger('nexus')\nlog.debug('a')\nlog.info('b')\n"
                     "log.warning('c')", level=level)  # fmt: skip
    assert [line["message"] for line in lines] == heard


def test_an_exception_is_told_in_one_line() -> None:
    (line,) = lines_of(
        """
        try:
            {}["absent"]
        except KeyError:
            logging.getLogger("nexus").exception("failed")
        """
    )
    assert line["error"] == "KeyError('absent')"
    assert line["traceback"].startswith("Traceback")


def test_text_that_json_cannot_hold_does_not_lose_the_line() -> None:
    lines = lines_of(
        r"""
        log = logging.getLogger("nexus")
        log.info("model \ud800\n%s", 2**80, extra={"model": "a\ud800b", "tokens": 2**80})
        log.info("object", extra={"path": object, "ratio": float("nan")})
        """
    )
    assert lines[0]["model"] == "a?b"
    assert lines[0]["tokens"] == str(2**80)
    assert lines[1]["path"] == "<class 'object'>"
    assert lines[1]["ratio"] is None


def test_an_extra_field_cannot_pretend_to_be_another_role_or_time() -> None:
    (line,) = lines_of("logging.getLogger().info('x', extra={'role': 'admin', 'time': 'never'})")
    assert line["role"] == "worker"
    assert line["time"] != "never"


def test_libraries_are_heard_from_warnings_up_and_access_logs_never() -> None:
    lines = lines_of(
        """
        logging.getLogger("uvicorn.error").info("started")
        logging.getLogger("uvicorn.error").warning("odd")
        logging.getLogger("uvicorn.access").error("GET /")
        """
    )
    assert [line["message"] for line in lines] == ["odd"]


def test_a_killed_process_has_lost_no_line() -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal, logging\nfrom compose import logs\nlogs.start('worker')\n"
            "for n in range(100): logging.getLogger().info('line', extra={'n': n})\n"
            "os.kill(os.getpid(), signal.SIGKILL)",
        ],
        cwd=ROOT,
        capture_output=True,
        timeout=30,
    )
    assert [json.loads(line)["n"] for line in process.stdout.splitlines()] == list(range(100))


def test_a_closed_stdout_does_not_disturb_the_process() -> None:
    process = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" | true; exit "${PIPESTATUS[0]}"', sys.executable,
         "import logging, time\nfrom compose import logs\nlogs.start('worker')\n"
         "for n in range(200):\n    logging.getLogger().info('line')\n    time.sleep(0.001)"],
        cwd=ROOT,
        capture_output=True,
        timeout=30,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, b"")
