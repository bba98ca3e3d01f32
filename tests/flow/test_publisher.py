"""Acknowledged publishes: stored once whatever happens to the server, or clearly not."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from compose.nats_server import NatsServer
from ledger.connection import Connection, Message, header_block
from ledger.publisher import PubAck, Publisher, Refused, Unresolved
from schemas.config import BusConfig

SECOND = 1_000_000_000


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Connection]:
    connection = await Connection.connect(BusConfig(url=nats_url), name="test")
    yield connection
    await connection.close()


async def make_stream(bus: Connection, **options: object) -> None:
    config = {"name": "S", "subjects": ["s.>"], "duplicate_window": 120 * SECOND} | options
    config |= {"allow_direct": True}
    reply = await bus.request("$JS.API.STREAM.CREATE.S", json.dumps(config).encode(), timeout=5)
    assert "error" not in json.loads(reply.data)


async def stored(bus: Connection, seq: int) -> Message:
    query = json.dumps({"seq": seq}).encode()
    return await bus.request("$JS.API.DIRECT.GET.S", query, timeout=5)


async def message_count(bus: Connection) -> int:
    reply = await bus.request("$JS.API.STREAM.INFO.S", timeout=5)
    return int(json.loads(reply.data)["state"]["messages"])


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_a_repeated_id_is_stored_once_and_says_so(bus: Connection) -> None:
    await make_stream(bus)
    publisher = Publisher(bus)
    first = await publisher.publish("s.a", b"x", msg_id="1")
    again = await publisher.publish("s.a", b"x", msg_id="1")
    other = await publisher.publish("s.a", b"x", msg_id="2")
    assert first == PubAck("S", 1)
    assert again == PubAck("S", 1, duplicate=True)
    assert other == PubAck("S", 2)


async def test_headers_and_time_to_live_are_stored_with_the_id(bus: Connection) -> None:
    await make_stream(bus, allow_msg_ttl=True)
    headers = header_block({"A": "1", "B": "2"})
    ack = await Publisher(bus).publish("s.a", b"x", msg_id="id-1", headers=headers, ttl=3600)
    message = await stored(bus, ack.seq)
    assert message.data == b"x"
    names = ("Nats-Msg-Id", "Nats-TTL", "A", "B")
    assert [message.header(name) for name in names] == ["id-1", "3600", "1", "2"]


async def test_messages_without_waiting_are_stored_in_the_order_of_the_calls(
    bus: Connection,
) -> None:
    await make_stream(bus)
    publisher = Publisher(bus)
    acks = [publisher.publish_nowait("s.a", b"", msg_id=str(number)) for number in range(2000)]
    assert [(await ack).seq for ack in acks] == list(range(1, 2001))


async def test_two_publishers_on_one_connection_do_not_mix_their_answers(bus: Connection) -> None:
    await make_stream(bus)
    one, two = Publisher(bus), Publisher(bus)
    for number in range(20):
        here, there = await asyncio.gather(
            one.publish("s.a", b"", msg_id=f"a{number}"),
            two.publish("s.a", b"", msg_id=f"b{number}"),
        )
        assert {here.seq, there.seq} == {2 * number + 1, 2 * number + 2}


async def test_a_full_queue_is_refused_at_once(bus: Connection) -> None:
    await make_stream(bus, discard="new", discard_new_per_subject=True, max_msgs_per_subject=1)
    publisher = Publisher(bus)
    await publisher.publish("s.a", b"", msg_id="1")
    with pytest.raises(Refused, match="maximum messages per subject exceeded") as refused:
        await publisher.publish("s.a", b"", msg_id="2", deadline=60)
    assert refused.value.code == 10077
    await publisher.publish("s.b", b"", msg_id="3")


async def test_a_failed_expectation_is_refused_at_once(bus: Connection) -> None:
    await make_stream(bus)
    headers = header_block({"Nats-Expected-Last-Sequence": "7"})
    with pytest.raises(Refused) as refused:
        await Publisher(bus).publish("s.a", b"", msg_id="1", headers=headers, deadline=60)
    assert refused.value.code == 10071


async def test_a_stream_that_appears_in_time_gets_the_message(bus: Connection) -> None:
    ack = Publisher(bus).publish_nowait("s.a", b"x", msg_id="1")
    await bus.flush()
    await make_stream(bus)
    assert await ack == PubAck("S", 1)


async def test_no_stream_until_the_deadline_is_unresolved(bus: Connection) -> None:
    with pytest.raises(Unresolved, match=r"s\.a: no stream takes the subject"):
        await Publisher(bus).publish("s.a", b"x", msg_id="1", deadline=0.2)


async def test_a_lost_answer_is_asked_for_again_with_the_same_id(bus: Connection) -> None:
    """A responder that hears the message but stays silent stands for an ack that was lost."""
    tries: list[Message] = []

    def answer_the_third(message: Message) -> None:
        tries.append(message)
        if len(tries) == 3:
            bus.publish(message.reply, b'{"stream":"S","seq":5,"duplicate":true}')

    bus.subscribe("s.a", answer_the_third)
    ack = await Publisher(bus).publish("s.a", b"x", msg_id="1", timeout=0.05)
    assert ack == PubAck("S", 5, duplicate=True)
    assert [(t.data, t.header("Nats-Msg-Id")) for t in tries] == [(b"x", "1")] * 3


@pytest.mark.parametrize(
    "error",
    [
        {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"},
        {"code": 503, "description": "raft: not leader"},
        {"code": 500, "err_code": 10009, "description": "JetStream cluster can not handle request"},
        {"code": 429, "err_code": 10167, "description": "too many requests"},
        {"code": 409, "err_code": 10158, "description": "duplicate message id is in process"},
        {"code": 503, "err_code": 10077, "description": "store is closed"},
    ],
)
async def test_temporary_errors_are_tried_again(bus: Connection, error: dict[str, object]) -> None:
    answers = [
        json.dumps({"error": error, "stream": "S", "seq": 0}).encode(),
        b'{"stream":"S","seq":9}',
    ]
    bus.subscribe("s.a", lambda message: bus.publish(message.reply, answers.pop(0)))
    ack = await Publisher(bus).publish("s.a", b"", msg_id="1")
    assert ack.seq == 9


async def test_ids_with_line_breaks_are_refused_before_they_are_sent(bus: Connection) -> None:
    with pytest.raises(ValueError, match="not a message id"):
        await Publisher(bus).publish("s.a", b"", msg_id="1\r\nNats-Rollup: all")


async def test_what_is_published_during_an_outage_is_stored_after_it(
    bus: Connection, nats_server: NatsServer
) -> None:
    await make_stream(bus)
    publisher = Publisher(bus)
    nats_server.kill()
    await until(lambda: not bus.connected)
    acks = [publisher.publish_nowait("s.a", b"", msg_id=str(number)) for number in range(100)]
    nats_server.start()
    assert [(await ack).seq for ack in acks] == list(range(1, 101))
    assert await message_count(bus) == 100


async def test_an_outage_beyond_the_deadline_is_unresolved(
    bus: Connection, nats_server: NatsServer
) -> None:
    await make_stream(bus)
    nats_server.kill()
    with pytest.raises(Unresolved):
        await Publisher(bus).publish("s.a", b"", msg_id="1", deadline=0.2)


async def test_closing_the_connection_ends_what_waits(nats_url: str) -> None:
    bus = await Connection.connect(BusConfig(url=nats_url), name="test")
    bus.subscribe("s.a", lambda message: None)
    waiting = Publisher(bus).publish_nowait("s.a", b"", msg_id="1", timeout=60, deadline=60)
    await bus.flush()
    await bus.close()
    with pytest.raises(Unresolved):
        await waiting


async def test_over_three_kills_every_acked_message_is_stored_exactly_once(
    bus: Connection, nats_server: NatsServer
) -> None:
    await make_stream(bus)
    publisher = Publisher(bus)
    acked: dict[str, int] = {}
    stopping = False

    async def publish_on(task: int) -> None:
        number = 0
        while not stopping:
            msg_id = f"{task}-{number}"
            acked[msg_id] = (await publisher.publish("s.a", msg_id.encode(), msg_id=msg_id)).seq
            number += 1

    tasks = [asyncio.ensure_future(publish_on(task)) for task in range(32)]
    for _ in range(3):
        goal = len(acked) + 1000
        await until(lambda: len(acked) >= goal)  # noqa: B023
        nats_server.kill()
        await until(lambda: not bus.connected)
        nats_server.start()
    goal = len(acked) + 1000
    await until(lambda: len(acked) >= goal)
    stopping = True
    await asyncio.gather(*tasks)

    assert bus.reconnects == 3
    assert await message_count(bus) == len(acked)
    messages = await asyncio.gather(*(stored(bus, seq) for seq in acked.values()))
    assert [message.data.decode() for message in messages] == list(acked)
