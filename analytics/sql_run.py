"""Runs users' SQL after the gate, on a client of its own with hard limits."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from analytics.asks import Scope, SqlResult
from analytics.sql_gate import MOST_ROWS, SafeSql, judge
from analytics.store import Store, StoreFailed, Table
from schemas.errors import InvalidRequest, RateLimited

_SECONDS = 10
_MEGABYTES = 512
# Applied in this order, and read-only last: from then on nothing can be changed, not even by us.
USER_SQL: Mapping[str, Any] = {
    "session_timezone": "UTC",
    "max_execution_time": _SECONDS,
    "timeout_overflow_mode": "throw",
    "max_memory_usage": _MEGABYTES * 1024**2,
    "max_temporary_data_on_disk_size_for_query": 1024**3,
    "max_result_bytes": 64 * 1024**2,
    "max_threads": 1,
    "readonly": 1,
}
_PATIENCE = 8.0
_TIMEOUT, _MEMORY = 159, 241
_ADVICE = {
    _TIMEOUT: f"the statement ran longer than {_SECONDS} s: narrow its time range",
    _MEMORY: f"the statement needs more than {_MEGABYTES} MB of memory: group by less or filter",
}


class UserSql:
    """One statement at a time; `store` must have been opened with USER_SQL."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = asyncio.Lock()

    async def run(self, sql: str, scope: Scope | None, as_of_seq: int) -> SqlResult:
        """The rows of a user's SELECT, at most MOST_ROWS of them.

        Raises InvalidRequest for a statement that is refused or fails, RateLimited when its turn
        does not come, and StoreFailed when the database is away.
        """
        safe = judge(sql, scope)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._turn.acquire()
        except TimeoutError as error:
            raise RateLimited(
                "other statements are still running: try again shortly",
                code="queue_full",
                retry_after=_SECONDS,
            ) from error
        try:
            table = await self._query(safe)
        finally:
            self._turn.release()
        return SqlResult(
            columns=list(table.columns),
            types=list(table.types),
            rows=[[_portable(value) for value in row] for row in table.rows],
            truncated=table.more,
            as_of_seq=as_of_seq,
        )

    async def _query(self, safe: SafeSql) -> Table:
        try:
            table = await self._store.query(safe.text, safe.parameters, most=MOST_ROWS)
            return table if table.rows else await self._store.header(safe.text, safe.parameters)
        except StoreFailed as error:
            if error.code is None:
                raise
            message = _ADVICE.get(error.code, f"the database refused the statement: {error}")
            raise InvalidRequest(message, code="sql_failed", param="sql") from error


def _portable(value: Any) -> Any:
    """What JSON cannot carry as it is: integers over 64 bits become text."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_portable(item) for item in value]
    return value
