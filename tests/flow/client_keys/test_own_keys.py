"""The client's own keys for providers: each goes to the one it is for, and to no other."""

import pytest

from schemas.events import AttemptFailed
from tests.flow.client_keys.place import OWN, Place, both, bring, outcomes
from tests.flow.gateway import KEY, UP_KEY, refusal
from tests.upstream import Reply, chat_answer, chat_stream, json_reply

OTHER = "gsk_another-key-of-the-client-98765"


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
