"""What a virtual key looks like: `nx-`, 256 random bits, a checksum; 52 characters in all.

The checksum tells a mistyped key from an unknown one without asking anybody, and lets scanners find
leaked keys without false alarms.
"""

import re
import zlib
from collections.abc import Callable

PREFIX = "nx-"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_BYTES = 32
_RANDOM_LENGTH = 43
_CHECK_LENGTH = 6
_SHAPE = re.compile(rb"nx-[0-9A-Za-z]{49}")


def new_key(entropy: Callable[[int], bytes]) -> str:
    """A fresh key; `entropy(n)` gives n random bytes."""
    random = _base62(int.from_bytes(entropy(_RANDOM_BYTES), "big"), _RANDOM_LENGTH)
    return f"{PREFIX}{random}{_checksum(random)}"


def is_well_formed(text: bytes) -> bool:
    """Whether the text can be a key at all: its length, its letters and its checksum."""
    if _SHAPE.fullmatch(text) is None:
        return False
    body = text[len(PREFIX) :].decode()
    return _checksum(body[:_RANDOM_LENGTH]) == body[_RANDOM_LENGTH:]


def hint(key: str) -> str:
    """What may be shown of a key, so that people tell theirs apart: `nx-4fT2…Xw9a`."""
    return f"{key[:7]}…{key[-4:]}"


def _checksum(random: str) -> str:
    return _base62(zlib.crc32(random.encode()), _CHECK_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
