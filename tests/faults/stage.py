"""A gateway with a provider for each case of the matrix, and what came of a case on all sides."""

import asyncio
import socket
import ssl
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ledger.connection import Connection
from ledger.reader import read_subject
from schemas import subjects
from schemas.config import BusConfig
from schemas.events import (
    AttemptFailed,
    LedgerEvent,
    Outcome,
    RequestStart,
    Terminal,
    decode_event,
)
from tests.faults.catalogue import ATTEMPT_SECONDS, DEADLINE_SECONDS, FAULTS, Fault
from tests.flow.gateway import Gateway, Provider, running_gateway, told, until
from tests.leasing import plain
from tests.ledger_facts import one_end
from tests.upstream import (
    Recorded,
    Reply,
    Upstream,
    chat_answer,
    chat_stream,
    json_reply,
)

SPARE = "spare"
_AT_ONCE = 64
_SPARE_PIECES = ("From ", "the ", "other")
SPARE_TEXT = "".join(_SPARE_PIECES)
_PRICE = f", input_cost: 0.000001, output_cost: 0.000002, timeout: {ATTEMPT_SECONDS}"


class Case(NamedTuple):
    """One call: to a model whose first provider has the fault, with or without a fallback."""

    fault: Fault
    stream: bool
    spare: bool

    @property
    def name(self) -> str:
        """Of its model, its provider, its engine there and its project."""
        mode = "stream" if self.stream else "whole"
        return f"{self.fault.name}-{mode}-{'spare' if self.spare else 'alone'}"


CASES = tuple(
    Case(fault, stream, spare)
    for fault in FAULTS
    for stream in (False, True)
    for spare in (False, True)
)


class Seen(NamedTuple):
    """What the client got: the texts that came, and the error in place of the rest.

    `status` is that of the HTTP answer, `error` as it was told, in the body or as an event.
    """

    status: int
    texts: tuple[str, ...]
    error: dict[str, Any] | None
    retry_after: str | None
    call_id: str


class Came(NamedTuple):
    """All of a case: what the client saw, when requests arrived at the faulty provider (monotonic
    seconds) and how many at the spare one, what the ledger says, and what is held in the end."""

    case: Case
    seen: Seen
    arrived: tuple[float, ...]
    spared: int
    events: tuple[LedgerEvent, ...]
    charged: int
    held: int

    @property
    def end(self) -> Terminal:
        return one_end(self.events, self.seen.call_id)

    @property
    def failed(self) -> list[AttemptFailed]:
        return [event for event in self.events if isinstance(event, AttemptFailed)]

    @property
    def outcomes(self) -> list[Outcome]:
        return [event for event in self.events if isinstance(event, Outcome)]


class _Secure(Provider):
    """A provider whose certificate nobody signed but itself."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._upstream = Upstream(_own_certificate(folder))


class _Arrivals:
    """The script of all faulty providers; notes when what arrived."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)
        self.spared: dict[str, int] = defaultdict(int)
        self._faults = {fault.name: fault for fault in FAULTS}

    def __call__(self, request: Recorded) -> Reply:
        name = request.path.split("/")[1]
        engine, stream = request.json["model"], bool(request.json.get("stream"))
        if name == SPARE:
            self.spared[engine] += 1
            return chat_stream(*_SPARE_PIECES) if stream else json_reply(chat_answer(SPARE_TEXT))
        self.times[engine].append(time.monotonic())
        return self._faults[name].reply(stream)


def matrix(folder: Path) -> list[Came]:
    """Every case once, many at the same time, at one gateway in `folder`."""
    with _gateway(folder) as (gateway, faulty), ThreadPoolExecutor(_AT_ONCE) as pool:
        arrivals = _Arrivals()
        faulty.script(arrivals)
        seen = list(pool.map(lambda case: _ask(gateway, case), CASES))
        events = ledger_of(gateway, {one.call_id for one in seen})
    sums = plain(events)
    by_call: dict[str, list[LedgerEvent]] = defaultdict(list)
    for event in events:
        by_call[event.call_id].append(event)
    return [
        Came(
            case,
            one,
            tuple(arrivals.times[case.name]),
            arrivals.spared[case.name],
            tuple(by_call[one.call_id]),
            sums.settled[account(by_call[one.call_id])],
            sums.held(account(by_call[one.call_id])),
        )
        for case, one in zip(CASES, seen, strict=True)
    ]


def account(events: Sequence[LedgerEvent]) -> str:
    """The account that a call was charged to."""
    (start,) = (event for event in events if isinstance(event, RequestStart))
    (found,) = start.accounts
    return found


def ledger_of(gateway: Gateway, calls: set[str]) -> list[LedgerEvent]:
    """The whole ledger, once it has the ends of these calls."""
    found: list[LedgerEvent] = []

    def ended() -> bool:
        found[:] = asyncio.run(_events(gateway))
        return calls <= {event.call_id for event in found if isinstance(event, Terminal)}

    until(ended)
    return found


async def _events(gateway: Gateway) -> list[LedgerEvent]:
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    try:
        stored = await read_subject(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
    finally:
        await connection.close()
    decoded = [decode_event(record.data) for record in stored]
    return [event for event in decoded if event is not None]


def _ask(gateway: Gateway, case: Case) -> Seen:
    response = gateway.ask(
        case.name,
        stream=case.stream,
        max_tokens=50,
        budget={"project_id": case.name, "user_id": "ana"},
    )
    call_id = response.headers["x-request-id"].removeprefix("req_")
    retry_after = response.headers.get("retry-after")
    texts: tuple[str, ...] = ()
    error: dict[str, Any] | None = None
    if response.headers["content-type"].startswith("text/event-stream"):
        events = told(response)
        error = events.pop()["error"] if "error" in events[-1] else None
        deltas = [one["choices"][0]["delta"] for one in events if one.get("choices")]
        texts = tuple(delta["content"] for delta in deltas if delta.get("content"))
    elif response.status_code == 200:
        texts = (response.json()["choices"][0]["message"]["content"],)
    else:
        error = response.json()["error"]
    return Seen(response.status_code, texts, error, retry_after, call_id)


@contextmanager
def _gateway(folder: Path) -> Iterator[tuple[Gateway, Provider]]:
    """A gateway with the models of all cases, and the server that plays their faults; nobody
    listens at the port of `refused`."""
    with ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        secure = stack.enter_context(_started(_Secure(folder)))
        faulty = stack.enter_context(_started(Provider()))
        places = {
            "refused": f"http://127.0.0.1:{deaf.getsockname()[1]}",
            "dns": "http://no-such-host.invalid",
            "tls": secure.url,
        }
        providers = [_provider(SPARE, SPARE, f"{faulty.url}/{SPARE}")]
        for case in CASES:
            url = places.get(case.fault.place, f"{faulty.url}/{case.fault.name}")
            providers.append(_provider(case.name, case.fault.name, url))
        more = "".join(map(_models, CASES)) + f"call_deadline: {DEADLINE_SECONDS}\nbudgets:\n"
        more += "".join(map(_budget, CASES))
        gateway = stack.enter_context(running_gateway(folder, more, "\n".join(providers)))
        yield gateway, faulty


@contextmanager
def _started(provider: Provider) -> Iterator[Provider]:
    provider.start()
    try:
        yield provider
    finally:
        provider.stop()


def _provider(name: str, pool: str, url: str) -> str:
    settings = f'dialect: openai, base_url: "{url}/v1", api_key: "${{UP_API_KEY}}", pool: "{pool}"'
    return f"  {name}: {{{settings}}}"


def _models(case: Case) -> str:
    fallbacks = f", fallbacks: [{case.name}-2]" if case.spare else ""
    lines = f"  {case.name}: {{provider: {case.name}{_PRICE}{fallbacks}}}\n"
    return lines + (
        f"  {case.name}-2: {{provider: {SPARE}, engine: {case.name}{_PRICE}}}\n"
        if case.spare
        else ""
    )


def _budget(case: Case) -> str:
    return f"  - {{scope: project, id: {case.name}, period: total, limit_usd: 1}}\n"


def _own_certificate(folder: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1 that signs itself."""
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"),
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
