"""Runs one role in this process: event loop, logs, and word to the supervisor that it is ready."""

import logging
import os
import socket
from collections.abc import Coroutine
from typing import Any, Literal

from compose import logs
from compose.child import READY_FD
from schemas.config import Config, Unusable

Role = Literal["ingress", "worker", "governor", "analytics"]
LISTEN_FD = "NEXUS_LISTEN_FD"

# On one machine a projection may lag; a call may not wait for it.
_BEHIND_THE_CALLS = 10

log = logging.getLogger("nexus.roles")


def run(role: Role, config: Config, pools: list[str] | None = None) -> int:
    """Run a role until SIGTERM or SIGINT has been followed; the result is an exit code.

    `pools` limits a worker to some queues. An ingress that has a supervisor takes the listening
    socket from it; else it binds `config.host` and `config.port` itself.
    """
    import uvloop

    logs.start(role, config.log_level)
    try:
        uvloop.run(_running(role, config, pools))
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            log.critical("%s ended with an error", role, exc_info=True)
        else:
            log.critical("%s ends: %s", role, reason)
        return 1
    return 0


def _reason(error: BaseException) -> str | None:
    """What the operator can mend: the bus could not be used, or a setting; None for all else."""
    from ledger.connection import BusRefused, Disconnected
    from ledger.reader import Unreadable
    from ledger.streams import BusNotReady

    if isinstance(error, BaseExceptionGroup):
        reasons = [_reason(one) for one in error.exceptions]
        return reasons[0] if all(reasons) else None
    if isinstance(error, Disconnected):
        return f"{error} (NEXUS_NATS_URL says where the bus is)"
    known = BusRefused | BusNotReady | Unreadable | Unusable
    return str(error) if isinstance(error, known) else None


def ready() -> None:
    """Tell the supervisor, if there is one, that this role can do its work."""
    descriptor = os.environ.pop(READY_FD, None)
    if descriptor is not None:
        os.write(int(descriptor), b"ready\n")
        os.close(int(descriptor))


def supervised() -> bool:
    """Whether a supervisor waits to hear that this process is ready."""
    return READY_FD in os.environ


def _running(role: Role, config: Config, pools: list[str] | None) -> Coroutine[Any, Any, None]:
    """The role's own coroutine; each imports only what it needs itself."""
    if role == "ingress":
        from ingress.app import run_ingress

        return run_ingress(config, _inherited_socket(), on_ready=ready)
    if role == "worker":
        from workers.app import run_worker

        return run_worker(config, pools, on_ready=ready)
    if role == "governor":
        from ledger.governor import run_governor

        return run_governor(config, on_ready=ready)
    from analytics.app import run_analytics

    if supervised():
        os.nice(_BEHIND_THE_CALLS)
    return run_analytics(config, on_ready=ready)


def _inherited_socket() -> list[socket.socket] | None:
    descriptor = os.environ.pop(LISTEN_FD, None)
    return None if descriptor is None else [socket.socket(fileno=int(descriptor))]
