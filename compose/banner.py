"""What `nexus up` tells the person who started it: progress, then where everything is."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from compose import show
from compose.claims import AdminToken
from compose.consistency import DEV_KEY
from schemas.config import Config

_DURABILITY = {
    "normal": "normal: acknowledged events survive the kill of any process; a power cut can cost "
    "the last second (--durability strict: nothing)",
    "strict": "strict: every event is on disk before it is acknowledged",
}


@dataclass(frozen=True)
class Facts:
    """What the banner says; `port` is the one that was taken, `seconds` how long the start took."""

    config: Config
    port: int
    bus: str
    bus_password: Path
    data_dir: Path
    token: AdminToken
    durability: str
    seconds: float

    @property
    def url(self) -> str:
        """Where the API answers on this machine, without a path."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.config.host, self.config.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class Progress:
    """Writes one line per thing that became ready, with a tick where a person is looking."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._tick = "\x1b[32m✓\x1b[0m " if out.isatty() else ""

    def ready(self, name: str, seconds: float) -> None:
        self.say(f"{self._tick}{name} ready {seconds * 1000:.0f} ms")

    def say(self, text: str) -> None:
        """Write a line at once; a terminal that has gone away is no reason to stop serving."""
        try:
            print(text, file=self._out, flush=True)
        except OSError:
            return


def banner(facts: Facts) -> str:
    """Where things are, which key opens them, and a line to paste that asks a first question."""
    rows = [
        ("API", f"{facts.url}/v1"),
        ("metrics", f"{facts.url}/metrics"),
        ("live events", f"{facts.url}/events (also: nexus tail)"),
        ("health", f"{facts.url}/health"),
        ("bus", f"{facts.bus} (hears agent.events.>; password in {facts.bus_password})"),
        ("key", _key(facts.config)),
        ("admin token", _admin(facts.token)),
        ("data", str(facts.data_dir)),
        ("durability", _DURABILITY[facts.durability]),
    ]
    width = max(len(name) for name, _ in rows) + 2
    table = "\n".join(f"  {name:<{width}}{value}" for name, value in rows)
    return (
        f"\nNexus serves after {facts.seconds:.1f} s. Ctrl-C ends it.\n\n{table}\n\n"
        f"Try it:\n\n{curl(facts)}\n"
    )


def curl(facts: Facts) -> str:
    """A command that works as pasted: with the key that needs no secret to be printed."""
    if _is_development(facts.config):
        credential = DEV_KEY
    elif facts.token.path is not None:
        credential = f"$(cat {shlex.quote(str(facts.token.path))})"
    else:
        credential = "$NEXUS_KEY"
    return show.curl(facts.url, f'"Authorization: Bearer {credential}"', _model(facts.config))


def _model(config: Config) -> str:
    # A pattern stands for names, and is none.
    named = [name for name in config.models if not {"*", "?"} & set(name)]
    if "mock" in config.providers or config.mock_all or not named:
        return "mock"
    return named[0]


def _is_development(config: Config) -> bool:
    return config.api_keys == (DEV_KEY,)


def _key(config: Config) -> str:
    if _is_development(config):
        return f"{DEV_KEY} (nothing is configured, so this one works, on this machine only)"
    if config.api_keys or config.keys:
        return "from configuration; the line below takes one from NEXUS_KEY"
    return "none is configured: make one with `nexus keys create`; the admin token opens all"


def _admin(token: AdminToken) -> str:
    if token.path is None:
        return "from configuration"
    if token.new:
        return f"{token.value} (new, shown only now, kept in {token.path})"
    return f"kept in {token.path}"
