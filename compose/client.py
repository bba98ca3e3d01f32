"""Speaks HTTP to a running gateway for the commands that ask and watch."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from compose.claims import read_token, token_file
from compose.commands import Failed
from compose.consistency import DEV_KEY
from workers.sse import BrokenStream, Event, Parser

DEFAULT_URL = "http://127.0.0.1:8080"
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_PAUSE = 0.5
_COME_BACK = "too_slow"
_ADMIN_TOKEN = (
    "the admin token is the gateway's ADMIN_TOKEN, else the one in the file admin_token of its data"
    " directory; give it as NEXUS_TOKEN"
)

T = TypeVar("T")


class Address(NamedTuple):
    """Where the gateway is, what opens it, and where that token is from."""

    url: str
    token: str
    origin: str = "NEXUS_TOKEN"

    def headers(self) -> dict[str, str]:
        """Raises Failed for a token that no header can carry."""
        if not (self.token.isascii() and self.token.isprintable()):
            raise Failed(f"{self.origin} holds what no key has: letters other than ASCII")
        return {"Authorization": f"Bearer {self.token}"}


class Answer(msgspec.Struct):
    """Rows of a SQL query; `as_of_seq` is the ledger sequence that they include."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    as_of_seq: int | None = None


class Reply(NamedTuple):
    """A good answer of the gateway: who gave it, and its JSON as it came."""

    url: str
    body: bytes

    def read(self, kind: type[T]) -> T:
        """The body as data. Raises Failed when it is of another shape."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except msgspec.DecodeError as error:
            raise Failed(f"{self.url} does not answer like a Nexus gateway: {error}") from error


class LedgerEvent(NamedTuple):
    """One event of the ledger: its JSON as it came, and the same decoded."""

    data: bytes
    fields: dict[str, Any]

    @property
    def type(self) -> str:
        return str(self.fields.get("event_type", ""))


def address(env: Mapping[str, str]) -> Address:
    """NEXUS_URL and NEXUS_TOKEN, or what a gateway on this machine has by default."""
    url = (env.get("NEXUS_URL") or DEFAULT_URL).rstrip("/")
    if token := env.get("NEXUS_TOKEN"):
        return Address(url, token)
    data_dir = Path(env.get("NEXUS_DATA_DIR") or ".nexus")
    if kept := read_token(data_dir):
        return Address(url, kept, str(token_file(data_dir)))
    return Address(url, DEV_KEY, f"{DEV_KEY}, as there is no NEXUS_TOKEN and no admin token here")


def request(
    gateway: Address,
    method: str,
    *steps: str,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, str | int] | None = None,
) -> Reply:
    """One question to the path of these steps, answered with 2xx. Raises Failed."""
    headers = gateway.headers()
    try:
        url = "/".join((gateway.url, *map(_quoted, steps)))
        response = httpx.request(
            method, url, json=body, params=query, headers=headers, timeout=_TIMEOUT
        )
    except UnicodeEncodeError as error:
        raise Failed("what was asked for holds bytes that are not UTF-8") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(gateway, error) from error
    if not response.is_success:
        retry_after = response.headers.get("retry-after")
        later = f" (Try again in {retry_after} s.)" if retry_after else ""
        raise Failed(_told(gateway, response.status_code, response.content) + later)
    return Reply(url, response.content)


def ask(gateway: Address, query: str) -> Answer:
    """The answer to a SQL query. Raises Failed."""
    reply = request(gateway, "POST", "api", "v1", "analytics", "sql", body={"query": query})
    return reply.read(Answer)


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
                        for sent in _server_sent(gateway, response):
                            last_id = sent.id.decode()
                            yield LedgerEvent(sent.data, msgspec.json.decode(sent.data))
                    elif not met or response.status_code < 500:
                        raise Failed(_told(gateway, response.status_code, response.read()))
            except (httpx.HTTPError, httpx.InvalidURL, BrokenStream) as error:
                if not met:
                    raise _unreachable(gateway, error) from error
            time.sleep(_PAUSE)


def _server_sent(gateway: Address, response: httpx.Response) -> Iterator[Event]:
    """The events of one connection; raises Failed for an error that coming back will not mend."""
    parser = Parser()
    for block in response.iter_bytes():
        for sent in parser.feed(block):
            if sent.name != b"error":
                yield sent
            elif _error(sent.data).get("code") != _COME_BACK:
                raise Failed(_told(gateway, response.status_code, sent.data))


def _quoted(step: str) -> str:
    """One step of a path, whatever is in it; a quoted dot is not taken for `..` on the way."""
    return quote(step, safe="").replace(".", "%2E")


def _unreachable(gateway: Address, error: Exception) -> Failed:
    return Failed(
        f"no gateway answers at {gateway.url} ({error}): start one with `nexus up`, "
        "or set NEXUS_URL"
    )


def _told(gateway: Address, status: int, body: bytes) -> str:
    """The gateway's own words for a refusal, else its status; and what was wrong to send."""
    said = _error(body).get("message") or f"The gateway answered with status {status}."
    return f"{said} (Sent was {gateway.origin}; {_ADMIN_TOKEN}.)" if status in (401, 403) else said


def _error(body: bytes) -> dict[str, Any]:
    """What stands under `error`; nothing when the body is not in the one error shape."""
    try:
        return msgspec.json.decode(body, type=dict[str, dict[str, Any]])["error"]
    except (msgspec.DecodeError, KeyError):
        return {}
