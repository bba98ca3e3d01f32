"""What each user of the bus may neither publish nor hear, tried by that user on a real server."""

from typing import Any

import nats
import pytest

from compose.nats_server import NatsServer
from ledger.log import Ledger
from ledger.permissions import ROLES
from ledger.publisher import Publisher
from schemas import subjects
from schemas.events import encode_event
from tests import sample_events as sample
from tests.flow.bus_permissions.users import ACCESS, JOB, User, as_user, messages, until

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
