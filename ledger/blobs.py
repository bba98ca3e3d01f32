"""Bodies too large for one bus message: stored in pieces for as long as a call may live."""

import asyncio

from ledger.connection import Connection
from ledger.publisher import Publisher
from ledger.reader import read_subject
from schemas import subjects

PIECE = 512 * 1024
_ENVELOPE = 64 * 1024
_IN_FLIGHT = 8


class BlobGone(Exception):
    """The blob expired or was never completely stored."""


class Blobs:
    """Put and get byte strings by name; a reference is `<name>:<size>`."""

    def __init__(self, connection: Connection, publisher: Publisher) -> None:
        self._connection = connection
        self._publisher = publisher

    @property
    def inline_limit(self) -> int:
        """The largest body that still fits into one message beside its envelope."""
        return max(PIECE, self._connection.max_payload) - _ENVELOPE

    async def put(self, name: str, data: bytes) -> str:
        """Store `data`, acknowledged piece by piece; gives the reference to send instead."""
        pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
        for start in range(0, len(pieces), _IN_FLIGHT):
            group = pieces[start : start + _IN_FLIGHT]
            await asyncio.gather(
                *(
                    self._publisher.publish(
                        subjects.blob(name), piece, msg_id=f"{name}.b{start + offset}"
                    )
                    for offset, piece in enumerate(group)
                )
            )
        return f"{name}:{len(data)}"

    async def get(self, reference: str) -> bytes:
        """The bytes behind a reference. Raises BlobGone, reader.Unreadable."""
        name, _, size = reference.rpartition(":")
        pieces = await read_subject(
            self._connection, subjects.BLOBS, subjects.blob(name), timeout=10.0
        )
        data = b"".join(piece.data for piece in pieces)
        if len(data) != int(size):
            raise BlobGone(f"the stored body {name} is no longer complete")
        return data
