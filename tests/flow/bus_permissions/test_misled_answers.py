"""Whoever may ask may name any subject for its answer: what comes of it is nobody's event."""

import asyncio
import json
from pathlib import Path

import nats

from analytics.projector import _record
from compose.nats_server import NatsServer
from ledger.access.registry import Registry
from ledger.broker import broker
from ledger.connection import Message, header_block
from ledger.log import Follower, Ledger
from ledger.publisher import Publisher
from ledger.reader import Stored, read_last, read_subject
from schemas import subjects
from schemas.access import Team
from schemas.config import BusConfig
from schemas.events import encode_event
from tests import sample_events as sample
from tests.cluster import Cluster
from tests.flow.bus_permissions.users import ACCESS, JOB, as_user, messages, until
from tests.upstream import Reply, chat_answer, json_reply


async def stored(server: NatsServer, stream: str, count: int) -> None:
    """Wait until a stream holds so many messages."""
    async with asyncio.timeout(10):
        while (await messages(server))[stream] != count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


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
