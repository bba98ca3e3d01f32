"""Finds the bus that `nexus up` runs on this machine, so that its operator needs no settings."""

import json
from pathlib import Path

from compose.settings import Loaded
from ledger.permissions import OPERATOR
from schemas.config import BusConfig


def bus_for_operator(loaded: Loaded) -> BusConfig:
    """The configured bus; where none is, the own one of the data directory, as its operator."""
    bus = loaded.config.bus
    if "bus.url" in loaded.origins:
        return bus
    url = _running(Path(loaded.config.data_dir) / "nats")
    return bus if url is None else BusConfig(url=url)


def _running(directory: Path) -> str | None:
    """The server writes its ports as it starts, and the files of older ones are removed then."""
    try:
        ports = max(directory.glob("*.ports"), key=lambda path: path.stat().st_mtime, default=None)
        if ports is None:
            return None
        port = int(json.loads(ports.read_bytes())["nats"][0].rpartition(":")[2])
        password = (directory / "users" / OPERATOR).read_text()
    except (OSError, ValueError, LookupError):
        return None
    return f"nats://{OPERATOR}:{password}@127.0.0.1:{port}"
