"""The embedded ClickHouse: its directory, its walls, and what to say when it does not open."""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

# The grants take file(), url(), s3() and remote() away from the whole engine, ourselves included:
# a second wall behind the SQL gate. The file names itself as users_config because it holds both.
_CONFIG = """<clickhouse>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <mark_cache_size>67108864</mark_cache_size>
  <users_config>{path}</users_config>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password></password>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SELECT, INSERT, CREATE, DROP, ALTER, TRUNCATE, OPTIMIZE, SHOW, SYSTEM ON *.*</query>
        <query>GRANT TABLE ENGINE ON MergeTree</query>
        <query>GRANT TABLE ENGINE ON ReplacingMergeTree</query>
      </grants>
    </default>
  </users>
</clickhouse>
"""  # noqa: E501
_MEMORY = 2 * 1024**3


class EngineError(Exception):
    """The embedded engine cannot be used; the text says what to do."""


class Engine:
    """One directory that one process owns while the engine is open.

    Clients write inserts to temporary files, and a killed process leaves them behind with event
    data in them; so the process gets a temporary directory of its own, emptied at every start.
    """

    def __init__(self, directory: Path) -> None:
        self._dir = directory.absolute()
        self._anchor: Client | None = None
        self._tempdir_before: str | None = None

    def open(self) -> None:
        """Take the directory and keep it until `close`; blocks for seconds (the first import).

        Raises EngineError. Opening again what is open does nothing.
        """
        if self._anchor is not None:
            return
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = self._dir / "engine.xml"
        config.write_text(_CONFIG.format(memory=_MEMORY, path=config))
        self._anchor = self.connect({})
        self._use_own_temporary_directory()

    def connect(self, settings: dict[str, Any]) -> "Client":
        """A client of its own; settings are applied in their order."""
        try:
            import chdb  # noqa: F401
            from clickhouse_connect import get_client
            from clickhouse_connect.driver.exceptions import ProgrammingError
        except ImportError as error:
            raise EngineError(
                "the embedded database is not installed: install nexus-gateway[local] "
                "or set NEXUS_CLICKHOUSE_URL"
            ) from error
        try:
            return get_client(
                interface="chdb",
                path=str(self._dir / "store"),
                chdb_options={"config-file": str(self._dir / "engine.xml")},
                settings=settings,
                show_clickhouse_errors="scrub",
                tz_mode="aware",
            )
        except ProgrammingError as error:
            raise EngineError(self._why_it_does_not_open(str(error))) from error

    def close(self) -> None:
        """Let the directory go; clients made by `connect` must be closed by then."""
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None
            tempfile.tempdir = self._tempdir_before

    def _use_own_temporary_directory(self) -> None:
        own = self._dir / "tmp"
        own.mkdir(exist_ok=True, mode=0o700)
        for orphan in own.glob("tmp*"):
            orphan.unlink()
        self._tempdir_before = tempfile.tempdir
        tempfile.tempdir = str(own)

    def _why_it_does_not_open(self, said: str) -> str:
        """The engine says nothing about the lock it did not get, so look at the lock itself."""
        try:
            lock = os.open(self._dir / "store" / "status", os.O_RDWR)
        except OSError:
            return f"the embedded database in {self._dir} does not open: {said}"
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return (
                f"another process already uses the database in {self._dir}: stop it, or ask it "
                "over the bus; only one process may own an embedded database"
            )
        else:
            return f"the embedded database in {self._dir} does not open: {said}"
        finally:
            os.close(lock)
