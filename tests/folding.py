"""Streams of providers, folded without a socket: at any split the same must come out."""

from collections.abc import Iterable
from typing import NamedTuple

from hypothesis import strategies as st

from workers.exchange import Folder, Framing
from workers.providers.base import StreamEnd


class Folded(NamedTuple):
    """What came of a stream that ended well."""

    parts: tuple[bytes, ...]
    text_bytes: int
    end: StreamEnd


def folded(blocks: Iterable[bytes], framing: Framing, folder: Folder) -> Folded:
    """Feeds the blocks one by one, as the socket would bring them, until the stream is done."""
    parts: list[bytes] = []
    size = 0
    for block in blocks:
        if folder.done:
            break
        for event in framing.feed(block):
            folder.take(event)
            if folder.done:
                break
        deltas = folder.outgoing.deltas(first_byte=0, sent=0)
        parts += deltas.parts
        size += deltas.text_bytes
    end = folder.end()
    deltas = folder.outgoing.deltas(first_byte=0, sent=0)
    return Folded((*parts, *deltas.parts), size + deltas.text_bytes, end)


def splits(stream: bytes) -> st.SearchStrategy[list[bytes]]:
    """The stream in blocks, cut at any bytes; empty blocks are among them."""

    def cut(places: list[int]) -> list[bytes]:
        return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]

    return st.lists(st.integers(0, len(stream)), max_size=30).map(sorted).map(cut)
