"""A key that is not the gateway's goes on to the `target_url`; a key of ours never does."""

import pytest

from ledger.access.key_text import new_key
from schemas.ids import Clock
from tests.flow.client_keys.place import OWN, Place, both, bring, outcomes
from tests.flow.gateway import ADMIN, KEY, UP_KEY, basic, refusal, told
from tests.upstream import json_reply


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
