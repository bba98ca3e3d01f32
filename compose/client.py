"""Speaks HTTP to a running gateway for the commands that ask and watch."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec

from compose.claims import read_token
from compose.consistency import DEV_KEY
from workers.sse import BrokenStream, Event, Parser

DEFAULT_URL = "http://127.0.0.1:8080"
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_PAUSE = 0.5
_COME_BACK = "too_slow"


class Failed(Exception):
    """What went wrong at the gateway or on the way to it, as a sentence for a person."""


class Address(NamedTuple):
    """Where the gateway is and what opens it."""

    url: str
    token: str

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class Answer(msgspec.Struct):
    """Rows of a SQL query; `as_of_seq` is the ledger sequence that they include."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    as_of_seq: int | None = None


class LedgerEvent(NamedTuple):
    """One event of the ledger: its JSON as it came, and the same decoded."""

    data: bytes
    fields: dict[str, Any]

    @property
    def type(self) -> str:
        return str(self.fields.get("event_type", ""))


def address(env: Mapping[str, str]) -> Address:
    """NEXUS_URL and NEXUS_TOKEN, or what a gateway on this machine has by default."""
    token = env.get("NEXUS_TOKEN") or read_token(Path(env.get("NEXUS_DATA_DIR") or ".nexus"))
    return Address((env.get("NEXUS_URL") or DEFAULT_URL).rstrip("/"), token or DEV_KEY)


def ask(gateway: Address, query: str) -> Answer:
    """The answer to a SQL query. Raises Failed."""
    url = f"{gateway.url}/api/v1/analytics/sql"
    try:
        response = httpx.post(
            url, json={"query": query}, headers=gateway.headers(), timeout=_TIMEOUT
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(gateway, error) from error
    if response.status_code != 200:
        raise Failed(_told(response.status_code, response.content))
    try:
        return msgspec.json.decode(response.content, type=Answer)
    except msgspec.DecodeError as error:
        raise Failed(f"{url} does not answer like a Nexus gateway: {error}") from error


def events(gateway: Address, since: int | None, pattern: str) -> Iterator[LedgerEvent]:
    """Events of types that match `pattern` (`*` and `?`), for ever, in the order of the ledger.

    They begin after sequence `since` (None: now) and go on where they were after a lost
    connection. Raises Failed when there is no gateway at the start, or it refuses.
    """
    last_id = None if since is None else str(since)
    met = False
    with httpx.Client(timeout=_TIMEOUT, params={"type": pattern}) as http:
        while True:
            headers = {**gateway.headers(), "Accept": "text/event-stream"}
            if last_id is not None:
                headers["Last-Event-ID"] = last_id
            try:
                with http.stream("GET", f"{gateway.url}/events", headers=headers) as response:
                    if response.status_code == 200:
                        met = True
                        for sent in _server_sent(response):
                            last_id = sent.id.decode()
                            yield LedgerEvent(sent.data, msgspec.json.decode(sent.data))
                    elif not met or response.status_code < 500:
                        raise Failed(_told(response.status_code, response.read()))
            except (httpx.HTTPError, httpx.InvalidURL, BrokenStream) as error:
                if not met:
                    raise _unreachable(gateway, error) from error
            time.sleep(_PAUSE)


def _server_sent(response: httpx.Response) -> Iterator[Event]:
    """The events of one connection; raises Failed for an error that coming back will not mend."""
    parser = Parser()
    for block in response.iter_bytes():
        for sent in parser.feed(block):
            if sent.name != b"error":
                yield sent
            elif _error(sent.data).get("code") != _COME_BACK:
                raise Failed(_told(response.status_code, sent.data))


def _unreachable(gateway: Address, error: Exception) -> Failed:
    return Failed(
        f"no gateway answers at {gateway.url} ({error}): start one with `nexus up`, "
        "or set NEXUS_URL"
    )


def _told(status: int, body: bytes) -> str:
    """The gateway's own words for a refusal, else its status."""
    said = _error(body).get("message")
    if said is None:
        return f"the gateway answered with status {status}"
    return f"{said} (it was NEXUS_TOKEN, or its default)" if status == 401 else str(said)


def _error(body: bytes) -> dict[str, Any]:
    """What stands under `error`; nothing when the body is not in the one error shape."""
    try:
        return msgspec.json.decode(body, type=dict[str, dict[str, Any]])["error"]
    except (msgspec.DecodeError, KeyError):
        return {}
