"""A gateway is used with every kind of credential, in good and in bad, and then searched: disk,
logs and messages hold none of them.

What is searched holds planted texts as well, which must be found: a search that finds nothing
proves nothing.
"""

import asyncio
import base64
import json
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt
import msgspec
import pytest

from analytics.rows import Record
from ledger.access.key_text import new_key
from ledger.connection import Connection
from ledger.reader import Stored, read_subject
from ledger.secret import ServerSecret, credential_purpose
from schemas import subjects
from schemas.call import Call, decode_call
from schemas.config import BusConfig
from schemas.events import LedgerEvent, decode_event
from schemas.ids import Clock
from tests.flow.gateway import (
    ADMIN,
    KEY,
    OTHER_KEY,
    UP_KEY,
    Gateway,
    Provider,
    basic,
    running_gateway,
    until,
)
from tests.upstream import (
    HANG,
    Recorded,
    Reply,
    chat_answer,
    chat_chunk,
    chat_stream,
    event,
    event_stream,
    json_reply,
)
from tests.warehouse import config_for, warehouse

MORE = """
  dear: {provider: needy, engine: n-1, fallbacks: [up-model]}
secret: ["${TEST_SERVER_SECRET}"]
jwt: {secret: "${TEST_JWT_SECRET}"}
log_level: debug
queue: {ack_wait: 2, in_progress_every: 0.4}
"""
NEEDY = '  needy: {{dialect: openai, base_url: "{url}/v1", client_keys: required}}\n'

WINDOW = 12
HINT = 8
_chosen = random.Random()


def secret_text(prefix: str) -> str:
    """A credential that no other text looks like, with the signs that travel badly."""
    entropy = os.urandom(24)
    return f"{prefix}{base64.b64encode(entropy).decode()}+/.={entropy.hex()}"


# The search.


def forms(text: bytes) -> set[bytes]:
    """How a text may stand in a file: as it is, in hexadecimal, in base64 at any offset."""
    found = {text, text.hex().encode(), text.hex().upper().encode()}
    for offset in range(3):
        shifted = b"\0" * offset + text
        # Only the characters that do not depend on the bytes before and after.
        whole = slice(-(-offset * 8 // 6), len(shifted) * 8 // 6)
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(shifted)[whole])
    return found


def parts(credential: str) -> Iterator[bytes]:
    """Some parts out of its middle: neither its beginning nor its end, which a hint may show. A
    short one is looked for as a whole."""
    text = credential.encode()
    if len(text) < HINT + 2 * WINDOW:
        yield text
        return
    for at in _chosen.sample(range(HINT, len(text) - WINDOW - 3), 2):
        yield text[at : at + WINDOW]


@dataclass(frozen=True)
class Search:
    """Looks for credentials, by name, in whatever form."""

    patterns: tuple[tuple[bytes, str], ...]

    @classmethod
    def of(cls, credentials: dict[str, str]) -> "Search":
        return cls(
            tuple(
                (form, name)
                for name, credential in credentials.items()
                for part in parts(credential)
                for form in forms(part)
            )
        )

    def found_in(self, content: bytes) -> set[str]:
        """The names of those that are there."""
        return {name for form, name in self.patterns if form in content}


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# The use.


@dataclass
class Run:
    """What was left behind: files, messages by stream, and the texts that were used or planted."""

    folder: Path
    credentials: dict[str, str] = field(default_factory=dict)
    planted: dict[str, str] = field(default_factory=dict)
    messages: dict[str, list[bytes]] = field(default_factory=dict)
    jobs: list[Call] = field(default_factory=list)
    answers: list[httpx.Response] = field(default_factory=list)

    @property
    def events(self) -> list[LedgerEvent]:
        decoded = map(decode_event, self.messages[subjects.LEDGER])
        return [event for event in decoded if event is not None]

    def credential(self, name: str, text: str) -> str:
        self.credentials[name] = text
        return text

    def plant(self, name: str) -> str:
        return self.planted.setdefault(name, secret_text("planted-"))


class User:
    """Uses a gateway in every way that has to do with credentials."""

    def __init__(self, run: Run, gateway: Gateway, other: Provider, pool: ThreadPoolExecutor):
        self.run = run
        self.gateway = gateway
        self.other = other
        self.pool = pool
        self.own = run.credential("client's own key", secret_text("sk-own-"))
        self.odd = run.credential("client's own key of another form", secret_text("AIza"))
        self.through = run.credential("passed through", secret_text("sk-pass-"))

    def post(self, path: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
        response = self.gateway.client.post(path, **more)
        self.run.answers.append(response)
        return response

    def ask(
        self,
        model: str = "dear",
        credentials: Mapping[str, str] | None = None,
        *,
        stream: bool = False,
        text: str = "Hi",
    ) -> httpx.Response:
        """A call with these headers, by default those of a client with keys of its own."""
        own = {
            "authorization": f"Bearer {KEY}",
            "x-nexus-provider-key": f"needy={self.own}, up={self.odd}",
        }
        body = basic(model=model, messages=[{"role": "user", "content": text}], stream=stream)
        return self.post(headers=own if credentials is None else credentials, json=body)

    def ask_through(self, *, stream: bool = False) -> httpx.Response:
        return self.ask("any/model", {"authorization": f"Bearer {self.through}"}, stream=stream)

    def use_everything(self) -> None:
        self._keys_of_ours()
        self._wrong_credentials()
        self._answers()
        self._failures()
        self._plant()
        self._kill_a_worker_in_the_middle()
        self._let_jobs_wait_for_a_worker()
        self._leave_jobs_behind()

    def _script(self, reply: Reply | Callable[[Recorded], Reply]) -> None:
        self.gateway.up.script(reply)
        self.other.script(reply)

    def _keys_of_ours(self) -> None:
        run = self.run
        admin = {"authorization": f"Bearer {ADMIN}"}
        created = self.post("/admin/keys", headers=admin, json={"name": "scanned"}).json()
        key = run.credential("virtual key", created["key"])
        assert self.ask("mock", {"x-api-key": key}).status_code == 200
        rotate, revoke = (f"/admin/keys/{created['id']}/{how}" for how in ("rotate", "revoke"))
        rotated = self.post(rotate, headers=admin, json={"grace_seconds": 60}).json()
        key = run.credential("rotated key", rotated["key"])
        assert self.ask("mock", {"x-nexus-token": key}).status_code == 200
        assert self.post(revoke, headers=admin).status_code == 200
        assert self.ask("mock", {"x-api-key": key}).status_code == 401
        claims = {"sub": "someone", "exp": time.time() + 600}
        token = jwt.encode(claims, os.environ["TEST_JWT_SECRET"], "HS256")
        run.credential("token", token.partition(".")[2])
        assert self.ask("mock", {"authorization": f"Bearer {token}"}).status_code == 200
        forged = jwt.encode(claims, secret_text("another"), "HS256")
        run.credential("forged token", forged.partition(".")[2])
        assert self.ask("mock", {"authorization": f"Bearer {forged}"}).status_code == 401

    def _wrong_credentials(self) -> None:
        run = self.run
        unknown = run.credential("unknown key", secret_text("unknown-"))
        ours = run.credential("unknown key of ours", new_key(Clock().entropy))
        mistyped = run.credential("mistyped key of ours", f"{new_key(Clock().entropy)}x")
        for text in (unknown, ours, mistyped):
            for header, value in (
                ("authorization", f"Bearer {text}"),
                ("authorization", f"Basic {text}"),
                ("x-api-key", text),
                ("x-nexus-token", text),
            ):
                assert self.ask("mock", {header: value}).status_code == 401
        nobodys = run.credential("key for nobody", secret_text("sk-nobody-"))
        for entry in (f"nobody={nobodys}", nobodys, f"needy={nobodys},needy={nobodys}"):
            assert self.ask(credentials=_beside_ours(entry)).status_code == 400
        unused = run.credential("key that nobody needed", secret_text("sk-unused-"))
        assert self.ask("mock", _beside_ours(f"needy={unused}")).status_code == 200

    def _answers(self) -> None:
        for stream in (False, True):
            self._script(chat_stream("Hel", "lo") if stream else json_reply(chat_answer()))
            for response in (
                self.ask(stream=stream),
                self.ask_through(stream=stream),
                self.ask("up-model", stream=stream),
                self.ask(stream=stream, text="long " * 1_800_000),
            ):
                assert response.status_code == 200, response.text

    def _failures(self) -> None:
        for status in (400, 401, 403, 404, 429, 500):
            self._script(partial(_refusing, status))
            for stream in (False, True):
                assert self.ask(stream=stream).status_code >= 400
                assert self.ask_through(stream=stream).status_code >= 400
        self._script(lambda request: json_reply(_quoting(request)))
        assert self.ask().status_code == 502
        broken = [event(chat_chunk("x")), 0.05]
        self._script(lambda request: event_stream(*broken, event(_quoting(request))))
        assert "[removed]" in self.ask(stream=True).text
        assert "[removed]" in self.ask_through(stream=True).text
        self._script(Reply(status=307, headers={"Location": f"{self.gateway.up.url}/v1/x"}))
        assert self.ask().status_code == 502
        assert self.ask_through().status_code == 502

    def _plant(self) -> None:
        self._script(json_reply(chat_answer(self.run.plant("in an answer"))))
        assert self.ask().status_code == 200
        self._script(json_reply({"error": {"message": self.run.plant("in an event")}}, 400))
        assert self.ask().status_code == 400
        logged = self.run.plant("in a log line").replace("+", "-").replace("=", "-")
        self.run.planted["in a log line"] = logged
        assert self.ask(logged, {"authorization": f"Bearer {KEY}"}).status_code == 404

    def _kill_a_worker_in_the_middle(self) -> None:
        self._await_jobs(0)
        self._script(Reply(before=(HANG,)))
        asked = self._begin(lambda: self.ask())
        passed = self._begin(lambda: self.ask_through())
        streamed = self._begin(lambda: self.ask(stream=True))
        until(lambda: len(self.other.requests) == 3)
        self._note_jobs()
        self._kill_worker()
        self._script(json_reply(chat_answer()))
        self._start_worker()
        assert asked.result(30).status_code == 200
        assert passed.result(30).status_code == 200
        assert streamed.result(30).status_code in (200, 502)

    def _let_jobs_wait_for_a_worker(self) -> None:
        self._script(json_reply(chat_answer()))
        waiting = self._queue_without_a_worker(self.ask, self.ask_through)
        self._start_worker()
        assert [one.result(30).status_code for one in waiting] == [200, 200]

    def _leave_jobs_behind(self) -> None:
        """With what is planted in them, in every form that is searched for."""
        plain, hexed, encoded = (self.run.plant(f"in a body, {how}") for how in ("", "hex", "b64"))
        text = f"{plain} {hexed.encode().hex()} {base64.b64encode(encoded.encode()).decode()}"
        self._queue_without_a_worker(partial(self.ask, text=text), self.ask_through)

    def _queue_without_a_worker(
        self, *asks: Callable[[], httpx.Response]
    ) -> list["Future[httpx.Response]"]:
        """These calls stand in the queue, and the worker is gone."""
        self._await_jobs(0)
        pid = self.gateway.children["worker"].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        waiting = [self._begin(ask) for ask in asks]
        self._await_jobs(len(asks))
        self._kill_worker()
        self._note_jobs()
        return waiting

    def _begin(self, ask: Callable[[], httpx.Response]) -> "Future[httpx.Response]":
        return self.pool.submit(ask)

    def _kill_worker(self) -> None:
        worker = self.gateway.children["worker"]
        worker.kill()
        until(lambda: worker.exit_code() is not None)

    def _start_worker(self) -> None:
        heard = self.gateway.children["worker"].start()
        ready, _, _ = select.select([heard], [], [], 60)
        assert ready and os.read(heard, 16), self.gateway.log.read_text()
        os.close(heard)

    def _jobs(self) -> list[bytes]:
        return [record.data for record in asyncio.run(_stored(self.gateway, subjects.WORK))]

    def _await_jobs(self, count: int) -> None:
        until(lambda: len(self._jobs()) == count)

    def _note_jobs(self) -> None:
        """The work queue as it is now: later its jobs are gone."""
        jobs = self._jobs()
        self.run.messages.setdefault(subjects.WORK, []).extend(jobs)
        self.run.jobs += map(decode_call, jobs)


def _beside_ours(keys: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEY}", "x-nexus-provider-key": keys}


def _refusing(status: int, request: Recorded) -> Reply:
    return json_reply(_quoting(request), status)


def _quoting(request: Recorded) -> dict[str, Any]:
    """An error in which a provider repeats the key wherever it can."""
    bearer = request.headers["Authorization"]
    key = bearer.removeprefix("Bearer ")
    message = f"Not with {key}, nor {key[:9]}****{key[-4:]} ({bearer}; {json.dumps(key)})"
    return {"error": {"message": message, "code": key, "param": key, "type": key}}


async def _stored(gateway: Gateway, stream: str) -> list[Stored]:
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    try:
        return await read_subject(connection, stream, ">", timeout=10.0)
    finally:
        await connection.close()


async def _streams(gateway: Gateway) -> list[str]:
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    try:
        reply = await connection.request("$JS.API.STREAM.NAMES", b"{}", timeout=5.0)
        names: list[str] = json.loads(reply.data)["streams"]
        return names
    finally:
        await connection.close()


async def _project(run: Run, ledger: Iterable[Stored]) -> None:
    """What analytics would make of the ledger."""
    config = config_for("embedded", run.folder / "data")
    records = [Record(one.seq, one.subject, 1_790_000_000_000_000, one.data) for one in ledger]
    async with warehouse(config) as house:
        await house.projection.add(records)
        rows = await house.rows("select toString(tuple(*)) from events final")
        run.messages["events in chDB"] = [str(row[0]).encode() for row in rows]
        assert len(rows) == len(records)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    run = Run(tmp_path_factory.mktemp("scanned"))
    other = Provider()
    other.start()
    run.credentials |= {
        "admin token": ADMIN,
        "configured key": KEY,
        "other configured key": OTHER_KEY,
        "gateway's own key": UP_KEY,
        "server secret": secret_text("server-secret-"),
        "secret of the tokens": secret_text("jwt-secret-"),
    }
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setenv("TEST_SERVER_SECRET", run.credentials["server secret"])
        patch.setenv("TEST_JWT_SECRET", run.credentials["secret of the tokens"])
        more = f'{MORE}target_url: "{other.url}"\n'
        with running_gateway(run.folder, more, NEEDY.format(url=other.url)) as gateway:
            User(run, gateway, other, pool).use_everything()
            for stream in asyncio.run(_streams(gateway)):
                stored = asyncio.run(_stored(gateway, stream))
                run.messages.setdefault(stream, []).extend(record.data for record in stored)
            asyncio.run(_project(run, asyncio.run(_stored(gateway, subjects.LEDGER))))
    other.stop()
    yield run


def test_everything_happened_that_could_have_left_a_credential(run: Run) -> None:
    kinds = {str(event.__struct_config__.tag) for event in run.events}
    assert kinds >= {
        "model.request.complete",
        "model.request.failed",
        "model.attempt.failed",
        "model.attempt.abandoned",
        "access.key.created",
        "access.key.rotated",
        "access.key.revoked",
    }
    assert {subjects.LEDGER, subjects.WORK, subjects.RESP, subjects.BLOBS} <= run.messages.keys()
    assert any(run.messages[subjects.RESP]) and any(run.messages[subjects.BLOBS])
    shown = [path for path in files_below(run.folder) if path.suffix == ".blk"]
    assert shown and {subjects.WORK, subjects.LEDGER} <= {p.parts[-3] for p in shown}
    assert (run.folder / "data" / "analytics").is_dir()
    for role in ("ingress", "worker", "governor"):
        assert f'"role":"{role}"' in (run.folder / "log").read_text()


def test_the_jobs_that_waited_hold_the_keys_sealed_for_those_who_run_them(run: Run) -> None:
    secret = ServerSecret((run.credentials["server secret"],))
    opened = {
        secret.open(sealed, credential_purpose(job.id, provider)).decode()
        for job in run.jobs
        for provider, sealed in job.credentials.items()
    }
    assert len(run.jobs) == 3 + 2 + 2
    names = ("client's own key", "client's own key of another form", "passed through")
    assert opened == {run.credentials[name] for name in names}


def test_no_file_holds_a_credential(run: Run) -> None:
    search = Search.of(run.credentials)
    for path in files_below(run.folder):
        assert not search.found_in(path.read_bytes()), path


def test_no_message_holds_a_credential(run: Run) -> None:
    search = Search.of(run.credentials)
    for stream, messages in run.messages.items():
        assert not search.found_in(b"\n".join(messages)), stream


def test_no_answer_holds_a_credential_but_that_which_made_the_key(run: Run) -> None:
    search = Search.of(run.credentials)
    for answer in run.answers:
        found = search.found_in(answer.content)
        if answer.request.url.path.startswith("/admin/keys"):
            found -= {"virtual key", "rotated key"}
        assert not found, answer.text


def test_the_search_finds_what_was_planted_where_it_was_planted(run: Run) -> None:
    search = Search.of(run.planted)
    on_disk = {
        path.relative_to(run.folder).parts[-3] if path.suffix == ".blk" else path.name: found
        for path in files_below(run.folder)
        if (found := search.found_in(path.read_bytes()))
    }
    in_bodies = {name for name in run.planted if name.startswith("in a body")}
    assert len(in_bodies) == 3
    assert in_bodies <= on_disk[subjects.WORK]
    assert "in an answer" in on_disk[subjects.RESP]
    assert "in an event" in on_disk[subjects.LEDGER]
    assert "in a log line" in on_disk["log"]
    for stream, names in {
        subjects.WORK: in_bodies,
        subjects.RESP: {"in an answer"},
        subjects.LEDGER: {"in an event"},
        "events in chDB": {"in an event"},
    }.items():
        assert names <= search.found_in(b"\n".join(run.messages[stream])), stream


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_a_credential_is_found_in_every_form(tmp_path: Path, before: str) -> None:
    credential = secret_text("sk-")
    search = Search.of({"it": credential})
    plain = f"{before}{credential}>?".encode()
    for content in (
        plain,
        plain.hex().encode(),
        plain.hex().upper().encode(),
        base64.b64encode(plain),
        base64.urlsafe_b64encode(plain),
        msgspec.msgpack.encode({"headers": {"authorization": plain.decode()}}),
    ):
        assert search.found_in(b"some " + content + b" text") == {"it"}
    assert not search.found_in(secret_text("sk-").encode())
