"""Headers between a client and every vendor: keys arrive where they belong, and nothing leaks."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.contract.provider_contract import Scene
from tests.flow.gateway import KEY, UP_KEY
from tests.flow.providers.vendors import VENDORS, VERTEX_TOKEN, Scripted, Vendor

OWN = "sk-of-the-client-0123456789abcdef"
OTHERS = "sk-for-another-provider-0123456789"
MARK = "told-by-the-provider"
every = pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
# What a provider may say beside its answer: about its account, its servers, its connection.
THEIRS = {
    "Set-Cookie": f"session={MARK}",
    "Server": MARK,
    "Via": MARK,
    "X-Request-Id": MARK,
    "request-id": MARK,
    "OpenAI-Organization": MARK,
    "anthropic-organization-id": MARK,
    "x-amzn-RequestId": MARK,
    "x-ratelimit-remaining-requests": MARK,
    "x-goog-api-key": MARK,
    "Authorization": MARK,
    "Proxy-Authenticate": MARK,
    "X-Custom": MARK,
    "Access-Control-Allow-Origin": MARK,
    "Keep-Alive": MARK,
}


def ask(
    scripted: Scripted,
    vendor: Vendor,
    headers: Mapping[str, str] | None = None,
    *,
    stream: bool = False,
) -> httpx.Response:
    body = {
        "model": vendor.model,
        "messages": [{"role": "user", "content": "Tell me"}],
        "stream": stream,
    }
    return scripted.gateway.post(json=body, headers=headers)


def arrived(scripted: Scripted) -> tuple[dict[str, str], str]:
    """The headers of the only request, by small names, and all of it as text."""
    request = scripted.upstream.request
    names = [name.lower() for name in request.headers]
    assert len(names) == len(set(names)), "a header came twice"
    headers = {name.lower(): value for name, value in request.headers.items()}
    return headers, f"{request.path} {json.dumps(headers)} {request.body.decode()}"


@every
@both
def test_the_clients_own_key_goes_into_the_vendors_header_and_no_credential_of_ours_beside_it(
    scripted: Scripted, vendor: Vendor, stream: bool
) -> None:
    scripted.play(vendor, Scene())
    keys = f"{vendor.name}={OWN}, up={OTHERS}"
    answer = ask(scripted, vendor, {"X-Nexus-Provider-Key": keys}, stream=stream)
    assert answer.status_code == 200, answer.text
    headers, everything = arrived(scripted)
    assert headers[vendor.key_header] == vendor.key(OWN)
    assert everything.count(OWN) == 1
    for secret in (UP_KEY, KEY, OTHERS, VERTEX_TOKEN):
        assert secret not in everything
    assert OWN not in answer.text and OWN not in str(answer.headers)


@every
@both
def test_the_gateways_key_is_used_without_one_of_the_clients(
    scripted: Scripted, vendor: Vendor, stream: bool
) -> None:
    scripted.play(vendor, Scene())
    other = {"X-Nexus-Provider-Key": f"up={OTHERS}"}
    assert ask(scripted, vendor, other, stream=stream).status_code == 200
    headers, everything = arrived(scripted)
    if vendor.name == "vertex":
        assert headers["authorization"] == f"Bearer {VERTEX_TOKEN}"
    else:
        assert headers[vendor.key_header] == vendor.key(UP_KEY)
        assert everything.count(UP_KEY) == 1
    assert KEY not in everything and OTHERS not in everything


@every
def test_custom_headers_pass_and_those_of_the_connection_and_of_credentials_never(
    scripted: Scripted, vendor: Vendor
) -> None:
    scripted.play(vendor, Scene())
    sent = {
        "X-Trace-Id": "trace-1",
        "X-Feature": 'a, b; c="d"',
        "X-Api-Key": KEY,
        "X-Nexus-App": "ours",
        "X-Nexus-Provider-Key": f"{vendor.name}={OWN}",
        "X-Forwarded-For": "10.0.0.1",
        "X-Real-Ip": "10.0.0.1",
        "X-Goog-Api-Key": "theirs-0123456789",
        "Api-Key": "theirs-0123456789",
        "X-Amz-Security-Token": "theirs-0123456789",
        "Cookie": "session=theirs-0123456789",
        "Proxy-Authorization": "Basic theirs-0123456789",
        "Te": "trailers",
        "Keep-Alive": "timeout=5",
        "Upgrade": "theirs-0123456789",
        "OpenAI-Beta": "for-openai",
        "Anthropic-Beta": "for-anthropic",
        "Not-An-X": "unknown-0123456789",
    }
    answer = ask(scripted, vendor, sent)
    assert answer.status_code == 200, answer.text
    headers, everything = arrived(scripted)
    assert headers["x-trace-id"] == "trace-1" and headers["x-feature"] == sent["X-Feature"]
    assert not {"te", "upgrade", "cookie", "proxy-authorization", "not-an-x"} & headers.keys()
    assert not {"x-forwarded-for", "x-real-ip", "x-nexus-app"} & headers.keys()
    assert not {"x-nexus-provider-key", "x-amz-security-token"} & headers.keys()
    assert headers.get("keep-alive") is None and "theirs-0123456789" not in everything
    assert headers.get("openai-beta") is None
    assert headers.get("anthropic-beta") == (
        "for-anthropic" if vendor.name == "anthropic" else None
    )


@every
@pytest.mark.parametrize(
    ("scene", "stream"),
    [(Scene(), False), (Scene(), True), (Scene(status=400), False), (Scene(status=429), True)],
    ids=["whole", "stream", "refusal", "rate limit"],
)
def test_no_header_of_a_provider_reaches_the_client(
    scripted: Scripted, vendor: Vendor, scene: Scene, stream: bool
) -> None:
    scripted.play(vendor, scene, THEIRS)
    answer = ask(scripted, vendor, stream=stream)
    assert answer.status_code == scene.status
    shown: Any = list(answer.headers.multi_items())
    assert MARK not in str(shown) and "set-cookie" not in answer.headers
    assert answer.headers["x-request-id"].startswith("req_")
