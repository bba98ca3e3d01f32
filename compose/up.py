"""`nexus up`: a bus and all roles on one machine, in one data directory, behind one socket."""

import os
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from msgspec import structs

from compose import claims, environment, logs, setup
from compose.banner import Facts, Progress, banner
from compose.child import Child
from compose.nats_server import NatsServer, NatsServerError
from compose.notices import NO_SECRET
from compose.roles import LISTEN_FD, Role
from compose.settings import Loaded
from compose.supervisor import Stage, StartFailed, Supervisor
from ledger.connection import BusRefused, Disconnected
from ledger.permissions import MONITOR
from ledger.streams import BusNotReady
from schemas.config import Config

Durability = Literal["normal", "strict"]

_SYNC_INTERVAL: dict[Durability, str] = {"normal": "1s", "strict": "always"}
_PACKAGES = Path(__file__).resolve().parents[1]


class _Patience(NamedTuple):
    """Seconds that a stop leaves a role: for running calls, and until it is killed, from the
    begin of the whole stop. All is over within five."""

    drain: float
    stop_by: float


# Once the ingress is gone nobody waits for an answer, so the worker need not finish what is left.
_PATIENCE: dict[Role, _Patience] = {
    "ingress": _Patience(drain=1.0, stop_by=2.0),
    "worker": _Patience(drain=0.5, stop_by=3.2),
    "governor": _Patience(drain=0.5, stop_by=3.7),
    "analytics": _Patience(drain=0.5, stop_by=4.5),
}


@dataclass(frozen=True)
class Shape:
    """How many processes of the roles that scale, and how hard the bus writes to disk."""

    ingresses: int = 1
    workers: int = 1
    durability: Durability = "normal"


def up(loaded: Loaded, config_file: str | None, shape: Shape) -> int:
    """Serve until a signal ends it; the result is the exit code.

    Takes the data directory and the port, starts everything and keeps it alive. Raises
    claims.CannotStart when one of the two cannot be taken; nothing was started then.
    """
    begun = time.monotonic()
    config = loaded.config
    data_dir = Path(config.data_dir).absolute()
    progress = Progress(sys.stderr)
    for notice in loaded.notices:
        if notice != NO_SECRET:
            progress.say(notice)
    with claims.data_directory(data_dir), claims.listening(config.host, config.port) as listener:
        logs.start("up", config.log_level)
        token = claims.admin_token(config.admin_token, data_dir)
        secret = claims.server_secret(config.secret, data_dir)
        config = msgspec.structs.replace(config, secret=secret)
        machine = _Machine(config, config_file, shape, data_dir, token, listener)
        supervisor = Supervisor(
            machine.bus,
            machine.stages(),
            on_ready=progress.ready,
            on_serving=lambda: progress.say(banner(machine.facts(time.monotonic() - begun))),
            on_stop=listener.close,
        )
        progress.say("starting nats-server, ingress, worker, governor, analytics")
        try:
            supervisor.run()
        except (StartFailed, NatsServerError) as error:
            progress.say(f"nexus up: {error}")
            return 1
        finally:
            machine.bus.close()
    progress.say("Nexus has stopped.")
    return 0


class _Bus:
    """The nats-server as the supervisor wants to see it; its start returns when it is ready and
    has every stream: the roles may not make them."""

    name = "nats-server"

    def __init__(self, server: NatsServer, config: Config) -> None:
        self.server = server
        self._config = config

    @property
    def pid(self) -> int | None:
        return self.server.pid

    def start(self) -> None:
        self.server.start()
        bus = structs.replace(self._config.bus, url=self.server.url)
        config = structs.replace(self._config, bus=bus)
        try:
            setup.prepare(config)
        except (Disconnected, BusRefused, BusNotReady) as error:
            raise NatsServerError(f"its streams could not be set up: {error}") from error

    def exit_code(self) -> int | None:
        return self.server.wait(0)

    def terminate(self) -> None:
        if self.server.running and self.server.pid is not None:
            os.kill(self.server.pid, signal.SIGTERM)

    def kill(self) -> None:
        self.server.kill()

    def close(self) -> None:
        """Give back the lock on the store."""
        self.server.stop()


class _Machine:
    """All parts of one machine and what they have to know of each other."""

    def __init__(
        self,
        config: Config,
        config_file: str | None,
        shape: Shape,
        data_dir: Path,
        token: claims.AdminToken,
        listener: socket.socket,
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._shape = shape
        self._data_dir = data_dir
        self._token = token
        self._listen_fd = listener.fileno()
        self._port = int(listener.getsockname()[1])
        self.bus = _Bus(
            NatsServer(data_dir / "nats", sync_interval=_SYNC_INTERVAL[shape.durability]), config
        )

    def stages(self) -> list[Stage]:
        """The roles in the order in which they stop."""
        return [
            self._stage("ingress", self._shape.ingresses),
            self._stage("worker", self._shape.workers),
            self._stage("governor", essential=False),
            self._stage("analytics", essential=False),
        ]

    def facts(self, seconds: float) -> Facts:
        """What to tell the operator once the API is served, `seconds` after the start."""
        return Facts(
            config=self._config,
            port=self._port,
            bus=f"nats://{MONITOR}@127.0.0.1:{self.bus.server.port}",
            bus_password=self.bus.server.password_path(MONITOR),
            data_dir=self._data_dir,
            token=self._token,
            durability=self._shape.durability,
            seconds=seconds,
        )

    def _stage(self, role: Role, count: int = 1, *, essential: bool = True) -> Stage:
        names = [role] if count == 1 else [f"{role}-{number + 1}" for number in range(count)]
        # -P: the directory we were started in must not be searched for modules.
        argv = [sys.executable, "-P", "-m", "compose.cli", role]
        listen_fds = (self._listen_fd,) if role == "ingress" else ()
        environ = partial(self._environment, role)
        children = [Child(name, argv, environ, listen_fds) for name in names]
        return Stage(children, _PATIENCE[role].stop_by, essential)

    def _environment(self, role: Role) -> Mapping[str, str]:
        """What was decided here goes to every child as variables, which win over the file."""
        settings = {
            "host": self._config.host,
            "port": self._port,
            "data_dir": str(self._data_dir),
            "log_level": self._config.log_level,
            "mock_all": self._config.mock_all,
            "api_keys": self._config.api_keys,
            # Else the keys, which come as GATEWAY_API_KEYS, would bring the default with them.
            "limits.requests_per_minute": self._config.limits.requests_per_minute or 0,
            "admin_token": self._token.value,
            "secret": self._config.secret,
            "bus.url": self.bus.server.url_of(role),
            "drain": _PATIENCE[role].drain,
        }
        file = {} if self._config_file is None else {"CONFIG_PATH": self._config_file}
        own = {**environment.for_child(settings), LISTEN_FD: str(self._listen_fd)}
        return {**os.environ, **_import_path(), **file, **own}


def _import_path() -> dict[str, str]:
    """Lets a child find these packages also when they are not installed."""
    if str(_PACKAGES) in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return {}
    others = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(_PACKAGES), others)))}
