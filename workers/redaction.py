"""Takes credentials out of what providers say: whole, escaped, or shown in part."""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

REMOVED = "[removed]"
_SHORTEST_SECRET = 6
_KEY_SHAPES = re.compile(
    r"\bsk-[A-Za-z0-9_*.-]{3,}"
    r"|(?<=Bearer )[^\s\"']+"
    r"|(?<![A-Za-z0-9_-])[A-Za-z0-9_-]+\*{3,}[A-Za-z0-9_-]*"
    r"|\*{3,}[A-Za-z0-9_-]+"
)
_WORD = re.compile(r"[^\s\"'<>(){}\[\],;]+")
_ESCAPED = re.compile(r"\\u([0-9A-Fa-f]{4})")
_SHOWN_END = 4
_SHOWN_PART = 8


class Redaction:
    """Knows what must not be shown: the gateway's own `secrets`, and the key of one client.

    Providers like to quote a client's key when they refuse it, often only how it begins and ends:
    every word that has such a piece goes.
    """

    def __init__(self, secrets: Iterable[str], client_key: str = "") -> None:
        self._secrets = tuple(text for text in secrets if len(text) >= _SHORTEST_SECRET)
        self._client_key = client_key

    def clean(self, text: str) -> str:
        """The text with `[removed]` in place of every credential."""
        for secret in self._secrets:
            text = text.replace(secret, REMOVED)
        if self._client_key:
            text = _without_pieces(text.replace(self._client_key, REMOVED), self._client_key)
        return _KEY_SHAPES.sub(REMOVED, text)


def _without_pieces(text: str, key: str) -> str:
    pieces = frozenset(_pieces(key))

    def unless_a_piece(word: re.Match[str]) -> str:
        shown = f"{word.group()} {_plain(word.group())}"
        return REMOVED if any(piece in shown for piece in pieces) else word.group()

    return _WORD.sub(unless_a_piece, text)


def _pieces(key: str) -> Iterator[str]:
    """What gives a key away: how it begins, how it ends, and any eight characters of it."""
    yield key[:_SHOWN_END]
    yield key[-_SHOWN_END:]
    for at in range(len(key) - _SHOWN_PART + 1):
        yield key[at : at + _SHOWN_PART]


def _plain(word: str) -> str:
    """A word without the escapes of URLs and JSON."""
    return _ESCAPED.sub(lambda code: chr(int(code[1], 16)), unquote(word)).replace("\\", "")
