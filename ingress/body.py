"""Reads a request's body: bounded in size, bounded in time."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from schemas.config import LimitConfig
from schemas.errors import InvalidRequest, TooLarge

_DRAINED = 4
_SLOWEST = 4096.0


class ClientLeft(Exception):
    """The connection closed before the body was complete; there is nobody to answer."""


async def read_body(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    limits: LimitConfig,
) -> bytes:
    """The whole body. Raises TooLarge (413), ClientLeft, and InvalidRequest (408) when nothing
    comes for `body_timeout` seconds, or after them less than 4 KiB a second.

    A body over the limit is read and thrown away up to four times the limit before it is refused,
    so that an honest client sees the answer instead of a closed connection; one that asks first
    (`Expect: 100-continue`) hears it at once.
    """
    if _asks_first(scope["headers"]) and _declared(scope["headers"]) > limits.max_body_bytes:
        raise _too_large(limits)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_timeout) as patience:
            begun = asyncio.get_running_loop().time()
            more = True
            while more and size <= _DRAINED * limits.max_body_bytes:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                piece = message.get("body", b"")
                size += len(piece)
                if size <= limits.max_body_bytes:
                    pieces.append(piece)
                more = message.get("more_body", False)
                if more:
                    now = asyncio.get_running_loop().time()
                    at_least = begun + size / _SLOWEST
                    patience.reschedule(min(now, at_least) + limits.body_timeout)
    except TimeoutError as error:
        raise InvalidRequest(
            f"The request body came too slowly, or not at all for {limits.body_timeout:g} s.",
            status=408,
            code="request_timeout",
        ) from error
    if size > limits.max_body_bytes:
        raise _too_large(limits)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _asks_first(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"expect" for name, _ in headers)


def _declared(headers: list[tuple[bytes, bytes]]) -> int:
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _too_large(limits: LimitConfig) -> TooLarge:
    return TooLarge(
        f"The request body is larger than {limits.max_body_bytes} bytes. "
        "Send less, or raise limits.max_body_bytes."
    )
