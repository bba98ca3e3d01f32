"""A request for what is not there, by another method or too large, is refused by its name."""

import httpx
import pytest

from tests.flow.bad_input.bodies import CHAT, INVALID, MIB, nested, serves, with_content, with_field
from tests.flow.gateway import Gateway, refusal


@pytest.mark.parametrize("levels", range(930, 1000, 5))
def test_a_depth_that_only_one_side_could_bear_is_no_gateway_error(
    gateway: Gateway, client: httpx.Client, levels: int
) -> None:
    for model in ("mock", "up-model"):
        for body in (with_content(nested(levels)), with_field(f'"x":{nested(levels)}')):
            answer = client.post(CHAT, content=body.replace(b'"mock"', f'"{model}"'.encode()))
            assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x", None]
)
def test_the_content_type_is_not_asked_for(client: httpx.Client, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    assert client.post(CHAT, content=with_field('"a":1'), headers=headers).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused_and_told_the_right_one(
    client: httpx.Client, method: str
) -> None:
    for path in (CHAT, "/proxy/mock"):
        response = client.request(method, path)
        refusal(response, 405, INVALID, "method_not_allowed")
        assert response.headers["allow"] == "POST"
    assert serves(client)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v2/chat/completions",
        "/v1/chat",
        "/v1/chat/completions/x",
        "/%2e%2e/admin",
        "/a%0d%0aX:y",
        "/%00",
        "/v1/" + "a" * 5000,
    ],
)
def test_unknown_paths(client: httpx.Client, path: str) -> None:
    refusal(client.post(path, json={}), 404, "not_found_error", "unknown_path")
    assert serves(client)


def test_a_body_over_the_limit_is_refused_so_that_an_honest_client_reads_it(
    client: httpx.Client,
) -> None:
    response = client.post(CHAT, content=b"x" * (40 * MIB))
    error = refusal(response, 413, INVALID, "request_too_large")
    assert "33554432 bytes" in error["message"]
    assert serves(client)


def test_a_chunked_body_over_the_limit_is_refused_as_well(client: httpx.Client) -> None:
    response = client.post(CHAT, content=(b"x" * MIB for _ in range(40)))
    refusal(response, 413, INVALID, "request_too_large")
    assert serves(client)
