"""A client that streams: what it has seen so far, and how it ended."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx


class Stream:
    """A streamed answer as a client sees it, while it comes in.

    `texts` are the contents of its chunks so far, `error` that of an error event or an error
    answer, `done` is true after [DONE], `broken` when the connection ended before its time.
    """

    def __init__(self, client: httpx.AsyncClient, url: str, body: Any, headers: Any) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.texts: list[str] = []
        self.error: dict[str, Any] | None = None
        self.last: dict[str, Any] = {}
        self.done = False
        self.broken = False
        self._task = asyncio.create_task(self._read(client, url, body, headers))

    @property
    def clear(self) -> bool:
        """Whether the client knows where it stands: all of it, or an error."""
        return self.done is (self.error is None)

    async def end(self) -> "Stream":
        """Returns when nothing more will come."""
        await self._task
        return self

    async def leave(self) -> None:
        """Close the connection."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _read(self, client: httpx.AsyncClient, url: str, body: Any, headers: Any) -> None:
        try:
            async with client.stream("POST", url, json=body, headers=headers) as response:
                self.status, self.headers = response.status_code, response.headers
                if response.status_code != 200:
                    self.error = json.loads(await response.aread())["error"]
                    return
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        self._take(line[6:])
        except httpx.TransportError:
            self.broken = True

    def _take(self, data: str) -> None:
        assert not self.done and self.error is None, "something came after the end"
        if data == "[DONE]":
            self.done = True
            return
        self.last = json.loads(data)
        if "error" in self.last:
            self.error = self.last["error"]
            return
        for choice in self.last["choices"]:
            if choice["delta"].get("content"):
                self.texts.append(choice["delta"]["content"])
