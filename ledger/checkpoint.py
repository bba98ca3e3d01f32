"""Where a successor of the governor goes on: a small document in the settings bucket."""

import hashlib
import logging
import zlib

import msgspec

from ledger import aside
from ledger.aside import Aside
from ledger.beats import Refusals
from ledger.budgets import trails
from ledger.budgets.alerts import Told
from ledger.budgets.book_state import BookState
from ledger.connection import Connection, Disconnected, NoResponders, RequestTimeout
from ledger.publisher import Publisher
from ledger.reader import Stored, read_at, read_last
from ledger.telemetry import Snapshot
from schemas import subjects
from schemas.ids import Clock
from schemas.target_events import TargetState

_encode_book = msgspec.msgpack.Encoder().encode
_decode_book = msgspec.msgpack.Decoder(BookState).decode

log = logging.getLogger("nexus.governor")

_SUBJECT = subjects.setting("governor.checkpoint")
_OF = "book"
_LONGEST_BOOK = 256 * 1024
_STREAM = f"KV_{subjects.SETTINGS_BUCKET}"


class Checkpoint(msgspec.Struct, frozen=True):
    """The fold as of sequence `seq`.

    The numbers hold every event up to `seq`; the open calls are known again once the events from
    `fold_from` on have been folded. `digest` is of the event at `seq`: another one there means
    another ledger (a power cut may take its end, and new events take its place). `book` and `rates`
    (what scopes used lately) are packed; where that is too long for one message, they lie in pieces
    at `book_aside`, one behind the other: the last `rates_bytes` are the rates.
    """

    fold_from: int = 1
    seq: int = 0
    digest: str = ""
    numbers: Snapshot = Snapshot()
    refusals: Refusals = Refusals()
    alerts: Told = Told()
    targets: tuple[TargetState, ...] = ()
    book: bytes = b""
    book_aside: Aside | None = None
    rates: bytes = b""
    rates_bytes: int = 0


def pack(book: BookState) -> bytes:
    """The money of every account as bytes."""
    return zlib.compress(_encode_book(book), 1)


def unpack(packed: bytes) -> BookState:
    """The other way; nothing was spent where there is nothing. Raises
    msgspec.DecodeError, zlib.error."""
    return _decode_book(zlib.decompress(packed)) if packed else BookState()


def digest_of(record: Stored) -> str:
    """What tells one event from another at the same sequence."""
    return hashlib.sha256(record.data).hexdigest()


async def load(connection: Connection) -> Checkpoint:
    """The last checkpoint, if it is of this ledger; else one at its beginning.

    Raises reader.Unreadable.
    """
    kept = await read_last(connection, _STREAM, _SUBJECT)
    if kept is None:
        return Checkpoint()
    try:
        checkpoint = msgspec.json.decode(kept.data, type=Checkpoint)
        checkpoint = await _whole(connection, checkpoint)
        unpack(checkpoint.book)
        trails.unpack(checkpoint.rates)
    except (msgspec.DecodeError, zlib.error) as error:
        log.warning("checkpoint not readable, folding from the start: %s", error)
        return Checkpoint()
    if checkpoint.seq:
        newest = await read_at(connection, subjects.LEDGER, checkpoint.seq)
        if newest is None or digest_of(newest) != checkpoint.digest:
            log.error("ledger.truncated", extra={"checkpoint_seq": checkpoint.seq})
            return Checkpoint()
    return checkpoint


async def _whole(connection: Connection, checkpoint: Checkpoint) -> Checkpoint:
    if checkpoint.book_aside is None:
        return checkpoint
    packed = await aside.get(connection, _OF, checkpoint.book_aside)
    if packed is None:
        log.warning("checkpoint not complete, folding from the start")
        return Checkpoint()
    end = len(packed) - checkpoint.rates_bytes
    return msgspec.structs.replace(
        checkpoint, book=packed[:end], rates=packed[end:], book_aside=None
    )


async def save(publisher: Publisher, checkpoint: Checkpoint, clock: Clock) -> Aside | None:
    """Replace the checkpoint; returns where its book lies, if not in the checkpoint itself.

    Raises publisher.Unresolved, publisher.Refused, and ValueError where it is longer than a message
    may be.
    """
    rates_bytes = len(checkpoint.rates)
    if len(checkpoint.book) + rates_bytes > _LONGEST_BOOK:
        packed = checkpoint.book + checkpoint.rates
        lies = await aside.put(publisher, _OF, clock.new_token(), packed)
        checkpoint = msgspec.structs.replace(
            checkpoint, book=b"", book_aside=lies, rates=b"", rates_bytes=rates_bytes
        )
    await publisher.publish(
        _SUBJECT,
        msgspec.json.encode(checkpoint),
        msg_id=f"checkpoint.{clock.new_id()}",
        deadline=2.0,
    )
    return checkpoint.book_aside


async def purge_before(connection: Connection, kept: Aside) -> None:
    """Drop the books that are older than one which somebody may still be reading; if it fails, the
    next purge takes them."""
    try:
        await aside.purge(connection, _OF, kept.first_seq)
    except (NoResponders, RequestTimeout, Disconnected) as error:
        log.warning("old checkpoints not purged", extra={"reason": str(error)})
