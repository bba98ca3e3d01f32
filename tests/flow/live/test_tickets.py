"""Live events by a ticket, and only as long as the key behind a listener holds."""

import asyncio
import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from websockets.exceptions import ConnectionClosed

from ledger.access.key_text import new_key
from ledger.secret import ServerSecret
from schemas.access import Key, Secret, moment
from schemas.access_events import AccessEvent
from schemas.config import Config
from schemas.ids import Clock
from tests import sample_events as sample
from tests.flow.live.listeners import CONFIG, key_id, received, web_socket
from tests.governed_bus import Bus
from tests.ingress_doors import ADMIN, KEY_A, Doors, doors, event_source


async def ticket_for(ingress: Doors, key: str) -> str:
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{ingress.url}/events/ticket", headers={"X-API-Key": key})
    assert answer.status_code == 200
    assert answer.json()["expires_in"] == 60
    return str(answer.json()["ticket"])


async def refusal_of(ingress: Doors, ticket: str) -> str:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{ingress.url}/events", params={"ticket": ticket})
    assert answer.status_code == 401
    return str(answer.json()["error"]["code"])


async def test_a_ticket_opens_the_door_once_at_any_ingress(bus: Bus, ingress: Doors) -> None:
    async with doors(bus, CONFIG) as other:
        ticket = await ticket_for(ingress, KEY_A)
        await bus.append(sample.start("b", key_id="b"), sample.start("a", key_id=key_id(KEY_A)))
        async with event_source(f"{other.url}/events?since=0&ticket={ticket}", "") as source:
            assert (await source.next()).id == "2"
        assert await refusal_of(other, ticket) == "invalid_ticket"
        assert await refusal_of(ingress, ticket) == "invalid_ticket"
        socket_ticket = await ticket_for(other, ADMIN)
        url = f"{ingress.socket_url}/events?since=0&ticket={socket_ticket}"
        async with web_socket(url, "") as socket:
            assert (await received(socket))["call_id"] == "b"


SECRET = "the server secret of a test"
WITH_STORE = Config(api_keys=(KEY_A,), admin_token=ADMIN, secret=(SECRET,))


def made_key(ingress: Doors, text: str, **fields: Any) -> Key:
    """A key that the ledger has brought to an ingress."""
    secret = Secret(ServerSecret((SECRET,)).digest(text.encode()))
    key = sample.a_key("key_x", **{"secrets": (secret,), **fields})
    ingress.registry.take(sample.stored(1, sample.key_created(key)))
    return key


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda key: sample.key_revoked(key), "key_revoked"),
        (lambda key: sample.key_updated(replace(key, expires_at=moment(1))), "key_expired"),
        (lambda key: sample.key_rotated(replace(key, secrets=())), "key_rotated"),
    ],
)
async def test_a_listener_is_let_go_within_a_second_of_its_keys_end(
    bus: Bus, change: Callable[[Key], AccessEvent], code: str
) -> None:
    text = new_key(bytes)
    async with doors(bus, WITH_STORE) as ingress:
        key = made_key(ingress, text)
        async with (
            event_source(f"{ingress.url}/events", text) as source,
            web_socket(f"{ingress.socket_url}/events", text) as socket,
            event_source(f"{ingress.url}/events", KEY_A) as other,
        ):
            await bus.append(sample.start("x", key_id="key_x"))
            assert (await source.next()).data["call_id"] == "x"
            assert (await received(socket))["call_id"] == "x"
            ingress.registry.take(sample.stored(2, change(key)))
            async with asyncio.timeout(1):
                last = await source.next()
                with pytest.raises(EOFError):
                    await source.next()
                with pytest.raises(ConnectionClosed) as closed:
                    await received(socket)
            assert (last.type, last.data["error"]["code"]) == ("error", code)
            assert last.data["error"]["type"] == "authentication_error"
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
            assert closed.value.rcvd.reason == last.data["error"]["message"]
            await bus.append(sample.start("a", key_id=key_id(KEY_A)))
            assert (await other.next()).data["call_id"] == "a"
        async with asyncio.timeout(5):
            while ingress.tail.listeners:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_listener_that_reads_nothing_is_let_go_all_the_same(bus: Bus) -> None:
    text = new_key(bytes)
    async with doors(bus, WITH_STORE) as ingress:
        key = made_key(ingress, text)
        async with event_source(f"{ingress.url}/events", text):
            for start in range(0, 1500, 100):
                await asyncio.gather(
                    *(
                        bus.append(sample.start(f"c{n}", key_id="key_x", app="x" * 8000))
                        for n in range(start, start + 100)
                    )
                )
            ingress.registry.take(sample.stored(2, sample.key_revoked(key)))
            async with asyncio.timeout(5):
                while ingress.tail.listeners:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


async def test_a_ticket_ends_with_its_key_and_tells_nothing_of_it(bus: Bus) -> None:
    text = new_key(bytes)
    for_ever = datetime(9999, 12, 31, tzinfo=UTC)
    async with doors(bus, WITH_STORE) as ingress:
        key = made_key(ingress, text, user="ann@example.com", project="shop", expires_at=for_ever)
        good, late = await ticket_for(ingress, text), await ticket_for(ingress, text)
        payload = good.partition(".")[0]
        said = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        for private in (b"ann", b"shop", text.encode(), text.encode()[3:], b"checkout"):
            assert private not in said
        await bus.append(sample.start("x", key_id="key_x"))
        url = f"{ingress.url}/events?since=0&ticket={good}"
        async with event_source(url, "") as source:
            assert (await source.next()).data["call_id"] == "x"
            ingress.registry.take(sample.stored(2, sample.key_revoked(key)))
            assert (await source.next()).data["error"]["code"] == "key_revoked"
        assert await refusal_of(ingress, late) == "key_revoked"


async def test_a_ticket_that_was_changed_or_is_old_opens_nothing(bus: Bus) -> None:
    now = [sample.NOON]
    clock = Clock(now_ns=lambda: now[0])
    async with doors(bus, CONFIG, clock) as ingress:
        ticket = await ticket_for(ingress, KEY_A)
        claims, _, signature = ticket.partition(".")
        forged = [f"{claims[:-4]}AAAA.{signature}", claims, f"{claims}.", "x.y.z", "ü", ". "]
        for text in forged:
            assert await refusal_of(ingress, text) == "invalid_ticket"
        now[0] += 61 * sample.SECOND
        assert await refusal_of(ingress, ticket) == "invalid_ticket"


async def test_without_a_shared_secret_there_are_no_tickets(bus: Bus) -> None:
    async with doors(bus, Config(api_keys=(KEY_A,))) as ingress, httpx.AsyncClient() as client:
        answer = await client.post(f"{ingress.url}/events/ticket", headers={"X-API-Key": KEY_A})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "no_admin_token"
