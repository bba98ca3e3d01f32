"""ClickHouse by one client library, embedded or over HTTP, without blocking the event loop."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast
from urllib.parse import unquote, urlsplit

from analytics.engine import Engine, EngineError
from schemas.config import Config

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from clickhouse_connect.driver.query import QueryResult

log = logging.getLogger("nexus.analytics")

Result = TypeVar("Result")

# A batch is inserted before its rollups are computed from it, so the server must not hold it back;
# a rebuild may write many months at once.
WRITING: Mapping[str, Any] = {
    "session_timezone": "UTC",
    "async_insert": 0,
    "max_partitions_per_insert_block": 0,
}
READING: Mapping[str, Any] = {"session_timezone": "UTC", "max_execution_time": 30, "readonly": 1}


class StoreFailed(Exception):
    """The database refused or broke; `code` is ClickHouse's error number, None without one."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Table(NamedTuple):
    """Rows of a query; `more` when there were others beyond the number asked for."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[Sequence[Any]]
    more: bool = False


class Backend(Protocol):
    """Where ClickHouse runs: `open` before the first client, `close` after the last."""

    def open(self) -> None: ...

    def connect(self, settings: dict[str, Any]) -> "Client": ...

    def close(self) -> None: ...


class Server:
    """A ClickHouse server or cluster reached over HTTP."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._arguments: dict[str, Any] = {
            "interface": parts.scheme,
            "host": parts.hostname,
            "port": parts.port or (8443 if parts.scheme == "https" else 8123),
            "username": unquote(parts.username or "default"),
            "password": unquote(parts.password or ""),
        }

    def open(self) -> None:
        self.connect({}).close()

    def connect(self, settings: dict[str, Any]) -> "Client":
        import clickhouse_connect

        return clickhouse_connect.get_client(
            **self._arguments,
            settings=settings,
            autogenerate_session_id=False,
            show_clickhouse_errors="scrub",
            tz_mode="aware",
        )

    def close(self) -> None:
        """Nothing is kept open between clients."""


class Database:
    """One database of a backend, from which stores are opened."""

    def __init__(self, backend: Backend, name: str) -> None:
        self.name = name
        self._backend = backend

    @classmethod
    def of(cls, config: Config) -> "Database":
        """The server of `clickhouse_url` (its path is the database), else the embedded engine."""
        if config.clickhouse_url:
            name = urlsplit(config.clickhouse_url).path.strip("/") or "nexus"
            return cls(Server(config.clickhouse_url), name)
        return cls(Engine(Path(config.data_dir) / "analytics"), "nexus")

    def open(self) -> None:
        """Reach the backend and create the database; blocks. Raises StoreFailed."""
        try:
            self._backend.open()
            client = self._backend.connect({})
            try:
                client.command(f"create database if not exists `{self.name}`")
            finally:
                client.close()
        except Exception as error:
            self._backend.close()
            raise _failed(error) from error

    def connect(self, settings: Mapping[str, Any]) -> "Client":
        client = self._backend.connect(dict(settings))
        client.database = self.name
        return client

    def close(self) -> None:
        """Let the backend go, after every store is closed; blocks."""
        self._backend.close()


class Store:
    """One client on one thread, for one purpose: writing, our questions, or users' SQL.

    After any error the client is closed and the next call opens a new one: the embedded engine
    hands what a failed query had already produced to the query after it.
    """

    def __init__(self, database: Database, settings: Mapping[str, Any]) -> None:
        self.database = database
        self._settings = settings
        self._client: Client | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def command(self, sql: str, parameters: dict[str, Any] | None = None) -> None:
        """Run a statement that gives no rows. Raises StoreFailed."""
        await self._run(lambda client: client.command(sql, parameters))

    async def insert(self, table: str, columns: Mapping[str, str], data: Sequence[Any]) -> None:
        """Insert whole columns in the order of `columns` (name to type). Raises StoreFailed."""
        await self._run(
            lambda client: client.insert(
                table,
                data,
                column_names=list(columns),
                column_type_names=list(columns.values()),
                column_oriented=True,
            )
        )

    async def query(
        self, sql: str, parameters: dict[str, Any] | None = None, *, most: int | None = None
    ) -> Table:
        """All rows of a query, or the first `most`. Raises StoreFailed."""
        return await self._run(lambda client: _read(client, sql, parameters, most))

    async def header(self, sql: str, parameters: dict[str, Any] | None = None) -> Table:
        """Columns and types of a query without its rows: a result without rows has no names."""
        return await self._run(lambda client: _header(client, sql, parameters))

    async def close(self) -> None:
        """Wait for the call in flight, then close."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._drop_client)
        self._thread.shutdown()

    async def _run(self, work: Callable[["Client"], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guard, work)

    def _guard(self, work: Callable[["Client"], Result]) -> Result:
        try:
            if self._client is None:
                self._client = self.database.connect(self._settings)
            return work(self._client)
        except Exception as error:
            self._drop_client()
            raise _failed(error) from error

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _read(client: "Client", sql: str, parameters: dict[str, Any] | None, most: int | None) -> Table:
    rows: list[Sequence[Any]] = []
    with client.query_row_block_stream(sql, parameters=parameters) as stream:
        for block in stream:
            rows.extend(block)
            if most is not None and len(rows) > most:
                break
        source = cast("QueryResult", stream.source)
        columns = tuple(source.column_names)
        types = tuple(kind.name for kind in source.column_types)
    if most is None:
        return Table(columns, types, rows)
    return Table(columns, types, rows[:most], more=len(rows) > most)


def _header(client: "Client", sql: str, parameters: dict[str, Any] | None) -> Table:
    result = client.query(f"select * from ({sql}) limit 0", parameters=parameters)
    return Table(tuple(result.column_names), tuple(kind.name for kind in result.column_types), [])


def _failed(error: Exception) -> StoreFailed:
    if isinstance(error, EngineError):
        return StoreFailed(str(error))
    return StoreFailed(str(error), getattr(error, "code", None))
