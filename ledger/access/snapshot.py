"""The registry as a whole, kept in pieces on the bus: a process that starts reads these, and from
the ledger only what came after."""

import asyncio
import hashlib
import logging
from collections.abc import Iterable, Iterator

import msgspec

from ledger.access.registry import Entry, Registry
from ledger.connection import Connection, Disconnected, NoResponders, RequestTimeout
from ledger.publisher import Publisher, Refused, Unresolved
from ledger.reader import Unreadable, read_at, read_last, read_subject
from schemas import subjects
from schemas.access import Budget, Key, Limits, Project, Secret, Team
from schemas.ids import Clock

log = logging.getLogger("nexus.access")

_OF = "access"
_HEAD = subjects.setting("access.snapshot")
_PIECE_BYTES = 256 * 1024
_PIECES_AT_ONCE = 8
_FEWEST_CHANGES = 1000
_SHARE_OF_CHANGES = 0.05
_CHECK_EVERY = 1.0
# A process that does not know a field would lose it from the records it writes down again.
_FORMAT = hashlib.sha256(
    repr(
        (1, [kind.__struct_fields__ for kind in (Key, Secret, Limits, Project, Team, Budget)])
    ).encode()
).hexdigest()[:16]


class Head(msgspec.Struct, frozen=True):
    """The newest snapshot: the registry as of the event at `seq` with that digest.

    Its pieces are those of `generation` in the stream SNAPSHOTS; the first is at `first_seq` there.
    """

    format: str
    seq: int
    digest: str
    generation: str
    pieces: int
    entries: int
    first_seq: int


_encode_piece = msgspec.msgpack.Encoder().encode
_decode_piece = msgspec.msgpack.Decoder(list[Entry]).decode


async def load(connection: Connection, into: Registry) -> bool:
    """Fill an empty registry from the newest snapshot; False if there is none of use: it may then
    hold a part, and is not to be used. Raises Unreadable."""
    head = await _newest(connection)
    if head is None or head.format != _FORMAT:
        return False
    event = await read_at(connection, subjects.LEDGER, head.seq)
    into.seq, into.digest = head.seq, head.digest
    if event is None or not into.ends_with(event):
        log.warning("key snapshot is of another ledger", extra={"seq": head.seq})
        return False
    pieces = entries = 0
    from_seq = head.first_seq
    subject = subjects.snapshot(_OF, head.generation)
    while pieces < head.pieces:
        stored = await read_subject(
            connection, subjects.SNAPSHOTS, subject, from_seq=from_seq, limit=_PIECES_AT_ONCE
        )
        if not stored:
            break
        for piece in stored:
            try:
                entries += _restore(into, piece.data)
            except msgspec.DecodeError as error:
                log.warning("key snapshot not readable", extra={"reason": str(error)})
                return False
            await asyncio.sleep(0)
        pieces += len(stored)
        from_seq = stored[-1].seq + 1
    if (pieces, entries) != (head.pieces, head.entries):
        log.warning("key snapshot not complete", extra={"seq": head.seq})
        return False
    return True


def _restore(registry: Registry, piece: bytes) -> int:
    entries = _decode_piece(piece)
    for entry in entries:
        registry.restore(entry)
    return len(entries)


async def _newest(connection: Connection) -> Head | None:
    kept = await read_last(connection, subjects.SETTINGS, _HEAD)
    if kept is None:
        return None
    try:
        return msgspec.json.decode(kept.data, type=Head)
    except msgspec.DecodeError as error:
        log.warning("key snapshot not readable", extra={"reason": str(error)})
        return None


class Snapshots:
    """Writes the registry down, each time enough of it has changed."""

    def __init__(
        self, connection: Connection, publisher: Publisher, registry: Registry, clock: Clock
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._registry = registry
        self._clock = clock
        self._written_version = 0

    async def keep(self) -> None:
        """Runs until cancelled; without the bus the last snapshot stays as it was."""
        while True:
            await asyncio.sleep(_CHECK_EVERY)
            if self._changes() >= max(
                _FEWEST_CHANGES, _SHARE_OF_CHANGES * self._registry.key_count
            ):
                try:
                    await self.write()
                except (Unreadable, Unresolved, Refused, Disconnected) as error:
                    log.warning("key snapshot not written", extra={"reason": str(error)})

    def _changes(self) -> int:
        """How many events there were since the last snapshot, its own or the one it began with."""
        return self._registry.version - self._written_version

    async def write(self) -> None:
        """Write a snapshot of the registry as it is now.

        Of the older ones the last is left to whoever is reading it. Raises Unreadable, Unresolved,
        Refused and Disconnected.
        """
        previous = await _newest(self._connection)
        registry = self._registry
        version, seq, digest = registry.version, registry.seq, registry.digest
        kept = registry.entries()
        generation = self._clock.new_token()
        first_seq = pieces = entries = 0
        for piece in _pieces(kept):
            ack = await self._publisher.publish(
                subjects.snapshot(_OF, generation),
                _encode_piece(piece),
                msg_id=f"{generation}.{pieces}",
            )
            first_seq = first_seq or ack.seq
            pieces += 1
            entries += len(piece)
        head = Head(_FORMAT, seq, digest, generation, pieces, entries, first_seq)
        await self._publisher.publish(
            _HEAD, msgspec.json.encode(head), msg_id=f"{_OF}.snapshot.{generation}"
        )
        self._written_version = version
        log.info("key snapshot written", extra={"seq": seq, "entries": entries})
        if previous is not None:
            await self._purge(previous.first_seq)

    async def _purge(self, before: int) -> None:
        """What is older than the piece at `before` goes; if it fails, the next purge takes it."""
        request = {"filter": subjects.snapshot(_OF, "*"), "seq": before}
        try:
            await self._connection.request(
                subjects.api("STREAM.PURGE", subjects.SNAPSHOTS), msgspec.json.encode(request)
            )
        except (NoResponders, RequestTimeout, Disconnected) as error:
            log.warning("old key snapshots not purged", extra={"reason": str(error)})


def _pieces(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    piece: list[Entry] = []
    size = 0
    for entry in entries:
        piece.append(entry)
        size += len(bytes(entry.record))
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
