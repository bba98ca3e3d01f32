"""Clients that call a cluster again and again, and what each of their calls came to."""

import asyncio
import itertools
from collections import Counter

import httpx

from tests.cluster import Cluster
from tests.streaming import Stream


class SteadyLoad:
    """For each ingress so many clients that stream and so many that ask for whole answers.

    A call is named `call<number>`: that is its prompt and its app. An answer is None where the
    connection broke.
    """

    def __init__(self, cluster: Cluster, *, streams: int, asks: int, pause: float) -> None:
        self.streams: dict[str, Stream] = {}
        self.answers: dict[str, httpx.Response | None] = {}
        self._cluster = cluster
        self._pause = pause
        self._numbers = itertools.count()
        self._stopped = False
        self._clients = [
            asyncio.create_task(client(ingress))
            for ingress in range(len(cluster.ingresses))
            for client in [self._ask] * asks + [self._stream] * streams
        ]

    @property
    def calls(self) -> int:
        return len(self.streams) + len(self.answers)

    def errors(self) -> Counter[str]:
        """How many calls were answered with which error code."""
        streamed = [stream.error for stream in self.streams.values()]
        whole = [
            answer.json()["error"]
            for answer in self.answers.values()
            if answer is not None and answer.status_code != 200
        ]
        return Counter(str(error["code"]) for error in streamed + whole if error is not None)

    async def stop(self) -> None:
        """Returns when the last calls have come to something."""
        self._stopped = True
        await asyncio.gather(*self._clients)

    async def _ask(self, ingress: int) -> None:
        while not self._stopped:
            name = f"call{next(self._numbers)}"
            try:
                self.answers[name] = await self._cluster.ask(name, app=name, ingress=ingress)
            except httpx.TransportError:
                self.answers[name] = None
            await asyncio.sleep(self._pause)

    async def _stream(self, ingress: int) -> None:
        while not self._stopped:
            name = f"call{next(self._numbers)}"
            stream = self._cluster.stream(name, app=name, ingress=ingress)
            self.streams[name] = await stream.end()
            await asyncio.sleep(self._pause)
