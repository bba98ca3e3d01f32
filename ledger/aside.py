"""What is too long for one message: in pieces, in the stream of snapshots."""

import asyncio

import msgspec

from ledger.connection import Connection
from ledger.publisher import Publisher
from ledger.reader import read_subject
from schemas import subjects

_PIECE_BYTES = 256 * 1024
_PIECES_AT_ONCE = 8


class Aside(msgspec.Struct, frozen=True):
    """Where it lies: so many pieces of one generation, the first of them at `first_seq`."""

    generation: str
    first_seq: int
    pieces: int


async def put(publisher: Publisher, of: str, generation: str, data: bytes) -> Aside:
    """Store it. Raises publisher.Unresolved, publisher.Refused."""
    subject = subjects.snapshot(of, generation)
    first_seq = pieces = 0
    for start in range(0, len(data), _PIECE_BYTES):
        piece = data[start : start + _PIECE_BYTES]
        ack = await publisher.publish(
            subject, piece, msg_id=f"{of}.{generation}.{pieces}", deadline=2.0
        )
        first_seq = first_seq or ack.seq
        pieces += 1
    return Aside(generation, first_seq, pieces)


async def get(connection: Connection, of: str, aside: Aside) -> bytes | None:
    """The whole; None if a piece is missing. Raises reader.Unreadable."""
    subject = subjects.snapshot(of, aside.generation)
    found: list[bytes] = []
    from_seq = aside.first_seq
    while len(found) < aside.pieces:
        stored = await read_subject(
            connection, subjects.SNAPSHOTS, subject, from_seq=from_seq, limit=_PIECES_AT_ONCE
        )
        if not stored:
            return None
        found += [one.data for one in stored]
        from_seq = stored[-1].seq + 1
        await asyncio.sleep(0)
    return b"".join(found)


async def purge(connection: Connection, of: str, before: int) -> None:
    """Drop all pieces older than the one at `before`. Raises what Connection.request raises."""
    request = {"filter": subjects.snapshot(of, "*"), "seq": before}
    await connection.request(
        subjects.api("STREAM.PURGE", subjects.SNAPSHOTS), msgspec.json.encode(request)
    )
