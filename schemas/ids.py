"""Time, randomness and the ids made of them: always arguments, never globals."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from string import hexdigits


@dataclass(frozen=True, slots=True)
class Clock:
    """The outside world as three functions, so that a flow can be replayed in a test.

    `now_ns` is wall time in nanoseconds since 1970 UTC, `monotonic` is in seconds and never goes
    back, `entropy(n)` gives n random bytes.
    """

    now_ns: Callable[[], int] = time.time_ns
    monotonic: Callable[[], float] = time.monotonic
    entropy: Callable[[int], bytes] = os.urandom

    def new_id(self) -> str:
        """A fresh UUIDv7 in its usual text form: ids sort by the time they were made."""
        millis = self.now_ns() // 1_000_000
        bits = int.from_bytes(self.entropy(10), "big")
        rand_a = (bits >> 62) & 0xFFF
        rand_b = bits & 0x3FFF_FFFF_FFFF_FFFF
        value = (millis << 80) | (0x7 << 76) | (rand_a << 64) | (0b10 << 62) | rand_b
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def new_token(self) -> str:
        """Ten characters that name one process for its lifetime; safe as a subject token."""
        return self.entropy(5).hex()


def made_us(id: str) -> int | None:
    """When a UUIDv7 was made, in microseconds since 1970 UTC; None for any other text."""
    head = id.replace("-", "")
    if len(head) != 32 or head[12] != "7" or not all(one in hexdigits for one in head):
        return None
    return int(head[:12], 16) * 1000


def rfc3339(now_ns: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 UTC with microseconds: `2026-11-21T01:27:28.000001Z`."""
    seconds, nanos = divmod(now_ns, 1_000_000_000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{nanos // 1000:06d}Z"


def bare_call_id(text: str) -> str:
    """The call id in any form a client may hold: `chatcmpl-<id>`, `req_<id>` or the bare id."""
    for prefix in ("chatcmpl-", "req_"):
        if text.startswith(prefix):
            return text[len(prefix) :]
    return text
