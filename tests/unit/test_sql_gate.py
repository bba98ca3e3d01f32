"""Users' SQL: what passes the gate, what is refused, and what the limits stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics import sql_run
from analytics.asks import Scope, SqlResult
from analytics.sql_gate import MOST_ROWS, judge
from analytics.sql_run import USER_SQL, UserSql
from analytics.store import Store, StoreFailed
from schemas.errors import InvalidRequest, RateLimited
from tests.sample_events import attempt_failed, complete, failed
from tests.warehouse import config_for, drop, new_id, on_every_backend, record, warehouse

MINE = Scope(project="mine")

ATTACKS = [
    # Files, network, other processes
    "select * from file('/etc/passwd', 'LineAsString', 's String')",
    "select * from '/etc/passwd'",
    "select file('/etc/hostname')",
    "select FiLe('/etc/hostname')",
    "select `file`('/etc/hostname')",
    "select * from url('http://127.0.0.1:9/', 'CSV', 's String')",
    "select * from s3('http://127.0.0.1:9/b', 'CSV')",
    "select * from remote('127.0.0.1', 'system.one')",
    "select * from executable('id', 'TSV', 's String')",
    "select * from Python(x)",
    "select * from input('s String')",
    "select 1 into outfile '/tmp/stolen'",
    "select 1 format CSV",
    "select * from events format Native",
    # Tables that are not the user's
    "select * from system.tables",
    "select * from `system`.`processes`",
    "select * from nexus.events",
    "select * from public_events",
    "select * from model_stats_hourly",
    "select * from Events",
    "select * from merge('nexus', '^events$')",
    "select * from numbers(10)",
    "select * from cluster('default', 'system.one')",
    "select * from viewIfPermitted(select 1 else null('x Int8'))",
    "select * from (select * from (select * from system.one))",
    "select (select count() from system.tables)",
    "select 1 where 1 in (select 1 from system.one)",
    "select 1 where 1 in model_stats_hourly",
    "select 1 where 1 in (model_stats_hourly)",
    "select 1 where (1, 2) in (select 1, 2 from events union all select 1, 2 from system.one)",
    "select 1 where 1 global in (select 1)",
    "with x as (select * from system.one) select * from x",
    "with a as (with b as (select * from system.one) select * from b) select * from a",
    "with events as (select 1) select * from events",
    "with recursive x as (select 1 union all select * from x) select * from x",
    "with file('/etc/passwd') as x select x",
    "select * from events e join system.one o on 1",
    "select * from events array join [1, 2] as a",
    "select 1 union all select * from system.one",
    "select 1 except select 2",
    # Functions
    "select sleep(3)",
    "select sleepEachRow(1) from events",
    "select hostName()",
    "select getSetting('readonly')",
    "select getServerPort('tcp_port')",
    "select currentUser()",
    "select version()",
    "select dictGet('d', 'a', 1)",
    "select joinGet('events', 'raw', 1)",
    "select catboostEvaluate('/etc/passwd', 1)",
    "select in(1, model_stats_hourly)",
    "select arrayMap(x -> file(x), ['/etc/passwd'])",
    "select * apply(file) from events",
    "select columns('raw') from events",
    "select * replace(file('/etc/passwd') as model) from events",
    "select throwIf(1)",
    "select repeat('x', 1000000000)",
    "select range(1000000000)",
    "select generateUUIDv4()",
    "select cast('x' as AggregateFunction(sum, Int8))",
    "select countIf(file('/etc/passwd') = 'x') from events",
    "select quantile(file('/etc/passwd'))(1)",
    "select count() over (order by file('/etc/passwd')) from events",
    # Statements and settings
    "insert into events values (1)",
    "insert into function file('/tmp/x', 'CSV', 's String') select 's'",
    "create table t (a Int8) engine = Memory",
    "drop table events",
    "alter table events delete where 1",
    "truncate table events",
    "optimize table events",
    "rename table events to e",
    "attach table x",
    "detach table events",
    "system shutdown",
    "system drop mark cache",
    "kill query where 1",
    "set readonly = 0",
    "use system",
    "grant all on *.* to default",
    "show tables",
    "describe table events",
    "explain select 1",
    "exists table events",
    "check table events",
    "backup table events to Disk('d', 'x')",
    "execute as default select 1",
    "values (1)",
    "select 1; select 2",
    "select 1; drop table events",
    "select 1 settings readonly = 0",
    "select * from (select 1 settings max_execution_time = 0)",
    "select * from events final",
    "select * from events sample 0.1",
    "select {x:String}",
    "select {x:Identifier} from events",
    "select @@version",
    "select * from events limit 1 by model",
    "select count() from events group by all with totals",
    # Spelling
    "select 1 /* ; */ ; /* */ drop table events",
    "select 'a\\\\b'",
    'select "a\\"b" from events',
    "select `a``b` from events",
    "select 'x' as `a\\` , file('/etc/passwd') as `b`",
    "\u0441elect 1",
    "select\u00a01\u037e drop table events",
    "select $$a$$ from events",
    "select 1 -- \n; drop table events",
    "select 0x41 union",
    "",
    ";",
    "-- nothing",
    "select " + "(" * 500 + "1" + ")" * 500,
    "select " + "1, " * 5000 + "1",
]


@pytest.mark.parametrize("sql", ATTACKS)
def test_the_gate_refuses_what_is_not_a_plain_select(sql: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        judge(sql, MINE)
    assert refused.value.info.code == "sql_refused"
    assert refused.value.info.status == 400


@given(st.text(max_size=60))
def test_any_text_at_all_is_judged_without_a_crash(text: str) -> None:
    for sql in (text, f"select '{text}' from events", f"select {text} from calls"):
        try:
            judge(sql, MINE)
        except InvalidRequest as error:
            assert error.info.message


def test_what_runs_is_written_anew_from_the_tree() -> None:
    safe = judge("select model, /* hm */ count(*) c from calls -- x", MINE)
    assert safe.text == (
        'SELECT "model", count(*) AS "c" FROM (SELECT * FROM "public_calls" '
        'WHERE "project" = {scope_project: String}) AS "calls" LIMIT 10001'
    )
    assert safe.parameters == {"scope_project": "mine"}


def test_an_administrator_is_narrowed_to_nothing() -> None:
    assert judge("select 1 from events limit 3", None) == (
        'SELECT 1 FROM (SELECT * FROM "public_events") AS "events" LIMIT 3',
        {},
    )


def test_a_scope_that_narrows_nothing_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="project or a key"):
        Scope()


EVENTS = [
    complete("c1", event_id=new_id(), project="mine", key_id="k1", model="m1", cost_nano=1_000),
    attempt_failed("c2", event_id=new_id(), project="mine", key_id="k2", model="m2", cost_nano=50),
    complete("c2", event_id=new_id(), project="mine", key_id="k2", model="m2", cost_nano=700),
    failed("c3", event_id=new_id(), project="mine", key_id="k1", model="m2", cost_nano=None),
    complete("c4", event_id=new_id(), project="theirs", key_id="k9", model="m1", cost_nano=9_999),
]


@asynccontextmanager
async def user_sql(backend: str, directory: Path) -> AsyncIterator[UserSql]:
    config = config_for(backend, directory)
    async with warehouse(config) as house:
        await house.projection.add([record(seq, event) for seq, event in enumerate(EVENTS, 1)])
        store = Store(house.database, USER_SQL)
        try:
            yield UserSql(store)
        finally:
            await store.close()
    await drop(config)


QUESTIONS: list[tuple[str, list[list[Any]]]] = [
    ("select call_id from calls order by call_id", [["c1"], ["c2"], ["c3"]]),
    (
        "select model, sum(cost_nano) from calls group by model order by 1",
        [["m1", 1_000], ["m2", 750]],
    ),
    ("select count() from events", [[4]]),
    ("select count() from events where project = 'theirs'", [[0]]),
    ("select count() from events as e where e.project = 'theirs' or 1", [[4]]),
    (
        "select e.call_id from events e join calls c using (call_id) group by e.call_id order by 1",
        [["c1"], ["c2"], ["c3"]],
    ),
    ("with x as (select * from calls) select count() from x as y", [[3]]),
    (
        "with a as (select * from calls), b as (select * from a) "
        "select count() from b join a on a.call_id = b.call_id",
        [[3]],
    ),
    ("select 'theirs' as project, count() from calls", [["theirs", 3]]),
    (
        "select call_id from calls where call_id in (select call_id from events) "
        "order by 1 limit 1",
        [["c1"]],
    ),
    ("select countIf(outcome = 'failed') / count() from calls", [[1 / 3]]),
    (
        "select toStartOfHour(ts) = toStartOfDay(ts) + interval 14 hour, "
        "quantile(0.5)(latency_ms), quantiles(0.1, 0.9)(latency_ms) from calls group by 1",
        [[True, 300.0, [300.0, 300.0]]],
    ),
    (
        "select call_id, row_number() over (partition by model order by call_id) from calls "
        "order by call_id",
        [["c1", 1], ["c2", 1], ["c3", 2]],
    ),
    (
        "select if(cost_nano is null, 'unknown', 'known'), count(distinct model) from calls "
        "group by 1 order by 1",
        [["known", 2], ["unknown", 1]],
    ),
    ("select max(status) from calls union all select 2 order by 1", [[2], [502]]),
    (
        "select toUInt64(18446744073709551615), 'it''s', 1 where 1 between 0 and 2",
        [[18446744073709551615, "it's", 1]],
    ),
    ("select * except (ts) from (select 1 as a, now() as ts)", [[1]]),
    ("select 'a\\'; drop table events; --', '\\x27'", [["a'; drop table events; --", "'"]]),
]


@on_every_backend
async def test_questions_are_answered_from_the_callers_own_data(
    backend: str, tmp_path: Path
) -> None:
    async with user_sql(backend, tmp_path) as sql:
        for question, rows in QUESTIONS:
            assert (await sql.run(question, MINE, 5)).rows == rows, question
        by_key = await sql.run("select call_id from calls order by 1", Scope(key_id="k1"), 5)
        assert by_key.rows == [["c1"], ["c3"]]
        both = await sql.run("select call_id from calls", Scope("theirs", "k1"), 5)
        assert both == SqlResult(["call_id"], ["String"], [], truncated=False, as_of_seq=5)
        everybody = await sql.run("select count() from calls", None, 5)
        assert everybody.rows == [[4]]
        hostile = await sql.run("select count() from calls", Scope(project="' or 1 or '"), 5)
        assert hostile.rows == [[0]]


@on_every_backend
async def test_the_name_of_a_with_query_means_no_table_outside_its_reach(
    backend: str, tmp_path: Path
) -> None:
    async with user_sql(backend, tmp_path) as sql:
        for name in ("model_stats_hourly", "public_calls", "repeats"):
            leak = (
                f"select * from (with {name} as (select 1 as x) select x from {name}) as a, "
                f"(select count() as n from {name}) as b"
            )
            with pytest.raises(InvalidRequest, match="cte_"):
                await sql.run(leak, MINE, 5)


@on_every_backend
async def test_hungry_statements_are_stopped_and_harm_nobody_after_them(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = " cross join ".join(f"events as e{number}" for number in range(20))
    wide = ", ".join(f"groupUniqArray((e{n}.seq, e{n + 1}.seq, e{n + 2}.seq))" for n in range(9))
    ten = "(" + " union all ".join(["select 1 as x"] * 10) + ")"
    many = " cross join ".join(f"{ten} as t{number}" for number in range(5))
    monkeypatch.setitem(USER_SQL, "max_execution_time", 1)
    async with user_sql(backend, tmp_path) as sql:
        with pytest.raises(InvalidRequest, match="narrow its time range") as endless:
            await sql.run(f"select count() from {joined}", MINE, 5)
        assert endless.value.info.code == "sql_failed"
        with pytest.raises(InvalidRequest, match=r"memory|narrow"):
            await sql.run(f"select {wide} from {joined}", MINE, 5)
        huge = await sql.run(f"select 7 from {many}", MINE, 5)
        assert (len(huge.rows), huge.truncated) == (MOST_ROWS, True)
        with pytest.raises(InvalidRequest, match="nonsense"):
            await sql.run("select nonsense from events", MINE, 5)
        assert (await sql.run("select 42", MINE, 5)).rows == [[42]]


async def test_a_statement_that_does_not_get_its_turn_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_run, "_PATIENCE", 0.01)
    joined = " cross join ".join(f"events as e{number}" for number in range(20))
    monkeypatch.setitem(USER_SQL, "max_execution_time", 1)
    async with user_sql("embedded", tmp_path) as sql:
        slow = asyncio.create_task(sql.run(f"select count() from {joined}", MINE, 5))
        await asyncio.sleep(0)
        with pytest.raises(RateLimited) as busy:
            await sql.run("select 1", MINE, 5)
        assert busy.value.info.retry_after
        with pytest.raises(InvalidRequest):
            await slow
        assert (await sql.run("select 1", MINE, 5)).rows == [[1]]


async def test_the_client_of_user_sql_cannot_change_its_limits(tmp_path: Path) -> None:
    async with warehouse(config_for("embedded", tmp_path)) as house:
        store = Store(house.database, USER_SQL)
        for statement in ("set max_execution_time = 0", "drop table events", "system flush logs"):
            with pytest.raises(StoreFailed, match=r"(?i)readonly|privileges"):
                await store.command(statement)
        await store.close()
