"""What `nexus up` takes before it starts anything: the data directory, the port, its secrets."""

import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_LOCK_FILE = "up.lock"
_TOKEN_FILE = "admin_token"
_SECRET_FILE = "secret"
_SECRET_BYTES = 32
_BACKLOG = 2048


class CannotStart(Exception):
    """Why Nexus does not start here and now, and what to do about it."""


class AdminToken(NamedTuple):
    """The token, the file that keeps it (None: it is configured), and whether it is new."""

    value: str
    path: Path | None = None
    new: bool = False


@contextmanager
def data_directory(path: Path) -> Iterator[None]:
    """Own a data directory, made if need be, as long as the block lasts.

    Raises CannotStart when another process owns it, naming that process, or it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotStart(f"the data directory cannot be used: {error}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise CannotStart(
                f"{path} is in use by another `nexus up` (process {owner}): stop that one, "
                "or choose another directory with --data-dir"
            ) from None
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening TCP socket for the block; port 0 takes any. Raises CannotStart when taken."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(
                f"port {port} on {host} is in use: stop what listens there, "
                "or choose another port with --port"
            ) from error
        raise CannotStart(f"cannot listen on {host}, port {port}: {error}") from error
    with listener:
        yield listener


def admin_token(configured: str, data_dir: Path) -> AdminToken:
    """The configured token, else the one kept in the data directory, else a new one, kept there.

    Only the owner of the directory may read the file.
    """
    if configured:
        return AdminToken(configured)
    path = token_file(data_dir)
    kept = read_token(data_dir)
    if kept:
        return AdminToken(kept, path)
    fresh = f"nx-admin-{secrets.token_urlsafe(24)}"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(fresh + "\n")
    return AdminToken(fresh, path, new=True)


def server_secret(configured: tuple[str, ...], data_dir: Path) -> tuple[str, ...]:
    """The configured server secret, and behind it the one kept in the data directory; without
    either a new one, kept there.

    Only the owner of the directory may read the file. A secret that is there is never replaced or
    forgotten: what was made with it would be lost. Raises CannotStart when it cannot be used.
    """
    path = data_dir / _SECRET_FILE
    try:
        if not path.exists():
            if configured:
                return configured
            _put_for_ever(path, secrets.token_urlsafe(_SECRET_BYTES))
        kept = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(f"the server secret cannot be used: {error}") from error
    if not kept:
        raise CannotStart(
            f"{path} is empty: put the server secret back from a backup, or remove the file; "
            "virtual keys that were made with it are not known without it"
        )
    return tuple(dict.fromkeys((*configured, kept)))


def _put_for_ever(path: Path, text: str) -> None:
    """Write a file for its owner only; it is there as a whole, also after a power cut, or not."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def token_file(data_dir: Path) -> Path:
    return data_dir / _TOKEN_FILE


def read_token(data_dir: Path) -> str | None:
    """The kept admin token; None where there is none, or none that this user may read."""
    try:
        return token_file(data_dir).read_text().strip() or None
    except OSError:
        return None
