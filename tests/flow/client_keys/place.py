"""A gateway whose clients have keys of their own, and what arrived at its upstreams."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import pytest

from ledger.connection import Connection
from ledger.reader import read_subject
from schemas import subjects
from schemas.config import BusConfig
from schemas.events import LedgerEvent, Outcome, Terminal, decode_event
from tests.flow.gateway import Gateway, Provider, basic, until
from tests.upstream import Script, chat_answer, chat_stream, json_reply

SECRET = "the secret of ingress and worker"
OWN = "sk-own/key+of=one-client.0123456789"
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@dataclass
class Place:
    """A gateway, with `other` the upstream that clients have their own keys for."""

    gateway: Gateway
    other: Provider

    def script(self, up: Script, other: Script) -> None:
        self.gateway.up.script(up)
        self.other.script(other)

    def answer(self, stream: bool) -> None:
        """Both upstreams answer."""
        whole = json_reply(chat_answer("Hello"))
        reply = chat_stream("Hello") if stream else whole
        self.script(reply, reply)

    def ask(
        self, model: str, stream: bool = False, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """One call under the tests' key, unless the headers say another."""
        return self.gateway.post(headers=headers, json=basic(model=model, stream=stream))

    def sent(self) -> tuple[list[str], list[str]]:
        """The credentials that arrived at the two upstreams."""
        upstreams = (self.gateway.up, self.other)
        up, other = ([r.headers["Authorization"] for r in one.requests] for one in upstreams)
        return up, other

    def nowhere(self, *keys: str) -> None:
        """Asserts that no request to an upstream holds one of these keys."""
        for request in (*self.gateway.up.requests, *self.other.requests):
            held = f"{request.path} {list(request.headers.items())} {request.body!r}"
            assert not [key for key in keys if key in held]

    def events(self, response: httpx.Response) -> list[LedgerEvent]:
        """The ledger of one call, once it has its end."""
        call_id = response.headers["x-request-id"].removeprefix("req_")
        found: list[LedgerEvent] = []

        def ended() -> bool:
            found[:] = [e for e in asyncio.run(ledger(self.gateway)) if e.call_id == call_id]
            return any(isinstance(event, Terminal) for event in found)

        until(ended)
        return found


async def ledger(gateway: Gateway) -> list[LedgerEvent]:
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    try:
        stored = await read_subject(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
    finally:
        await connection.close()
    return [event for record in stored if (event := decode_event(record.data)) is not None]


def bring(**keys: str) -> dict[str, str]:
    """The header with the client's own keys."""
    pairs = ",".join(f"{provider}={key}" for provider, key in keys.items())
    return {"X-Nexus-Provider-Key": pairs}


def outcomes(events: list[LedgerEvent]) -> list[Outcome]:
    return [event for event in events if isinstance(event, Outcome)]
