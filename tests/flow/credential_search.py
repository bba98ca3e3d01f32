"""Looks for credentials in files and messages, in whatever form they may stand there."""

import base64
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WINDOW = 12
HINT = 8
_chosen = random.Random()


def secret_text(prefix: str) -> str:
    """A credential that no other text looks like, with the signs that travel badly."""
    entropy = os.urandom(24)
    return f"{prefix}{base64.b64encode(entropy).decode()}+/.={entropy.hex()}"


def forms(text: bytes) -> set[bytes]:
    """How a text may stand in a file: as it is, in hexadecimal, in base64 at any offset."""
    found = {text, text.hex().encode(), text.hex().upper().encode()}
    for offset in range(3):
        shifted = b"\0" * offset + text
        # Only the characters that do not depend on the bytes before and after.
        whole = slice(-(-offset * 8 // 6), len(shifted) * 8 // 6)
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(shifted)[whole])
    return found


def parts(credential: str) -> Iterator[bytes]:
    """Some parts out of its middle: neither its beginning nor its end, which a hint may show. A
    short one is looked for as a whole."""
    text = credential.encode()
    if len(text) < HINT + 2 * WINDOW:
        yield text
        return
    for at in _chosen.sample(range(HINT, len(text) - WINDOW - 3), 2):
        yield text[at : at + WINDOW]


@dataclass(frozen=True)
class Search:
    """Looks for credentials, by name, in whatever form."""

    patterns: tuple[tuple[bytes, str], ...]

    @classmethod
    def of(cls, credentials: dict[str, str]) -> "Search":
        return cls(
            tuple(
                (form, name)
                for name, credential in credentials.items()
                for part in parts(credential)
                for form in forms(part)
            )
        )

    def found_in(self, content: bytes) -> set[str]:
        """The names of those that are there."""
        return {name for form, name in self.patterns if form in content}


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
