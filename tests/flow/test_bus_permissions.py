"""What each user of the bus may not do, tried by that user on a real server; and what becomes of a
role that is forbidden what it needs."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest

from analytics.projector import _record
from compose import setup
from compose.authorization import authorization
from compose.nats_server import NatsServer
from ledger.access.registry import Registry
from ledger.broker import broker
from ledger.connection import Connection, Message, header_block
from ledger.log import Follower, Ledger
from ledger.permissions import ROLES, USERS
from ledger.publisher import Publisher
from ledger.reader import Stored, read_last, read_subject
from ledger.streams import BusNotReady, ensure
from schemas import subjects
from schemas.access import Team
from schemas.config import BusConfig, Config, ProviderConfig, QueueConfig
from schemas.events import encode_event
from tests import sample_events as sample
from tests.cluster import Cluster
from tests.foreign_nats import server_with
from tests.upstream import Reply, chat_answer, json_reply

ROOT = Path(__file__).parents[2]
PROVIDERS = {"mock": ProviderConfig(dialect="mock")}
JOB = subjects.work("mock", "interactive")
ACCESS = "ledger.ingress.=.access.team.set"
PATIENCE = 20.0

MAY_NOT_PUBLISH = [
    ("ingress", "ledger.worker.=.model.request.complete"),
    ("ingress", "ledger.governor.=.model.request.lost"),
    ("worker", ACCESS),
    ("worker", "ledger.governor.=.model.request.lost"),
    ("governor", "ledger.worker.=.model.request.complete"),
    ("analytics", "ledger.ingress.=.model.request.start"),
    ("analytics", "ledger.analytics.=.anything"),
    ("ingress", "agent.events.model.request.complete"),
    ("worker", "agent.events.model.request.complete"),
    ("governor", "agent.events.model.request.complete"),
    ("monitor", "agent.events.model.request.complete"),
    ("monitor", "governor.state"),
    ("monitor", "$JS.API.STREAM.INFO.LEDGER"),
    ("monitor", "$JS.API.CONSUMER.CREATE.LEDGER"),
    ("monitor", "$JS.API.DIRECT.GET.LEDGER"),
    ("ingress", "$JS.API.STREAM.DELETE.LEDGER"),
    ("worker", "$JS.API.STREAM.PURGE.LEDGER"),
    ("governor", "$JS.API.STREAM.UPDATE.LEDGER"),
    ("analytics", "$JS.API.STREAM.DELETE.LEDGER"),
    ("ingress", "$JS.API.STREAM.MSG.DELETE.LEDGER"),
    ("governor", "$JS.API.STREAM.PURGE.WORK"),
    ("governor", "$JS.API.STREAM.DELETE.SNAPSHOTS"),
    ("ingress", "$JS.API.STREAM.PURGE.SNAPSHOTS"),
    ("worker", "$JS.API.STREAM.MSG.DELETE.WORK"),
    ("worker", "$JS.API.CONSUMER.CREATE.LEDGER.mine"),
    ("worker", "$JS.API.CONSUMER.DURABLE.CREATE.LEDGER.analytics"),
    ("worker", "$JS.API.CONSUMER.CREATE.WORK.mine.work.mock.interactive"),
    ("ingress", "$JS.API.CONSUMER.DELETE.WORK.mock-interactive"),
    ("ingress", "$JS.API.CONSUMER.MSG.NEXT.WORK.mock-interactive"),
    ("ingress", "$JS.ACK.WORK.mock-interactive.1.1.1.1795237563678256440.0"),
    ("analytics", "$JS.ACK.WORK.mock-interactive.1.1.1.1795237563678256440.0"),
    ("worker", "$JS.ACK.LEDGER.analytics.1.1.1.1795237563678256440.0"),
    ("analytics", "$JS.API.CONSUMER.MSG.NEXT.WORK.mock-interactive"),
    ("analytics", "$JS.API.CONSUMER.DURABLE.CREATE.LEDGER.another"),
    ("governor", JOB),
    ("analytics", JOB),
    ("governor", "resp.some-ingress.some-call"),
    ("governor", "cancel.some-call"),
    ("worker", "cancel.some-call"),
    ("worker", "ask.sql"),
    ("ingress", "$KV.settings.governor.checkpoint"),
    ("ingress", "$KV.settings.access.snapshot"),
    ("worker", "$KV.settings.events.ticket"),
    ("governor", "$KV.settings.events.ticket"),
    ("ingress", "snapshot.access.generation"),
    ("worker", "$JS.API.DIRECT.GET.KV_settings"),
    ("worker", "$JS.API.DIRECT.GET.SNAPSHOTS"),
    ("analytics", "$JS.API.DIRECT.GET.BLOBS"),
    ("ingress", "$SYS.REQ.SERVER.PING"),
    ("worker", "_INBOX_ingress.0123456789.r.1"),
    ("governor", "_INBOX_worker.0123456789.r.1"),
]
MAY_NOT_HEAR = [
    ("ingress", "_INBOX_worker.>"),
    ("worker", "_INBOX_ingress.>"),
    ("worker", "_INBOX_governor.>"),
    ("governor", "_INBOX_ingress.*.r.*"),
    ("analytics", "_INBOX_ingress.>"),
    ("analytics", "_INBOX.>"),
    ("ingress", "cancel.*"),
    ("ingress", "pool.ping.*"),
    ("ingress", "ask.*"),
    ("ingress", "governor.metrics"),
    ("ingress", "work.>"),
    ("worker", "resp.>"),
    ("worker", "agent.events.>"),
    ("worker", "ledger.>"),
    ("governor", "work.>"),
    ("governor", "ask.*"),
    ("analytics", "resp.>"),
    ("analytics", "agent.events.>"),
    ("analytics", "$JS.API.>"),
    ("monitor", ">"),
    ("monitor", "ledger.>"),
    ("monitor", "resp.*.*"),
    ("monitor", "_INBOX.>"),
    ("monitor", "$KV.>"),
]


def config_at(url: str) -> Config:
    return Config(bus=BusConfig(url=url), providers=PROVIDERS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A bus that is set up, for all tests here that leave nothing behind."""
    one = NatsServer(tmp_path_factory.mktemp("permissions"))
    one.start()
    try:
        setup.prepare(config_at(one.url))
        yield one
    finally:
        one.stop()


@pytest.fixture
def set_up(nats_server: NatsServer) -> NatsServer:
    """A bus of the test's own that is set up."""
    setup.prepare(config_at(nats_server.url))
    return nats_server


class User:
    """One user's connection and what the bus has forbidden it; that a monitor has no inbox for
    answers does not count."""

    def __init__(self, server: NatsServer, name: str) -> None:
        self.name = name
        self.forbidden: list[str] = []
        self._url = server.url_of(name)

    def _hear(self, reason: str) -> None:
        if "to subscribe to _INBOX_monitor." not in reason:
            self.forbidden.append(reason)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        connection = await Connection.connect(
            BusConfig(url=self._url), name=self.name, on_fatal=self._hear
        )
        try:
            yield connection
        finally:
            await connection.close()


@asynccontextmanager
async def as_user(server: NatsServer, name: str) -> AsyncIterator[Connection]:
    """A connection to which nothing is forbidden that is done with it."""
    user = User(server, name)
    async with user.connected() as connection:
        yield connection
        await connection.flush()
    assert user.forbidden == []


async def messages(server: NatsServer) -> dict[str, int]:
    """How many messages each stream holds."""
    async with as_user(server, "operator") as operator:
        found: dict[str, int] = {}
        listing = json.loads((await operator.request(subjects.api("STREAM.LIST"))).data)
        for stream in listing["streams"]:
            found[stream["config"]["name"]] = stream["state"]["messages"]
        return found


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def stored(server: NatsServer, stream: str, count: int) -> None:
    """Wait until a stream holds so many messages."""
    async with asyncio.timeout(10):
        while (await messages(server))[stream] != count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(("name", "subject"), MAY_NOT_PUBLISH)
async def test_what_is_not_a_users_own_work_it_may_not_publish(
    server: NatsServer, name: str, subject: str
) -> None:
    before = await messages(server)
    user = User(server, name)
    async with user.connected() as connection:
        connection.publish(subject, b"{}")
        await connection.flush()
    (reason,) = user.forbidden
    assert reason.startswith(f"the bus forbids {name} to publish to {subject}: ")
    assert "nexus bus-permissions" in reason
    assert await messages(server) == before


@pytest.mark.parametrize(("name", "subject"), MAY_NOT_HEAR)
async def test_what_is_not_for_a_user_it_may_not_hear(
    server: NatsServer, name: str, subject: str
) -> None:
    user = User(server, name)
    async with user.connected() as connection:
        connection.subscribe(subject, lambda message: None)
        await connection.flush()
    (reason,) = user.forbidden
    assert reason.startswith(f"the bus forbids {name} to subscribe to {subject}: ")


async def test_the_monitor_hears_what_the_ledger_stored_with_any_client(
    set_up: NatsServer,
) -> None:
    heard: list[tuple[str, bytes]] = []
    errors: list[Exception] = []

    async def on_error(error: Exception) -> None:
        errors.append(error)

    async def on_event(message: Any) -> None:
        heard.append((message.subject, message.data))

    client = await nats.connect(set_up.url_of("monitor"), error_cb=on_error)
    await client.subscribe("agent.events.>", cb=on_event)
    await client.flush()
    event = sample.start("a-call")
    async with as_user(set_up, "ingress") as ingress:
        await Ledger(Publisher(ingress), "ingress").append(event)
    await until(lambda: bool(heard))
    assert heard == [("agent.events.model.request.start", encode_event(event))]
    assert errors == []
    await client.close()


@pytest.mark.parametrize("role", ["ingress", "worker", "governor"])
async def test_a_role_starts_without_the_right_to_change_streams(
    server: NatsServer, role: str
) -> None:
    async with as_user(server, role) as connection:
        assert await ensure(connection, config_at(server.url_of(role))) == []


async def test_setting_up_says_what_it_has_done_and_does_only_what_is_needed(
    nats_server: NatsServer,
) -> None:
    config = config_at(nats_server.url)
    async with as_user(nats_server, "operator") as operator:
        first = await ensure(operator, config)
        assert first[0] == "stream LEDGER created"
        assert first[-1] == "consumer mock-batch created"
        assert len(first) == 8
        assert await ensure(operator, config) == []
        await operator.request(subjects.api("STREAM.DELETE", subjects.BLOBS))
        wider = Config(providers=PROVIDERS, queue=QueueConfig(max_waiting=7, ack_wait=9.0))
        assert await ensure(operator, wider) == [
            "stream WORK updated",
            "stream BLOBS created",
            "consumer mock-interactive updated",
            "consumer mock-batch updated",
        ]
        assert await ensure(operator, wider) == []


async def test_a_role_that_misses_something_says_what_to_do(set_up: NatsServer) -> None:
    async with as_user(set_up, "operator") as operator:
        await operator.request(subjects.api("CONSUMER.DELETE", subjects.WORK, "mock-batch"))
    async with as_user(set_up, "worker") as worker:
        with pytest.raises(BusNotReady, match=r"consumer mock-batch is missing.*`nexus setup`"):
            await ensure(worker, config_at(set_up.url_of("worker")))
        other = Config(providers=PROVIDERS, queue=QueueConfig(max_waiting=7))
        with pytest.raises(BusNotReady, match="stream WORK is not as the configuration wants it"):
            await ensure(worker, other)


def test_setup_is_a_command_of_its_own(
    nats_server: NatsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup.run(config_at(nats_server.url_of("worker"))) == 1
    assert "nexus setup: the bus forbids operator to subscribe" in capsys.readouterr().err
    assert setup.run(config_at(nats_server.url)) == 0
    assert capsys.readouterr().out.startswith("stream LEDGER created\nstream WORK created\n")
    assert setup.run(config_at(nats_server.url)) == 0
    assert capsys.readouterr().out == "All streams and consumers are as they should be.\n"
    assert setup.run(config_at("nats://127.0.0.1:9")) == 1
    assert "nexus setup: no NATS server at 127.0.0.1:9" in capsys.readouterr().err


def test_the_block_for_external_servers_is_one_that_a_server_takes(tmp_path: Path) -> None:
    block = setup.authorization(Config())
    for user in USERS:
        assert f'user: "{user}", password: "PASSWORD_OF_{user.upper()}"' in block
    store = f'jetstream {{ store_dir: "{tmp_path / "store"}" }}\n'
    with server_with(store + block, tmp_path) as port:
        setup.prepare(config_at(f"nats://operator:PASSWORD_OF_OPERATOR@127.0.0.1:{port}"))


# Whoever may ask a question may name any subject for its answer.


async def test_an_answer_goes_to_an_inbox_and_nowhere_else(set_up: NatsServer) -> None:
    forbidden: list[str] = []
    worker = broker(
        BusConfig(url=set_up.url_of("worker")), role="worker", on_fatal=forbidden.append
    )

    @worker.subscriber(subjects.ping("mock"))
    async def pong(_: bytes) -> bytes:
        return b"pong"

    async with worker, as_user(set_up, "ingress") as ingress:
        await worker.start()
        await Publisher(ingress).publish(JOB, b"a job", msg_id="1")
        # A purge ignores what is no JSON: this pong would empty the queue.
        for target in (subjects.api("STREAM.PURGE", subjects.WORK), ACCESS):
            ingress.publish(subjects.ping("mock"), b"", reply=target)
        answer = await ingress.request(subjects.ping("mock"))
        assert answer.data == b"pong"
    kept = await messages(set_up)
    assert (kept["WORK"], kept["LEDGER"]) == (1, 0)
    assert forbidden == []


async def test_a_worker_tells_only_an_inbox_that_it_runs_a_call(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Cluster(tmp_path) as cluster:
        reply = json_reply(chat_answer("Hello"))
        cluster.upstream.script(Reply(headers=reply.headers, before=(gate,), steps=reply.steps))
        asking = asyncio.create_task(cluster.ask("hi", app="one"))
        await cluster.upstream.request()
        (start,) = await cluster.events("one")
        question = subjects.running(start.call_id)
        async with as_user(cluster.bus, "worker") as other:
            other.publish(question, b"", reply="ledger.worker.=.model.request.complete")
            other.publish(question, b"", reply=subjects.api("STREAM.PURGE", subjects.WORK))
            assert (await other.request(question)).data == b"yes"
        assert await cluster.jobs() == 1
        gate.set()
        assert (await asking).status_code == 200
        events = await cluster.settled()
        assert (await messages(cluster.bus))[subjects.LEDGER] == len(events)


async def test_a_copy_that_the_server_was_made_to_write_is_nobodys_event(
    set_up: NatsServer,
) -> None:
    forged = encode_event(sample.team_set(Team(id="theirs")))
    live: list[Stored] = []
    async with as_user(set_up, "worker") as worker, as_user(set_up, "ingress") as ingress:
        follower = Follower(ingress, 1)
        following = asyncio.create_task(_collect(follower, live))
        await follower.caught_up.wait()
        worker.publish("ledger.worker.=.access.team.set", forged)
        await worker.flush()
        request = json.dumps({"seq": 1}).encode()
        worker.publish(subjects.api("DIRECT.GET", subjects.LEDGER), request, reply=ACCESS)
        await stored(set_up, subjects.LEDGER, 2)
        made_up = {"Nats-Stream": "LEDGER", "Nats-Subject": ACCESS, "Nats-Sequence": "1"}
        worker.publish("ledger.worker.=.x", forged, headers=header_block(made_up))
        worker.publish("ledger.worker.=.x", forged, headers=b"NATS/1.0 404 Not Found\r\n\r\n")
        await stored(set_up, subjects.LEDGER, 4)

        read = await read_subject(ingress, subjects.LEDGER, ">")
        assert [(record.seq, record.subject) for record in read] == [
            (1, "ledger.worker.=.access.team.set"),
            (2, ""),
            (3, ""),
            (4, "ledger.worker.=.x"),
        ]
        assert await read_subject(ingress, subjects.LEDGER, subjects.LEDGER_ACCESS) == [read[1]]
        await until(lambda: len(live) == 4)
        assert live == read
        following.cancel()
    registry = Registry()
    for record in read:
        registry.take(record)
    assert dict(registry.teams) == {}

    client = await nats.connect(set_up.url)
    consumer = await client.jetstream().pull_subscribe("ledger.>", durable="analytics")
    projected = [_record(message).subject for message in await consumer.fetch(4, timeout=5)]
    assert projected == ["ledger.worker.=.access.team.set", "", "", "ledger.worker.=.x"]
    await client.close()


async def test_outside_the_ledger_a_copy_is_as_if_it_were_not_there(set_up: NatsServer) -> None:
    checkpoint = subjects.setting("governor.checkpoint")
    async with as_user(set_up, "worker") as worker, as_user(set_up, "governor") as governor:
        await Publisher(worker).publish(subjects.blob("b"), b"poison", msg_id="1")
        request = json.dumps({"seq": 1}).encode()
        for target in (checkpoint, "snapshot.access.g"):
            worker.publish(subjects.api("DIRECT.GET", subjects.BLOBS), request, reply=target)
        await worker.flush()
        await stored(set_up, subjects.SNAPSHOTS, 1)
        assert await read_last(governor, subjects.SETTINGS, checkpoint) is None
        assert await read_subject(governor, subjects.SNAPSHOTS, ">") == []
        await Publisher(governor).publish(checkpoint, b"good", msg_id="2")
        kept = await read_last(governor, subjects.SETTINGS, checkpoint)
        assert kept is not None
        assert kept.data == b"good"


async def test_what_was_made_to_look_live_is_not_believed(set_up: NatsServer) -> None:
    live: list[Stored] = []
    event = sample.start("real")
    made_up = {"Nats-Stream": "LEDGER", "Nats-Subject": ACCESS, "Nats-Sequence": "1"}
    headers = header_block(made_up)
    async with as_user(set_up, "worker") as worker, as_user(set_up, "ingress") as ingress:
        follower = Follower(ingress, 1)
        following = asyncio.create_task(_collect(follower, live))
        await follower.caught_up.wait()
        seen: list[Message] = []
        ingress.subscribe(subjects.LIVE_EVENTS, seen.append)
        await ingress.flush()
        publisher = Publisher(worker)
        await publisher.publish(subjects.blob("b"), b"forged", msg_id="1", headers=headers)
        await publisher.publish(JOB, b"forged", msg_id="2", headers=headers)
        get, pull = (
            subjects.api("DIRECT.GET", subjects.BLOBS),
            subjects.api("CONSUMER.MSG.NEXT", subjects.WORK, "mock-interactive"),
        )
        worker.publish(get, json.dumps({"seq": 1}).encode(), reply=subjects.live("x"))
        worker.publish(pull, b"1", reply=subjects.live("x"))
        await until(lambda: len(seen) == 2)
        assert {message.data for message in seen} == {b"forged"}
        await Ledger(Publisher(ingress), "ingress").append(event)
        await until(lambda: bool(live))
        assert [record.data for record in live] == [encode_event(event)]
        following.cancel()


async def _collect(follower: Follower, into: list[Stored]) -> None:
    async for record in follower.records():
        into.append(record)


# A role as a process.


class Role:
    """A role's process: its exit code and what it said, as JSON lines."""

    def __init__(self, role: str, url: str, folder: Path) -> None:
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "NEXUS_NATS_URL": url,
            "NEXUS_DATA_DIR": str(folder / "data"),
            "GATEWAY_API_KEYS": "a-key",
        }
        more = ("--port", "0") if role == "ingress" else ()
        self._errors = folder / "errors"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "compose.cli", role, *more],
                cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        self.lines: list[dict[str, Any]] = []

    def ready(self, role: str) -> None:
        """Read what it says until it says that it is ready."""
        assert self._process.stdout is not None
        last = "projecting" if role == "analytics" else f"{role} ready"
        while not (self.lines and self.lines[-1]["message"] == last):
            self.lines.append(json.loads(self._process.stdout.readline()))

    def ended(self) -> int:
        """Its exit code, once it has one by itself."""
        try:
            out, _ = self._process.communicate(timeout=PATIENCE)
        finally:
            self.kill()
        self.lines += [json.loads(line) for line in out.splitlines()]
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def last_words(self) -> str:
        """Its one critical line; there must be neither another nor a traceback."""
        assert not [line for line in self.lines if "traceback" in line]
        assert "Traceback" not in self._errors.read_text()
        (said,) = [str(line["message"]) for line in self.lines if line["level"] == "critical"]
        return said


@pytest.mark.parametrize(
    ("role", "taken", "what"),
    [
        ("ingress", subjects.GOVERNOR_BEAT, "publish to"),
        ("ingress", subjects.LIVE_EVENTS, "subscribe to"),
        ("worker", subjects.api("CONSUMER.MSG.NEXT", subjects.WORK, "*"), "publish to"),
        ("worker", subjects.CANCELS, "subscribe to"),
        ("worker", subjects.PINGS, "subscribe to"),
        ("governor", subjects.LIVE_EVENTS, "subscribe to"),
        ("governor", subjects.GOVERNOR_BEAT, "subscribe to"),
        ("analytics", subjects.QUESTIONS, "subscribe to"),
        (
            "analytics",
            subjects.api("CONSUMER.DURABLE.CREATE", subjects.LEDGER, "analytics"),
            "publish to",
        ),
    ],
)
def test_a_role_that_is_forbidden_what_it_needs_ends_and_says_so(
    role: str, taken: str, what: str, tmp_path: Path
) -> None:
    passwords = {user: f"of-{user}" for user in USERS}
    head, mark, tail = authorization(passwords).partition(f'user: "{role}"')
    own, end, others = tail.partition("user: ")
    assert f"{json.dumps(taken)}\n" in own
    narrowed = own.replace(f"{json.dumps(taken)}\n", "", 1)
    store = f'jetstream {{ store_dir: "{tmp_path / "store"}" }}\n'
    with server_with(store + head + mark + narrowed + end + others, tmp_path) as port:
        setup.prepare(config_at(f"nats://operator:of-operator@127.0.0.1:{port}"))
        process = Role(role, f"nats://{role}:of-{role}@127.0.0.1:{port}", tmp_path)
        assert process.ended() == 1
    said = process.last_words()
    # One of the two clients writes the subject small.
    first = taken.lower().rstrip("*>")
    assert said.lower().startswith(f"{role} ends: the bus forbids {role} to {what} {first}")
    assert "nexus bus-permissions" in said


@pytest.mark.parametrize("role", ["ingress", "worker", "governor", "analytics"])
def test_a_role_with_a_wrong_password_ends_and_says_so(
    server: NatsServer, role: str, tmp_path: Path
) -> None:
    process = Role(role, f"nats://{role}:wrong@127.0.0.1:{server.port}", tmp_path)
    assert process.ended() == 1
    assert f"the bus does not accept who we are as {role}" in process.last_words()
    assert "wrong" not in process.last_words()


@pytest.mark.parametrize("role", ["ingress", "worker", "governor"])
def test_a_role_with_the_user_of_another_ends_and_says_so(
    server: NatsServer, role: str, tmp_path: Path
) -> None:
    process = Role(role, server.url_of("analytics"), tmp_path)
    assert process.ended() == 1
    said = process.last_words()
    assert f"the bus forbids {role} to " in said
    assert "use the NATS user of this role" in said


@pytest.mark.parametrize("role", ["ingress", "worker", "governor"])
def test_a_role_on_a_bus_that_is_not_set_up_ends_and_says_so(
    nats_server: NatsServer, role: str, tmp_path: Path
) -> None:
    process = Role(role, nats_server.url_of(role), tmp_path)
    assert process.ended() == 1
    assert "stream LEDGER is missing" in process.last_words()
    assert "`nexus setup`" in process.last_words()


@pytest.mark.parametrize("role", ["worker", "governor"])
def test_a_role_without_a_bus_ends_and_says_where_it_looked(role: str, tmp_path: Path) -> None:
    process = Role(role, f"nats://{role}:x@127.0.0.1:9", tmp_path)
    assert process.ended() == 1
    assert "no NATS server at 127.0.0.1:9" in process.last_words()
    assert "NEXUS_NATS_URL" in process.last_words()


@pytest.mark.parametrize("role", ["ingress", "worker", "governor", "analytics"])
def test_a_role_whose_password_was_changed_ends_when_it_comes_back(
    set_up: NatsServer, role: str, tmp_path: Path
) -> None:
    process = Role(role, set_up.url_of(role), tmp_path)
    try:
        process.ready(role)
        set_up.kill()
        set_up.password_path(role).write_text("another")
        set_up.start()
        assert process.ended() == 1
    finally:
        process.kill()
    assert f"the bus does not accept who we are as {role}" in process.last_words()


def test_no_role_may_do_what_another_is_there_for() -> None:
    """The narrowness of the whole table, whatever is added to it."""
    for name, permissions in ROLES.items():
        own = [subject for subject in permissions.publish if subject.startswith("ledger.")]
        assert own in ([], [subjects.ledger_of(name)])
        assert not [one for one in permissions.publish if one.startswith(("agent.", "_INBOX", ">"))]
        inboxes = [one for one in permissions.subscribe if one.startswith("_INBOX")]
        assert inboxes == ([] if name == "monitor" else [f"_INBOX_{name}.>"])
        changes = ("STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "CONSUMER.CREATE")
        assert not [one for one in permissions.publish if any(word in one for word in changes)]
