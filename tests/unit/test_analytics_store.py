"""The database clients and the migrations."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from analytics import migrate
from analytics.engine import Engine
from analytics.migrate import Migration, SchemaMismatch
from analytics.store import READING, WRITING, Database, Store, StoreFailed
from schemas.config import Config
from tests.warehouse import config_for, drop, on_every_backend, warehouse

FAILS_AFTER_OUTPUT = (
    "select number, throwIf(number = 200000) from numbers(300000) settings max_block_size = 1000"
)


@on_every_backend
async def test_a_failed_query_leaves_nothing_for_the_next_one(backend: str, tmp_path: Path) -> None:
    config = config_for(backend, tmp_path)
    async with warehouse(config) as house:
        with pytest.raises(StoreFailed) as failure:
            await house.writer.command(FAILS_AFTER_OUTPUT)
        assert failure.value.code == 395
        assert (await house.writer.query("select 42")).rows == [(42,)]
        with pytest.raises(StoreFailed):
            await house.writer.query(FAILS_AFTER_OUTPUT)
        assert (await house.writer.query("select 43")).rows == [(43,)]
    await drop(config)


@on_every_backend
async def test_a_reading_client_cannot_write(backend: str, tmp_path: Path) -> None:
    config = config_for(backend, tmp_path)
    async with warehouse(config) as house:
        with pytest.raises(StoreFailed) as failure:
            await house.reader.command("insert into repeats values (1, 1)")
        assert failure.value.code == 164
        assert await house.one("select count() from repeats") == 0
    await drop(config)


@on_every_backend
async def test_a_query_stops_at_the_rows_asked_for_and_says_so(
    backend: str, tmp_path: Path
) -> None:
    config = config_for(backend, tmp_path)
    async with warehouse(config) as house:
        table = await house.reader.query("select number from numbers(100000)", most=3)
        assert table.rows == [(0,), (1,), (2,)]
        assert table.more
        assert (table.columns, table.types) == (("number",), ("UInt64",))
        assert not (await house.reader.query("select 1", most=1)).more
        assert (await house.reader.query("select 1 as one where 0")).rows == []
        assert (await house.reader.header("select 1 as one where 0")).columns == ("one",)
        assert (await house.reader.query("select 44")).rows == [(44,)]
    await drop(config)


async def test_the_event_loop_goes_on_while_the_database_works(tmp_path: Path) -> None:
    async with warehouse(config_for("embedded", tmp_path)) as house:
        slow = asyncio.create_task(house.reader.query("select sleep(0.5)"))
        ticks = 0
        while not slow.done():
            await asyncio.sleep(0)
            ticks += 1
        assert ticks > 100
        assert (await slow).rows == [(0,)]


async def test_a_second_process_is_told_who_holds_the_database(tmp_path: Path) -> None:
    config = config_for("embedded", tmp_path)
    opening = (
        "import sys; from pathlib import Path; from analytics.engine import Engine, EngineError\n"
        "try: Engine(Path(sys.argv[1])).open()\n"
        "except EngineError as error: print(error)"
    )
    async with warehouse(config):
        directory = str(tmp_path / "analytics")
        second = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", opening, directory],
            capture_output=True,
            text=True,
            check=True,
        )
    assert second.stdout.startswith(f"another process already uses the database in {directory}")


async def test_what_a_killed_process_left_in_the_temporary_directory_is_removed(
    tmp_path: Path,
) -> None:
    left = tmp_path / "analytics" / "tmp" / "tmpabc.native"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"events of somebody")
    async with warehouse(config_for("embedded", tmp_path)) as house:
        assert not left.exists()
        await house.writer.insert("repeats", {"seq": "UInt64", "copy": "UInt8"}, [[1], [0]])
        assert list(left.parent.iterdir()) == []


@pytest.mark.parametrize(
    "sql",
    [
        "select * from file('/etc/hostname', 'CSV', 'a String')",
        "select * from url('http://127.0.0.1:9/', 'CSV', 'a String')",
        "insert into function file('/tmp/stolen', 'CSV', 'a String') values ('x')",
        "create table leak (a String) engine = File(CSV)",
    ],
)
async def test_the_embedded_engine_reaches_neither_files_nor_the_network(
    sql: str, tmp_path: Path
) -> None:
    async with warehouse(config_for("embedded", tmp_path)) as house:
        with pytest.raises(StoreFailed) as refused:
            await house.writer.command(sql)
        assert refused.value.code == 497


async def test_a_server_that_does_not_answer_is_a_failure_not_a_crash() -> None:
    database = Database.of(Config(clickhouse_url="http://127.0.0.1:9/x"))
    with pytest.raises(StoreFailed) as failure:
        await asyncio.to_thread(database.open)
    assert failure.value.code is None


def test_an_engine_may_be_closed_before_it_was_opened(tmp_path: Path) -> None:
    Engine(tmp_path).close()


@on_every_backend
async def test_migrations_are_applied_once_and_reported(backend: str, tmp_path: Path) -> None:
    config = config_for(backend, tmp_path)
    database = Database.of(config)
    await asyncio.to_thread(database.open)
    store = Store(database, WRITING)
    assert not any(state.applied for state in await migrate.status(store))
    assert await migrate.apply(store) == migrate.known()
    assert await migrate.apply(store) == []
    assert all(state.applied for state in await migrate.status(store))
    await store.close()
    await asyncio.to_thread(database.close)
    await drop(config)


FIRST = Migration(
    1, "first", "create table if not exists one (a Int8) engine = $replacing order by a"
)
SECOND = Migration(
    2, "second", "create table if not exists two (a Int8) engine = $replacing order by a"
)
BROKEN = Migration(2, "second", SECOND.text + ";\ncreate table three (a Nothing) engine = Nonsense")


async def test_a_database_of_other_migrations_is_refused(tmp_path: Path) -> None:
    database = Database.of(config_for("embedded", tmp_path))
    await asyncio.to_thread(database.open)
    store = Store(database, WRITING)
    with pytest.raises(StoreFailed):
        await migrate.apply(store, [FIRST, BROKEN])
    assert [state.applied for state in await migrate.status(store, [FIRST, SECOND])] == [
        True,
        False,
    ]
    assert await migrate.apply(store, [FIRST, SECOND]) == [SECOND]
    edited = Migration(1, "first", FIRST.text + " ")
    with pytest.raises(SchemaMismatch, match="0001_first was applied with another text"):
        await migrate.apply(store, [edited, SECOND])
    with pytest.raises(SchemaMismatch, match="0002_second, which this version does not know"):
        await migrate.apply(store, [FIRST])
    await store.command(
        "insert into migrations select 1, 'first', checksum, 512, now() "
        "from migrations final where number = 1"
    )
    with pytest.raises(SchemaMismatch, match="segments of 512 sequences"):
        await migrate.apply(store, [FIRST, SECOND])
    await store.close()
    await asyncio.to_thread(database.close)


def test_asking_analytics_needs_no_database_library() -> None:
    listing = (
        "import sys, analytics.client; "
        "print({name.split('.')[0] for name in sys.modules} "
        "& {'clickhouse_connect', 'chdb', 'faststream', 'sqlglot', 'nats'})"
    )
    run = subprocess.run([sys.executable, "-c", listing], capture_output=True, check=True)
    assert run.stdout == b"set()\n"


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [one.number for one in migrate.known()] == list(range(1, len(migrate.known()) + 1))


def test_reading_clients_are_made_read_only_last() -> None:
    assert list(READING)[-1] == "readonly"
