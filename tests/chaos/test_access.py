"""Who may call, while processes and the bus come and go: changes arrive everywhere, within a
second where the bus is there, and none is lost where it was not."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster import ADMIN, Cluster, until

INGRESSES = 4
PROMISED = 1.0


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, workers=0, ingresses=INGRESSES) as cluster:
        yield cluster


async def admin(cluster: Cluster, path: str, body: Any = None, ingress: int = 0) -> httpx.Response:
    url = cluster.urls[ingress].replace("/v1/chat/completions", f"/admin/{path}")
    return await cluster.client.post(url, json=body or {}, headers=bearer(ADMIN))


async def make(cluster: Cluster, ingress: int = 0, **settings: Any) -> dict[str, Any]:
    """A new key, known to the ingress that made it."""
    answer = await admin(cluster, "keys", settings, ingress)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def revoke(cluster: Cluster, key_id: str, ingress: int = 0) -> None:
    answer = await admin(cluster, f"keys/{key_id}/revoke", ingress=ingress)
    assert answer.status_code == 200, answer.text


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def opens(cluster: Cluster, key: str, ingress: int) -> tuple[int, str | None]:
    """What one ingress says to a key: the status and the code of its refusal."""
    url = cluster.urls[ingress].replace("/chat/completions", "/models/mock")
    answer = await cluster.client.get(url, headers=bearer(key))
    return answer.status_code, answer.json().get("error", {}).get("code")


async def everywhere(cluster: Cluster, key: str) -> set[tuple[int, str | None]]:
    return set(await asyncio.gather(*(opens(cluster, key, n) for n in range(INGRESSES))))


async def all_say(cluster: Cluster, key: str, said: tuple[int, str | None]) -> float:
    """Seconds until every ingress gives the same answer to a key."""
    begun = time.monotonic()

    async def is_so() -> bool:
        return await everywhere(cluster, key) == {said}

    await until(is_so, what=f"for {said}")
    return time.monotonic() - begun


async def test_a_key_revoked_at_one_ingress_is_refused_by_all_within_a_second(
    cluster: Cluster,
) -> None:
    for number in range(INGRESSES):
        key = await make(cluster, ingress=number)
        assert await all_say(cluster, key["key"], (200, None)) < PROMISED
        await revoke(cluster, key["id"], ingress=number)
        assert await all_say(cluster, key["key"], (401, "key_revoked")) < PROMISED


async def test_the_same_with_the_bus_restarted_in_between(cluster: Cluster) -> None:
    key, other = await make(cluster), await make(cluster)
    await all_say(cluster, other["key"], (200, None))
    cluster.bus.kill()
    assert await everywhere(cluster, key["key"]) == {(200, None)}, "it is served from memory"
    cluster.bus.start()
    await revoke(cluster, key["id"])
    assert await all_say(cluster, key["key"], (401, "key_revoked")) < PROMISED
    assert await everywhere(cluster, other["key"]) == {(200, None)}


async def test_a_key_that_was_asked_for_while_the_bus_was_away_is_there_when_it_is_back(
    cluster: Cluster,
) -> None:
    cluster.bus.kill()
    asked = asyncio.create_task(admin(cluster, "keys", {"name": "patient"}))
    await asyncio.sleep(0.5)
    cluster.bus.start()
    answer = await asked
    assert answer.status_code == 201, answer.text
    await all_say(cluster, answer.json()["key"], (200, None))


async def test_what_changed_while_an_ingress_stood_still_holds_there_when_it_goes_on(
    cluster: Cluster,
) -> None:
    revoked = await make(cluster)
    await all_say(cluster, revoked["key"], (200, None))
    await cluster.ingresses[3].pause()
    made = await make(cluster)
    await revoke(cluster, revoked["id"])
    cluster.ingresses[3].resume()
    assert await all_say(cluster, made["key"], (200, None)) < PROMISED
    assert await all_say(cluster, revoked["key"], (401, "key_revoked")) < PROMISED


async def test_keys_survive_the_restart_of_everything(cluster: Cluster) -> None:
    key, revoked = await make(cluster, project="shop"), await make(cluster)
    await revoke(cluster, revoked["id"])
    for role in cluster.ingresses:
        await role.kill()
    cluster.bus.kill()
    cluster.bus.start()
    await asyncio.gather(*(role.start() for role in cluster.ingresses))
    assert await everywhere(cluster, key["key"]) == {(200, None)}
    assert await everywhere(cluster, revoked["key"]) == {(401, "key_revoked")}


async def test_without_the_bus_an_ingress_starts_and_says_that_it_cannot_know(
    cluster: Cluster,
) -> None:
    key = await make(cluster)
    ingress = cluster.ingresses[0]
    await ingress.kill()
    cluster.bus.kill()
    await ingress.start()
    assert await opens(cluster, key["key"], 0) == (503, "key_store_away")
    assert await opens(cluster, "wrong", 0) == (401, "invalid_api_key")
    configured = await cluster.client.get(cluster.urls[0].replace("chat/completions", "models"))
    assert configured.status_code == 200, "what is configured does not depend on the bus"
    cluster.bus.start()
    await until(lambda: _is_open(cluster, key["key"]), what="for the key to be known again")


async def _is_open(cluster: Cluster, key: str) -> bool:
    return await opens(cluster, key, 0) == (200, None)


async def test_an_unknown_key_is_no_wrong_key_while_the_bus_is_away(cluster: Cluster) -> None:
    known, unknown = await make(cluster), await make(cluster)
    await all_say(cluster, unknown["key"], (200, None))
    await cluster.ingresses[0].pause()
    later = await make(cluster, ingress=1)
    cluster.bus.kill()
    cluster.ingresses[0].resume()
    await until(lambda: _is_away(cluster, later["key"]), what="for the ingress to see it is alone")
    assert await opens(cluster, known["key"], 0) == (200, None)
    cluster.bus.start()
    assert await all_say(cluster, later["key"], (200, None)) < 10


async def _is_away(cluster: Cluster, key: str) -> bool:
    said = await opens(cluster, key, 0)
    assert said in ((503, "key_store_away"), (401, "invalid_api_key")), said
    return said[0] == 503
