"""A nats-server with a configuration of the test's own, as an operator may have one."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compose.nats_server import find_binary


@contextmanager
def server_with(config: str, folder: Path) -> Iterator[int]:
    """Runs it on loopback while the block lasts; gives its port."""
    path = folder / "own.conf"
    path.write_text(f'host: 127.0.0.1\nport: -1\nports_file_dir: "{folder}"\n{config}')
    with (folder / "own.log").open("wb") as log:
        process = subprocess.Popen([str(find_binary()), "-c", str(path)], stderr=log)
    ports = folder / f"nats-server_{process.pid}.ports"
    try:
        give_up = time.monotonic() + 10.0
        while not (ports.exists() and ports.read_text()):
            said = (folder / "own.log").read_text()
            assert process.poll() is None and time.monotonic() < give_up, said
            time.sleep(0.005)
        yield int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()
