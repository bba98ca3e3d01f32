"""Everything that has to do with credentials, done to a gateway; what was left behind is kept."""

import asyncio
import base64
import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt

from ledger.access.key_text import new_key
from ledger.connection import Connection
from ledger.reader import Stored, read_subject
from schemas import subjects
from schemas.call import Call, decode_call
from schemas.config import BusConfig
from schemas.events import LedgerEvent, decode_event
from schemas.ids import Clock
from tests.flow.credential_search import secret_text
from tests.flow.gateway import ADMIN, KEY, Gateway, Provider, basic, until
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
    ) -> list[Future[httpx.Response]]:
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

    def _begin(self, ask: Callable[[], httpx.Response]) -> Future[httpx.Response]:
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
        return [record.data for record in asyncio.run(stored_in(self.gateway, subjects.WORK))]

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


async def stored_in(gateway: Gateway, stream: str) -> list[Stored]:
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    try:
        return await read_subject(connection, stream, ">", timeout=10.0)
    finally:
        await connection.close()
