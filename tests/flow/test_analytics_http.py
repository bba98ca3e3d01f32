"""Projector, questions and users' SQL over HTTP, against the facade in place of a server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from analytics.asks import Scope
from analytics.questions import answer
from analytics.sql_run import USER_SQL, UserSql
from analytics.store import Store
from schemas.config import Config
from schemas.errors import InvalidRequest
from tests.ledger_fold import fold, projected
from tests.sample_events import NOON, complete, failed
from tests.warehouse import new_id, record, warehouse


@pytest.fixture
def facade_url(tmp_path: Path) -> Iterator[str]:
    facade = subprocess.Popen(
        [sys.executable, "-m", "tests.clickhouse_facade", str(tmp_path / "engine"), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert facade.stdout is not None
        yield facade.stdout.readline().strip()
    finally:
        facade.terminate()
        facade.communicate()


async def test_all_of_analytics_runs_over_http(facade_url: str) -> None:
    events = [
        complete("c1", event_id=new_id(), project="mine"),
        complete("c1", event_id=new_id(), project="mine"),
        failed("c2", event_id=new_id(), project="theirs"),
    ]
    history = list(enumerate(events, 1))
    config = Config(clickhouse_url=f"{facade_url}/over_http")
    async with warehouse(config) as house:
        for _ in range(2):
            await house.projection.add([record(seq, event) for seq, event in history])
        assert await projected(house) == fold(history)
        assert await house.projection.contiguous_from(1) == 3
        asked = msgspec.json.encode({"period": "day"})
        report = await answer(
            "usage", asked, Scope(project="mine"), store=house.reader, now_ns=NOON, as_of_seq=3
        )
        assert msgspec.to_builtins(report)["total_requests"] == 1
        store = Store(house.database, USER_SQL)
        sql = UserSql(store)
        rows = await sql.run("select call_id, cost_usd from calls", Scope(project="mine"), 3)
        assert [row[0] for row in rows.rows] == ["c1"]
        with pytest.raises(InvalidRequest, match="nonsense"):
            await sql.run("select nonsense from calls", None, 3)
        assert (await sql.run("select count() from calls", None, 3)).rows == [[2]]
        await store.close()
