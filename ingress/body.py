"""Reads a request's body: bounded in size, bounded in time."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from schemas.config import LimitConfig
from schemas.errors import InvalidRequest, TooLarge

_DRAINED = 4


class ClientLeft(Exception):
    """The connection closed before the body was complete; there is nobody to answer."""


async def read_body(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    limits: LimitConfig,
) -> bytes:
    """The whole body. Raises TooLarge (413), InvalidRequest (408) when it comes too slowly.

    A body over the limit is read and thrown away up to four times the limit before it is refused,
    so that an honest client sees the answer instead of a closed connection.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > limits.max_body_bytes:
            raise _too_large(limits)
        return body
    pieces, size = [message.get("body", b"")], len(message.get("body", b""))
    try:
        while message.get("more_body"):
            async with asyncio.timeout(limits.body_timeout):
                message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            piece = message.get("body", b"")
            size += len(piece)
            if size <= limits.max_body_bytes:
                pieces.append(piece)
            elif size > _DRAINED * limits.max_body_bytes:
                break
    except TimeoutError as error:
        raise InvalidRequest(
            f"The request body stopped coming for {limits.body_timeout:g} s.",
            status=408,
            code="request_timeout",
        ) from error
    if size > limits.max_body_bytes:
        raise _too_large(limits)
    return b"".join(pieces)


def _too_large(limits: LimitConfig) -> TooLarge:
    return TooLarge(
        f"The request body is larger than {limits.max_body_bytes} bytes. "
        "Send less, or raise limits.max_body_bytes."
    )
