"""The ledger folded into tables: every write here may be repeated at any moment without a trace.

A rollup row is a pure function of one segment of sequences. Its version grows with everything that
can change it (the events of the segment and the repeats among them), so a newer computation wins
over an older one and an equal one is identical.
"""

import asyncio
from collections.abc import Iterable, Sequence

from analytics.migrate import SEGMENT
from analytics.rollups import ROLLUPS
from analytics.rows import CALL_TYPES, COLUMNS, OUTCOME_TYPES, TERMINAL_TYPES, Record, columns_of
from analytics.store import Store

# Raise it when a rollup's SQL or the reading of an event changes: recomputed rows then win.
PROJECTION_VERSION = 2

_KINDS = {
    "calls": list(CALL_TYPES),
    "outcomes": list(OUTCOME_TYPES),
    "terminals": list(TERMINAL_TYPES),
}

# Whichever order the events arrive in, adding one can only turn more of them into repeats.
_REPEATS = """
select seq, seq > first_copy as copy
from
(
    select
        seq,
        event_type in {terminals:Array(String)} as ends,
        min(seq) over (partition by call_id, event_id) as first_copy,
        minIf(seq, ends) over (partition by call_id) as first_end
    from
    (
        select distinct seq, call_id, event_id, event_type
        from events
        where parked = '' and event_type in {outcomes:Array(String)} and call_id in
        (
            select call_id from events
            where seq >= {low:UInt64} and seq <= {high:UInt64} and parked = '' and call_id != ''
                and event_type in {outcomes:Array(String)}
        )
    )
)
where seq > first_copy or (ends and seq > first_end)
"""
_SEGMENT_SIZES = """
select intDiv(seq, {size:UInt64}) as segment, groupBitmap(seq) from events
where seq >= {first:UInt64} group by segment order by segment
"""
_SEQUENCES = """
select distinct seq from events where seq >= {low:UInt64} and seq < {high:UInt64} order by seq
"""


class Projection:
    """The tables that are derived from the ledger, through the one store that writes them.

    Whoever holds `at_rest` finds them in agreement with each other, and keeps them so.
    """

    def __init__(self, store: Store) -> None:
        self.at_rest = asyncio.Lock()
        self._store = store

    async def add(self, records: Sequence[Record]) -> None:
        """Store events, in any order and any number of times, and bring the rollups up to them."""
        async with self.at_rest:
            await self._store.insert("events", COLUMNS, columns_of(records))
            sequences = [record.seq for record in records]
            repeats = await self._mark_repeats(min(sequences), max(sequences))
            await self._recompute({seq // SEGMENT for seq in (*sequences, *repeats)})

    async def highest(self) -> int:
        """The highest sequence stored; 0 when there is none."""
        found = await self._store.query("select max(seq) from events")
        return int(found.rows[0][0])

    async def contiguous_from(self, first: int) -> int:
        """The highest sequence up to which none is missing, beginning with `first`.

        `first - 1` when `first` itself is missing.
        """
        sizes = await self._store.query(_SEGMENT_SIZES, {"size": SEGMENT, "first": first})
        through = first - 1
        for segment, size in sizes.rows:
            low, high = max(segment * SEGMENT, first), (segment + 1) * SEGMENT
            if low != through + 1:
                break
            if size == high - low:
                through = high - 1
                continue
            stored = await self._store.query(_SEQUENCES, {"low": low, "high": high})
            for (seq,) in stored.rows:
                if seq != through + 1:
                    break
                through = seq
            break
        return through

    async def stored(self, seq: int) -> tuple[int, bytes] | None:
        """(broker's time in microseconds, body) of one sequence; None if it is not stored."""
        found = await self._store.query(
            "select toUnixTimestamp64Micro(stored_at), hex(raw) from events "
            "where seq = {seq:UInt64} limit 1",
            {"seq": seq},
        )
        for stored_us, body in found.rows:
            return int(stored_us), bytes.fromhex(body)
        return None

    async def drop_above(self, last: int) -> None:
        """Forget everything above one sequence, as if it had never been.

        The events go last: as long as they are there, an interrupted call is seen and repeated.
        """
        segment = last // SEGMENT
        async with self.at_rest:
            for rollup in ROLLUPS:
                await self._delete(rollup, f"segment >= {segment}")
            await self._delete("repeats", f"seq > {last}")
            await self._recompute([segment], through=last)
            await self._delete("events", f"seq > {last}")

    async def _delete(self, table: str, rows: str) -> None:
        await self._store.command(
            f"alter table {table} delete where {rows} settings mutations_sync = 2"
        )

    async def _mark_repeats(self, low: int, high: int) -> list[int]:
        found = await self._store.query(_REPEATS, {"low": low, "high": high, **_KINDS})
        if found.rows:
            columns = {"seq": "UInt64", "copy": "UInt8"}
            await self._store.insert("repeats", columns, list(zip(*found.rows, strict=True)))
        return [row[0] for row in found.rows]

    async def _recompute(self, segments: Iterable[int], through: int | None = None) -> None:
        for segment in sorted(segments):
            low, high = segment * SEGMENT, (segment + 1) * SEGMENT
            if through is not None:
                high = min(high, through + 1)
            bounds = {"segment": segment, "low": low, "high": high, "version": PROJECTION_VERSION}
            for statement in ROLLUPS.values():
                await self._store.command(statement, {**bounds, **_KINDS})
