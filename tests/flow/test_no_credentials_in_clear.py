"""A gateway is used with every kind of credential, in good and in bad, and then searched: disk,
logs and messages hold none of them.

What is searched holds planted texts as well, which must be found: a search that finds nothing
proves nothing.
"""

import asyncio
import base64
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from analytics.rows import Record
from ledger.connection import Connection
from ledger.reader import Stored
from ledger.secret import ServerSecret, credential_purpose
from schemas import subjects
from schemas.config import BusConfig
from tests.flow.credential_search import Search, files_below, secret_text
from tests.flow.credential_use import Run, User, stored_in
from tests.flow.gateway import ADMIN, KEY, OTHER_KEY, UP_KEY, Gateway, Provider, running_gateway
from tests.warehouse import config_for, warehouse

MORE = """
  dear: {provider: needy, engine: n-1, fallbacks: [up-model]}
secret: ["${TEST_SERVER_SECRET}"]
jwt: {secret: "${TEST_JWT_SECRET}"}
log_level: debug
queue: {ack_wait: 2, in_progress_every: 0.4}
"""
NEEDY = '  needy: {{dialect: openai, base_url: "{url}/v1", client_keys: required}}\n'


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
                stored = asyncio.run(stored_in(gateway, stream))
                run.messages.setdefault(stream, []).extend(record.data for record in stored)
            asyncio.run(_project(run, asyncio.run(stored_in(gateway, subjects.LEDGER))))
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
