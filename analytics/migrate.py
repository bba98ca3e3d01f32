"""Numbered migrations: SQL files applied once, in order, and never changed afterwards."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from analytics.store import Store

# The number of ledger sequences that one row of a rollup may cover. It is part of every rollup's
# key, so it can only change together with new rollup tables.
SEGMENT = 16_384

# How the engine-dependent parts of the DDL are spelt: one profile today, replicated ones will
# differ in these words only.
PROFILES = {"single": {"replacing": "ReplacingMergeTree", "on_cluster": ""}}

_HISTORY = Template("""
create table if not exists migrations $on_cluster
(
    number UInt32,
    name String,
    checksum String,
    segment UInt64,
    applied_at DateTime64(3, 'UTC') default now64(3)
)
engine = $replacing
order by number
settings fsync_after_insert = 1, fsync_part_directory = 1
""")
_RECORD = """
insert into migrations (number, name, checksum, segment)
values ({number:UInt32}, {name:String}, {checksum:String}, {segment:UInt64})
"""


class SchemaMismatch(Exception):
    """The database was made by other migrations than ours; the text says what differs."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file `NNNN_name.sql`; the checksum is of its text before rendering."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self, profile: str) -> list[str]:
        rendered = Template(self.text).substitute(PROFILES[profile], segment=SEGMENT)
        return [part for part in rendered.split(";\n") if part.strip()]


@dataclass(frozen=True, slots=True)
class State:
    """A known migration and whether this database has it."""

    migration: Migration
    applied: bool


def known() -> list[Migration]:
    """The migrations of this version, in order."""
    found = files("analytics").joinpath("sql").iterdir()
    named = [
        Migration(int(file.name[:4]), file.name[5:].removesuffix(".sql"), file.read_text())
        for file in found
        if file.name.endswith(".sql")
    ]
    return sorted(named, key=lambda migration: migration.number)


async def status(
    store: Store, migrations: list[Migration] | None = None, *, profile: str = "single"
) -> list[State]:
    """Which migrations the database has.

    Raises SchemaMismatch when an applied migration has changed or is unknown, or when the database
    was built with another SEGMENT.
    """
    migrations = known() if migrations is None else migrations
    await store.command(_HISTORY.substitute(PROFILES[profile]))
    history = await store.query("select number, name, checksum, segment from migrations final")
    applied = {number: row for number, *row in history.rows}
    for number, (name, checksum, segment) in applied.items():
        ours = next((one for one in migrations if one.number == number), None)
        if ours is None:
            raise SchemaMismatch(
                f"the database has migration {number:04}_{name}, which this version does not "
                "know: run the newer version that made it"
            )
        if ours.checksum != checksum:
            raise SchemaMismatch(
                f"migration {number:04}_{name} was applied with another text: an applied "
                "migration is never edited, add a new one"
            )
        if segment != SEGMENT:
            raise SchemaMismatch(
                f"the database has segments of {segment} sequences, this version of {SEGMENT}: "
                "two sizes in one table would count twice"
            )
    return [State(migration, migration.number in applied) for migration in migrations]


async def apply(
    store: Store, migrations: list[Migration] | None = None, *, profile: str = "single"
) -> list[Migration]:
    """Bring the database up to date; gives the migrations that were applied now.

    A migration that failed half-way is run again from its start, so every statement in it must
    bear that. Raises SchemaMismatch as `status` does.
    """
    done = []
    for state in await status(store, migrations, profile=profile):
        if state.applied:
            continue
        for statement in state.migration.statements(profile):
            await store.command(statement)
        await store.command(
            _RECORD,
            {
                "number": state.migration.number,
                "name": state.migration.name,
                "checksum": state.migration.checksum,
                "segment": SEGMENT,
            },
        )
        done.append(state.migration)
    return done
