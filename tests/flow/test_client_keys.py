"""The client's own keys: each reaches the provider it is for, in place of the gateway's, and no
other place."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.access.key_text import new_key
from ledger.connection import Connection
from ledger.reader import read_subject
from schemas import subjects
from schemas.config import BusConfig
from schemas.events import (
    AttemptAbandoned,
    AttemptFailed,
    AttemptLate,
    LedgerEvent,
    Outcome,
    RequestComplete,
    Terminal,
    decode_event,
)
from schemas.ids import Clock
from tests.cluster import Cluster
from tests.cluster import until as eventually
from tests.flow.gateway import (
    ADMIN,
    KEY,
    UP_KEY,
    Gateway,
    Provider,
    basic,
    message,
    refusal,
    running_gateway,
    told,
    until,
)
from tests.upstream import Reply, Script, chat_answer, chat_stream, json_reply

SECRET = "the secret of ingress and worker"
OWN = "sk-own/key+of=one-client.0123456789"
OTHER = "gsk_another-key-of-the-client-98765"

MODELS = """
  own-first: {provider: needy, engine: n-1, fallbacks: [up-model]}
  up-first: {provider: up, engine: u-1, fallbacks: [needy/n-2]}
  dear: {provider: needy, engine: n-3, input_cost: 0.000001, output_cost: 0.000002}
secret: ["${TEST_SERVER_SECRET}"]
"""
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@dataclass
class Place:
    """A gateway, with `other` the upstream that clients have their own keys for."""

    gateway: Gateway
    other: Provider

    def script(self, up: Script, other: Script) -> None:
        self.gateway.up.script(up)
        self.other.script(other)

    def answer(self, stream: bool) -> None:
        """Both upstreams answer."""
        whole = json_reply(chat_answer("Hello"))
        reply = chat_stream("Hello") if stream else whole
        self.script(reply, reply)

    def ask(
        self, model: str, stream: bool = False, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """One call under the tests' key, unless the headers say another."""
        return self.gateway.post(headers=headers, json=basic(model=model, stream=stream))

    def sent(self) -> tuple[list[str], list[str]]:
        """The credentials that arrived at the two upstreams."""
        upstreams = (self.gateway.up, self.other)
        up, other = ([r.headers["Authorization"] for r in one.requests] for one in upstreams)
        return up, other

    def nowhere(self, *keys: str) -> None:
        """Asserts that no request to an upstream holds one of these keys."""
        for request in (*self.gateway.up.requests, *self.other.requests):
            held = f"{request.path} {list(request.headers.items())} {request.body!r}"
            assert not [key for key in keys if key in held]

    def events(self, response: httpx.Response) -> list[LedgerEvent]:
        """The ledger of one call, once it has its end."""
        call_id = response.headers["x-request-id"].removeprefix("req_")
        found: list[LedgerEvent] = []

        def ended() -> bool:
            found[:] = [e for e in asyncio.run(ledger(self.gateway)) if e.call_id == call_id]
            return any(isinstance(event, Terminal) for event in found)

        until(ended)
        return found


async def ledger(gateway: Gateway) -> list[LedgerEvent]:
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    try:
        stored = await read_subject(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
    finally:
        await connection.close()
    return [event for record in stored if (event := decode_event(record.data)) is not None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    other = Provider()
    other.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SERVER_SECRET", SECRET)
        with running_gateway(
            tmp_path_factory.mktemp("keys"),
            f'{MODELS}target_url: "{other.url}"\n',
            f'  needy: {{dialect: openai, base_url: "{other.url}/v1", client_keys: required}}\n'
            f'  closed: {{dialect: openai, base_url: "{other.url}/v1", client_keys: refused}}\n',
        ) as gateway:
            yield Place(gateway, other)
    other.stop()


def bring(**keys: str) -> dict[str, str]:
    """The header with the client's own keys."""
    pairs = ",".join(f"{provider}={key}" for provider, key in keys.items())
    return {"X-Nexus-Provider-Key": pairs}


def outcomes(events: list[LedgerEvent]) -> list[Outcome]:
    return [event for event in events if isinstance(event, Outcome)]


# A key of one's own for a provider.


@both
def test_the_clients_key_goes_in_place_of_the_gateways(place: Place, stream: bool) -> None:
    place.answer(stream)
    response = place.ask("up-model", stream, bring(up=OWN))
    assert response.status_code == 200
    assert place.sent() == ([f"Bearer {OWN}"], [])
    place.nowhere(UP_KEY, KEY)
    (end,) = outcomes(place.events(response))
    assert (end.billed_to, end.provider) == ("client", "up")
    assert end.cost_nano and end.cost_nano > 0, "the cost is recorded all the same"


@both
def test_without_a_key_of_ones_own_the_gateways_goes(place: Place, stream: bool) -> None:
    place.answer(stream)
    place.ask("up-model", stream, bring(up=OWN))
    place.answer(stream)
    response = place.ask("up-model", stream)
    assert place.sent() == ([f"Bearer {UP_KEY}"], [])
    place.nowhere(OWN, KEY)
    (end,) = outcomes(place.events(response))
    assert end.billed_to == ""


@both
def test_a_provider_without_a_key_of_the_gateway_is_asked_with_the_clients(
    place: Place, stream: bool
) -> None:
    place.answer(stream)
    response = place.ask("dear", stream, bring(needy=OWN))
    assert response.status_code == 200
    assert place.sent() == ([], [f"Bearer {OWN}"])
    (end,) = outcomes(place.events(response))
    assert (end.billed_to, end.cost_nano) == ("client", 7 * 1_000 + (1 if stream else 3) * 2_000)


@both
def test_a_key_for_a_provider_that_is_not_asked_is_sent_nowhere(place: Place, stream: bool) -> None:
    place.answer(stream)
    response = place.ask("up-model", stream, bring(needy=OWN, target=OTHER))
    assert place.sent() == ([f"Bearer {UP_KEY}"], [])
    place.nowhere(OWN, OTHER)
    (end,) = outcomes(place.events(response))
    assert end.billed_to == ""


def test_every_provider_gets_its_own_of_several_keys(place: Place) -> None:
    failed = json_reply({"error": {"message": "Busy."}}, 404)
    place.script(json_reply(chat_answer()), failed)
    response = place.ask("own-first", headers=bring(needy=OWN, up=OTHER))
    assert response.status_code == 200
    assert place.sent() == ([f"Bearer {OTHER}"], [f"Bearer {OWN}"])
    assert [one.billed_to for one in outcomes(place.events(response))] == ["client", "client"]


@both
def test_a_fallback_never_carries_the_key_of_the_provider_before_it(
    place: Place, stream: bool
) -> None:
    good = chat_stream("Hello") if stream else json_reply(chat_answer())
    place.script(good, json_reply({"error": {"message": "No such model."}}, 404))
    response = place.ask("own-first", stream, bring(needy=OWN))
    assert response.status_code == 200
    assert place.sent() == ([f"Bearer {UP_KEY}"], [f"Bearer {OWN}"])
    failed, end = outcomes(place.events(response))
    assert isinstance(failed, AttemptFailed)
    assert (failed.provider, failed.billed_to) == ("needy", "client")
    assert (end.provider, end.billed_to) == ("up", "")


def test_a_fallback_may_need_the_clients_key(place: Place) -> None:
    place.script(json_reply({"error": {"message": "x"}}, 404), json_reply(chat_answer()))
    response = place.ask("up-first", headers=bring(needy=OWN))
    assert response.status_code == 200
    assert place.sent() == ([f"Bearer {UP_KEY}"], [f"Bearer {OWN}"])
    assert [one.billed_to for one in outcomes(place.events(response))] == ["", "client"]


@both
@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_its_provider_refuses_ends_the_call(
    place: Place, stream: bool, status: int
) -> None:
    words = f"Incorrect API key provided: {OWN} ({OWN[:5]}***{OWN[-4:]})."
    place.script(json_reply(chat_answer()), json_reply({"error": {"message": words}}, status))
    response = place.ask("own-first", stream, bring(needy=OWN))
    error = refusal(response, 401, "authentication_error", "provider_auth")
    assert error["provider"] == "needy"
    assert error["message"].startswith("needy refused the key that you sent for it: Incorrect API")
    assert OWN[:5] not in error["message"] and OWN[-4:] not in error["message"]
    assert place.sent() == ([], [f"Bearer {OWN}"]), "neither tried again nor elsewhere"
    (end,) = outcomes(place.events(response))
    assert (end.billed_to, end.cost_nano) == ("client", 0)


def test_the_gateways_key_that_is_refused_stays_the_gateways_trouble(place: Place) -> None:
    place.answer(False)
    place.gateway.up.script(json_reply({"error": {"message": "Wrong key."}}, 401))
    refusal(place.ask("up-model"), 502, "provider_error", "provider_auth")
    place.gateway.up.script(json_reply({"error": {"message": "Wrong key."}}, 401))
    refusal(
        place.ask("up-model", headers=bring(up=OWN)), 401, "authentication_error", "provider_auth"
    )


def test_a_key_is_not_sent_where_its_provider_redirects_to(place: Place) -> None:
    elsewhere = Reply(status=307, headers={"Location": f"{place.gateway.up.url}/v1/x"})
    place.script(json_reply(chat_answer()), elsewhere)
    refusal(place.ask("dear", headers=bring(needy=OWN)), 502, "provider_error", None)
    assert place.sent() == ([], [f"Bearer {OWN}"])


def test_a_provider_that_wants_no_keys_of_clients_gets_none(place: Place) -> None:
    place.answer(False)
    response = place.ask("closed/x", headers=bring(closed=OWN))
    refusal(response, 400, "invalid_request_error", "invalid_provider_key")
    assert OWN not in response.text
    assert place.sent() == ([], [])


def test_without_the_key_that_a_provider_needs_nobody_is_asked(place: Place) -> None:
    place.answer(False)
    response = place.ask("dear")
    assert 400 <= response.status_code < 500
    assert "X-Nexus-Provider-Key" in response.json()["error"]["message"]
    assert place.sent() == ([], [])


# A key that is not the gateway's, for `target_url`.


def through(key: str, header: str = "authorization") -> dict[str, str]:
    return {header: f"Bearer {key}" if header == "authorization" else key}


@both
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_an_unknown_key_goes_on_to_the_target_url(place: Place, stream: bool, header: str) -> None:
    place.answer(stream)
    name = "vendor/some.model-4:free"
    response = place.gateway.client.post(
        "/v1/chat/completions", headers=through(OWN, header), json=basic(model=name, stream=stream)
    )
    assert response.status_code == 200, response.text
    answer = told(response)[0] if stream else response.json()
    assert (answer["model"], answer["provider"]) == (name, "target")
    assert place.sent() == ([], [f"Bearer {OWN}"])
    assert place.other.request.json["model"] == name
    assert place.other.request.path == "/v1/chat/completions"
    events = place.events(response)
    assert {event.key_id.partition("_")[0] for event in events} == {"client"}
    assert len({event.key_id for event in events}) == 1
    assert [end.billed_to for end in outcomes(events)] == ["client"]


def test_one_key_has_one_name_and_another_key_another(place: Place) -> None:
    def name_of(key: str) -> str:
        place.answer(False)
        return place.events(place.ask("m", headers=through(key)))[0].key_id

    first = name_of(OWN)
    assert name_of(OWN) == first
    assert name_of(f"{OWN}x") != first
    assert OWN not in first


@both
def test_a_key_that_the_target_url_refuses_is_a_401(place: Place, stream: bool) -> None:
    words = json_reply({"error": {"message": f"Unknown key {OWN}"}}, 401)
    place.script(words, words)
    error = refusal(
        place.ask("gpt-x", stream, through(OWN)), 401, "authentication_error", "provider_auth"
    )
    assert OWN not in error["message"]
    assert place.sent() == ([], [f"Bearer {OWN}"])


@pytest.mark.parametrize(
    "key",
    [
        new_key(Clock().entropy),
        "nx-unknown",
        "nx-" + "a" * 49,
        ADMIN[:-1],
        "unknown-without-prefix",
    ],
)
def test_what_can_be_a_key_of_ours_is_never_passed_on(place: Place, key: str) -> None:
    place.answer(False)
    for header in ("authorization", "x-api-key", "x-nexus-token"):
        response = place.gateway.client.post(
            "/v1/chat/completions", headers=through(key, header), json=basic(model="m")
        )
        assert response.status_code == 401, response.text
        assert key not in response.text
    assert place.sent() == ([], [])


def test_a_known_key_is_never_passed_on(place: Place) -> None:
    place.answer(False)
    both_keys = {"authorization": f"Bearer {OWN}", "x-api-key": KEY}
    assert place.ask("up-model", headers=both_keys).status_code == 200
    assert place.sent() == ([f"Bearer {UP_KEY}"], [])
    place.nowhere(KEY, OWN)
    for known in (KEY, ADMIN):
        response = place.ask("up-model", headers=bring(up=known))
        refusal(response, 400, "invalid_request_error", "invalid_provider_key")
        response = place.ask("target/m", headers=bring(target=known))
        refusal(response, 400, "invalid_request_error", "invalid_provider_key")
    place.nowhere(KEY, ADMIN)


def test_a_caller_of_ours_may_bring_a_key_for_the_target_url(place: Place) -> None:
    place.answer(False)
    response = place.ask("target/some-model", headers=bring(target=OWN))
    assert response.status_code == 200, response.text
    assert place.sent() == ([], [f"Bearer {OWN}"])
    assert place.other.request.json["model"] == "some-model"
    (end,) = outcomes(place.events(response))
    assert end.billed_to == "client" and not end.key_id.startswith("client")


# When processes die, sleep or do not agree.


async def test_whoever_takes_a_call_over_asks_with_the_clients_key_and_says_who_pays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SERVER_SECRET", SECRET)
    settings: dict[str, Any] = {"secret": ["${TEST_SERVER_SECRET}"]}
    async with Cluster(tmp_path, workers=2, settings=settings) as cluster:
        gate = asyncio.Event()
        whole = json_reply(chat_answer("Hello"))
        cluster.upstream.script(replace(whole, before=(gate,)), whole)
        body = {"model": "chat", "messages": [message("Hi")]}
        asking = asyncio.create_task(
            cluster.client.post(cluster.urls[0], json=body, headers=bring(up=OWN))
        )
        paused = cluster.runner(await cluster.upstream.request(0))
        await paused.pause()
        assert (await asking).status_code == 200
        gate.set()
        paused.resume()

        async def has_late() -> bool:
            return any(isinstance(event, AttemptLate) for event in await cluster.events())

        await eventually(has_late)
        ended = outcomes(await cluster.settled())
        assert [type(event) for event in ended] == [AttemptAbandoned, RequestComplete, AttemptLate]
        assert [event.billed_to for event in ended] == ["client"] * 3
        sent = [request.headers["Authorization"] for request in cluster.upstream.requests]
        assert sent == [f"Bearer {OWN}"] * 2


async def test_a_worker_with_another_secret_says_so_and_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SERVER_SECRET", SECRET)
    settings: dict[str, Any] = {"secret": ["${TEST_SERVER_SECRET}"]}
    async with Cluster(tmp_path, settings=settings) as cluster:
        await cluster.workers[0].kill()
        monkeypatch.setenv("TEST_SERVER_SECRET", f"{SECRET} of another machine")
        await cluster.role("worker", "stranger").start()
        cluster.upstream.script(json_reply(chat_answer()))
        body = {"model": "chat", "messages": [message("Hi")]}
        response = await cluster.client.post(cluster.urls[0], json=body, headers=bring(up=OWN))
        error = refusal(response, 503, "server_error", "secret_mismatch")
        assert "NEXUS_SECRET" in error["message"]
        assert cluster.upstream.requests == []
        (await cluster.client.post(cluster.urls[0], json=body)).raise_for_status()
        assert len(cluster.upstream.requests) == 1
        failed, _ = outcomes(await cluster.settled())
        assert (failed.cost_nano, failed.billed_to) == (0, "client")
