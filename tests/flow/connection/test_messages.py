"""Messages and requests over a connection to the bus: all of them, in order, within limits."""

import asyncio
import os

import pytest

from ledger.connection import (
    Connection,
    Disconnected,
    Message,
    NoResponders,
    RequestTimeout,
    header_block,
)
from schemas.config import BusConfig
from tests.flow.connection.servers import MEGABYTE, connected, until


async def test_messages_arrive_in_the_order_they_were_published(bus: Connection) -> None:
    heard: list[Message] = []
    bus.subscribe("numbers.*", heard.append)
    for number in range(1000):
        bus.publish(f"numbers.{number % 3}", b"%d" % number, headers=header_block({"N": "1"}))
    await bus.flush()
    assert [int(message.data) for message in heard] == list(range(1000))
    assert heard[4].subject == "numbers.1"
    assert heard[4].header("N") == "1"


async def test_a_hundred_thousand_messages_in_one_tick_all_arrive(bus: Connection) -> None:
    heard: list[bytes] = []
    bus.subscribe("many", lambda message: heard.append(message.data))
    for number in range(100_000):
        bus.publish("many", b"%0100d" % number)
    await bus.flush(timeout=30)
    assert heard == [b"%0100d" % number for number in range(100_000)]


async def test_the_largest_message_goes_through_and_a_larger_one_is_refused_here(
    bus: Connection,
) -> None:
    heard: list[Message] = []
    bus.subscribe("large", heard.append)
    body = os.urandom(bus.max_payload)
    bus.publish("large", body)
    await bus.flush(timeout=10)
    assert bus.max_payload == 8 * MEGABYTE
    assert [message.data for message in heard] == [body]
    with pytest.raises(ValueError, match="8388608"):
        bus.publish("large", body, headers=header_block({"A": "b"}))


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB b 0", " a", "a\n", "a\t1"])
async def test_a_subject_with_white_space_never_reaches_the_wire(
    bus: Connection, subject: str
) -> None:
    with pytest.raises(ValueError, match="not a subject"):
        bus.publish(subject, b"")
    with pytest.raises(ValueError, match="not a subject"):
        bus.subscribe(subject, lambda message: None)


async def test_a_queue_group_shares_the_messages(bus: Connection, nats_url: str) -> None:
    async with connected(nats_url) as other:
        here: list[bytes] = []
        there: list[bytes] = []
        bus.subscribe("shared", lambda message: here.append(message.data), queue="group")
        other.subscribe("shared", lambda message: there.append(message.data), queue="group")
        await bus.flush()
        await other.flush()
        for number in range(200):
            bus.publish("shared", b"%d" % number)
        await until(lambda: len(here) + len(there) >= 200)
    assert sorted(map(int, here + there)) == list(range(200))
    assert here
    assert there


async def test_each_of_many_requests_gets_its_own_answer(bus: Connection) -> None:
    bus.subscribe("double", lambda message: bus.publish(message.reply, message.data * 2))
    answers = await asyncio.gather(*(bus.request("double", b"%d," % n) for n in range(500)))
    assert [answer.data for answer in answers] == [b"%d,%d," % (n, n) for n in range(500)]


async def test_a_request_that_nobody_hears_fails_at_once(bus: Connection) -> None:
    with pytest.raises(NoResponders):
        await bus.request("nobody.home", timeout=60)


async def test_a_request_that_nobody_answers_times_out(bus: Connection) -> None:
    bus.subscribe("silent", lambda message: None)
    with pytest.raises(RequestTimeout):
        await bus.request("silent", timeout=0.05)


async def test_an_exception_in_a_subscriber_harms_nobody_else(
    bus: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []

    def fail(message: Message) -> None:
        raise RuntimeError("boom")

    bus.subscribe("a", fail)
    bus.subscribe("a", lambda message: heard.append(message.data))
    bus.publish("a", b"1")
    bus.publish("a", b"2")
    await bus.flush()
    assert heard == [b"1", b"2"]
    assert "the subscriber of a failed" in caplog.text
    assert bus.reconnects == 0


async def test_nothing_arrives_after_unsubscribe(bus: Connection) -> None:
    heard: list[bytes] = []
    subscription = bus.subscribe("a", lambda message: heard.append(message.data))
    bus.publish("a", b"1")
    await bus.flush()
    subscription.unsubscribe()
    bus.publish("a", b"2")
    await bus.flush()
    assert heard == [b"1"]
    with pytest.raises(NoResponders):
        await bus.request("a")


async def test_drain_hands_over_what_is_on_its_way(nats_url: str) -> None:
    bus = await Connection.connect(BusConfig(url=nats_url), name="test")
    heard: list[bytes] = []
    bus.subscribe("a", lambda message: heard.append(message.data))
    await bus.flush()
    async with connected(nats_url) as other:
        for number in range(1000):
            other.publish("a", b"%d" % number)
        await other.flush()
        await bus.drain()
    assert len(heard) == 1000
    assert not bus.connected
    with pytest.raises(Disconnected):
        bus.publish("a", b"")
    with pytest.raises(Disconnected):
        await bus.request("a")
    await bus.close()
