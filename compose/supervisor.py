"""Keeps a bus and the processes around it alive, and ends them in order."""

import logging
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import NamedTuple, Protocol

from compose.nats_server import NatsServerError

log = logging.getLogger("nexus.up")

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BUS_STOPS_BY = 4.7
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_PROVEN_AFTER = 10.0
_TRIES_BEFORE_SERVING = 3
_DEATH_TAKES = 0.3


class Process(Protocol):
    """What can be kept alive; `compose.child.Child` says what each method means."""

    name: str

    @property
    def pid(self) -> int | None: ...

    def start(self) -> int | None:
        """Start it; None when it is ready already, else where to hear of its readiness."""
        ...

    def exit_code(self) -> int | None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Stage(NamedTuple):
    """Processes that are asked to stop together, and killed `stop_by` seconds after the stop began.

    Nothing is served until all of an `essential` stage are ready.
    """

    processes: Sequence[Process]
    stop_by: float
    essential: bool = True


class StartFailed(Exception):
    """Something that is needed ended again and again before it was ready; the text says what."""


class _Interrupted(Exception):
    """A stop was asked for while a start was blocking."""


@dataclass
class _Life:
    """One process and how it fares; times are monotonic seconds."""

    process: Process
    essential: bool
    running: bool = False
    ready: bool = False
    was_ready: bool = False
    started: float = 0.0
    pause: float = 0.0
    start_at: float = 0.0
    ended_early: int = 0

    def next_pause(self, now: float) -> float:
        """How long to wait before the next start: doubled each time, short after a proven life."""
        if now - self.started >= _PROVEN_AFTER:
            return _SHORTEST_PAUSE
        return min(max(_SHORTEST_PAUSE, 2 * self.pause), _LONGEST_PAUSE)


class Supervisor:
    """Starts the bus, then all that is essential at once, then the rest; restarts what dies; stops
    by stages, the bus last.

    `on_ready(name, seconds)` is called for each first readiness, `on_serving()` once all that is
    essential is ready, `on_stop()` when a stop begins. Run it in the main thread: it takes over the
    signals, and its children die with the thread that started them.
    """

    def __init__(
        self,
        bus: Process,
        stages: Sequence[Stage],
        *,
        on_ready: Callable[[str, float], None],
        on_serving: Callable[[], None],
        on_stop: Callable[[], None],
    ) -> None:
        self._bus = _Life(bus, essential=True)
        self._stages = [
            ([_Life(process, stage.essential) for process in stage.processes], stage.stop_by)
            for stage in stages
        ]
        self._stages.append(([self._bus], _BUS_STOPS_BY))
        self._lives = [life for lives, _ in self._stages for life in lives]
        for life in self._lives:
            # What can wait would only slow the start of what cannot: loading code takes processors.
            life.start_at = 0.0 if life.essential else math.inf
        self._on_ready = on_ready
        self._on_serving = on_serving
        self._on_stop = on_stop
        self._serving = False
        self._stops_asked = 0
        self._stopping = False
        self._bus_is_starting = False
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP, then stop everything in order.

        A second signal kills what is still there. Raises StartFailed, with nothing left running.
        """
        with self._signals():
            try:
                self._start(self._bus)
                while not self._stops_asked:
                    self._start_what_is_due()
                    self._wait(self._until_next_start())
                    self._notice_the_dead()
            except _Interrupted:
                pass
            finally:
                self._stop()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Hear stop signals and the death of children as bytes on a socket that `_wait` watches."""
        heard, told = socket.socketpair()
        heard.setblocking(False)
        told.setblocking(False)
        # Who ignores a hang-up wants to live on without the terminal (nohup).
        ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
        previous = {
            number: signal.signal(number, self._on_signal)
            for number in _STOP_SIGNALS
            if number not in ignored
        }
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        previous_fd = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        self._selector.register(heard, selectors.EVENT_READ)
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous_fd)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._selector.close()
            heard.close()
            told.close()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stops_asked += 1
        if self._bus_is_starting:
            raise _Interrupted

    def _start(self, life: _Life) -> None:
        life.started = time.monotonic()
        # The start of the bus waits until it is ready, and a stop must not wait for that.
        self._bus_is_starting = life is self._bus
        try:
            if self._stops_asked:
                raise _Interrupted
            ready_fd = life.process.start()
        finally:
            self._bus_is_starting = False
        life.running = True
        extra = {"child": life.process.name, "pid": life.process.pid}
        log.info("%s started", life.process.name, extra=extra)
        if ready_fd is None:
            self._is_ready(life)
        else:
            self._selector.register(ready_fd, selectors.EVENT_READ, life)

    def _wait(self, timeout: float | None) -> None:
        """Sleep until a signal, a readiness or the timeout; take note of what is ready."""
        for key, _ in self._selector.select(timeout):
            if isinstance(key.fileobj, socket.socket):
                with suppress(BlockingIOError):
                    key.fileobj.recv(4096)
                continue
            said = os.read(key.fd, 16)
            self._selector.unregister(key.fd)
            os.close(key.fd)
            if said:
                self._is_ready(key.data)

    def _is_ready(self, life: _Life) -> None:
        life.ready = True
        if self._stopping:
            return
        if not life.was_ready:
            life.was_ready = True
            self._on_ready(life.process.name, time.monotonic() - life.started)
        if not self._serving and all(life.ready for life in self._lives if life.essential):
            self._serving = True
            self._on_serving()
            for other in self._lives:
                if not other.essential:
                    other.start_at = 0.0

    def _notice_the_dead(self) -> None:
        now = time.monotonic()
        for life in self._lives:
            if life.running and (code := life.process.exit_code()) is not None:
                self._ended(life, now, f"ended with {_told(code)}", code)

    def _ended(self, life: _Life, now: float, how: str, code: int | None = None) -> None:
        life.running = life.ready = False
        life.pause = life.next_pause(now)
        life.start_at = now + life.pause
        fields = {"child": life.process.name, "pid": life.process.pid, "exit_code": code}
        log.warning("%s %s", life.process.name, how, extra={**fields, "again_in_s": life.pause})
        if not self._serving and life.essential and not life.was_ready:
            life.ended_early += 1
            if life.ended_early == _TRIES_BEFORE_SERVING:
                raise StartFailed(f"{life.process.name} does not start: it {how} each time")

    def _until_next_start(self) -> float | None:
        first = min((life.start_at for life in self._lives if not life.running), default=math.inf)
        return None if first == math.inf else max(0.0, first - time.monotonic())

    def _start_what_is_due(self) -> None:
        for life in self._lives:
            now = time.monotonic()
            if not life.running and life.start_at <= now:
                try:
                    self._start(life)
                except (OSError, NatsServerError) as error:
                    self._ended(life, now, f"could not be started: {error}")

    def _stop(self) -> None:
        """Stop stage by stage; what does not stop in time, or after a second signal, is killed."""
        self._stopping = True
        self._on_stop()
        begun = time.monotonic()
        patience = max(1, self._stops_asked)
        for lives, stop_by in self._stages:
            for life in _still(lives):
                life.process.terminate()
            while _still(lives) and self._stops_asked <= patience:
                remaining = begun + stop_by - time.monotonic()
                if remaining <= 0:
                    break
                self._wait(remaining)
            self._kill(_still(lives))

    def _kill(self, lives: Sequence[_Life]) -> None:
        for life in lives:
            log.warning("%s did not stop in time and is killed", life.process.name)
            life.process.kill()
        until = time.monotonic() + _DEATH_TAKES
        while _still(lives) and (remaining := until - time.monotonic()) > 0:
            self._wait(remaining)


def _still(lives: Sequence[_Life]) -> list[_Life]:
    return [
        life for life in lives if life.process.pid is not None and life.process.exit_code() is None
    ]


def _told(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"
