"""What the tests of the admin API share: its clients, what they ask, and what the ledger holds."""

import asyncio
from typing import Any, TypeVar

import httpx

from ledger.connection import Connection
from ledger.reader import Stored, read_subject
from schemas import subjects
from schemas.config import BusConfig
from schemas.events import decode_event
from tests.flow.gateway import Gateway, message

SECRET = "a-server-secret-of-the-tests"
FILE_KEY = "the-key-in-the-file-of-the-tests"
T = TypeVar("T")
INVALID = "invalid_request_error"


def good(response: httpx.Response, status: int = 200) -> dict[str, Any]:
    """The body of an answer, after a look at what comes with each."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    body: dict[str, Any] = response.json()
    as_of = int(response.headers["x-nexus-ledger-seq"])
    if body["object"] == "list":
        assert body["as_of_seq"] == as_of
    return body


def new_key(admin: httpx.Client, **settings: Any) -> dict[str, Any]:
    return good(admin.post("/keys", json=settings), 201)


def call(gateway: Gateway, key: str, model: str = "mock") -> httpx.Response:
    return gateway.client.post(
        "/v1/chat/completions",
        headers={"authorization": f"Bearer {key}"},
        json={"model": model, "messages": [message("Hi")]},
    )


def ids(listed: dict[str, Any]) -> list[str]:
    return [one["id"] for one in listed["data"]]


def records(gateway: Gateway, subject: str = subjects.LEDGER_ACCESS) -> list[Stored]:
    """What the ledger holds, by default of who may call."""

    async def read() -> list[Stored]:
        connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
        try:
            return await read_subject(connection, subjects.LEDGER, subject)
        finally:
            await connection.close()

    return asyncio.run(read())


def events(gateway: Gateway, kind: type[T]) -> list[T]:
    """The events of one kind."""
    decoded = [decode_event(record.data) for record in records(gateway)]
    return [event for event in decoded if isinstance(event, kind)]
