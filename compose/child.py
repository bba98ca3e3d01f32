"""One child process: started so that it never outlives this process, and heard when it is ready."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

READY_FD = "NEXUS_READY_FD"
_PR_SET_PDEATHSIG = 1


def die_with_parent(how: signal.Signals) -> Callable[[], None] | None:
    """What a child does between fork and exec, so that a killed parent takes it along (Linux).

    The child dies with the thread that forked it: start children from the main thread.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask_for_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, how)
        if os.getppid() != parent:
            os._exit(1)

    return ask_for_signal


class Child:
    """A command that can be started again and again, in a session and process group of its own.

    `environ` gives the whole environment at each start. The child says that it is ready by writing
    to the file descriptor whose number it finds there as NEXUS_READY_FD. `pass_fds` keep their
    numbers in the child. No method blocks.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environ: Callable[[], Mapping[str, str]] = lambda: os.environ,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._argv = list(argv)
        self._environ = environ
        self._pass_fds = tuple(pass_fds)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> int:
        """Start the process; the result is a file descriptor to read its readiness from.

        It gives one or more bytes once the child is ready, and its end when the child has gone.
        Closing it is left to the caller. Raises OSError when the command cannot be run.
        """
        heard, told = os.pipe()
        try:
            self._process = subprocess.Popen(
                self._argv,
                env={**self._environ(), READY_FD: str(told)},
                stdin=subprocess.DEVNULL,
                pass_fds=(*self._pass_fds, told),
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        except BaseException:
            os.close(heard)
            raise
        finally:
            os.close(told)
        return heard

    def exit_code(self) -> int | None:
        """How the process ended (negative: by which signal); None while it runs."""
        return None if self._process is None else self._process.poll()

    def terminate(self) -> None:
        """Ask the process to finish what it does and go."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End the process and whatever it has started, now."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
