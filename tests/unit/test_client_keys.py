"""Keys that clients bring for providers, and the headers that go on to those."""

from typing import Any

import pytest

from ingress.auth import Headers, Principal
from ingress.client_keys import brought
from ingress.forwarding import forwarded
from ledger.access.key_text import new_key
from schemas.call import Tenant
from schemas.config import Config, KeyConfig, ProviderConfig
from schemas.errors import InvalidRequest
from tests.ingress_doors import authenticator

HEADER = b"x-nexus-provider-key"
KEY = Principal(Tenant(key_id="key_a"))
CLIENT = Principal(Tenant(key_id="client_a"), kind="client")
CONFIG = Config(
    api_keys=("a-configured-key", "sk-configured"),
    keys={"ci": KeyConfig(key="the-key-of-ci")},
    admin_token="the-admin-token",
    target_url="https://api.example.com/v1",
    providers={
        "openai": ProviderConfig(api_key="k"),
        "anthropic": ProviderConfig(client_keys="required"),
        "house": ProviderConfig(client_keys="refused"),
        "target": ProviderConfig(client_keys="required"),
        **{f"p{number}": ProviderConfig() for number in range(17)},
    },
)


def taken(*values: bytes, principal: Principal = KEY, more: Headers | None = None) -> Any:
    return brought([(HEADER, value) for value in values] + (more or []), principal, CONFIG)


def test_keys_come_one_by_one_or_joined_by_commas() -> None:
    assert taken() == {}
    assert taken(b"openai=sk-1") == {"openai": b"sk-1"}
    both = {"openai": b"sk-1", "anthropic": b"sk-ant=="}
    assert taken(b"openai=sk-1", b"anthropic=sk-ant==") == both
    assert taken(b" openai = sk-1 ,anthropic=sk-ant==") == both
    assert taken(b"openai=" + b"x" * 4096) == {"openai": b"x" * 4096}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "expected '<provider>=<key>' with one of openai, anthropic"),
        (b"sk-live-0123456789", "expected '<provider>=<key>'"),
        (b"=sk-live-0123456789", "expected '<provider>=<key>'"),
        (b"nobody=sk-live-0123456789", "expected '<provider>=<key>'"),
        (b"OpenAI=sk-live-0123456789", "expected '<provider>=<key>'"),
        (b"openai=sk-live-0123456789,", "expected '<provider>=<key>'"),
        (b"openai", "expected 'openai=<key>'"),
        (b"openai=", "expected 'openai=<key>'"),
        (b"openai=sk-live 0123456789", "expected 'openai=<key>'"),
        ("openai=sk-live-0123456789-ü".encode(), "expected 'openai=<key>'"),
        (b"openai=" + b"x" * 4097, "expected 'openai=<key>'"),
        (b"house=sk-live-0123456789", "house is not to be asked with keys of clients"),
        (b"openai=sk-live-0123456789,openai=sk-2", "openai is named twice"),
        (b",".join(b"p%d=sk-live-0123456789" % n for n in range(17)), "at most 16"),
        (b"openai=nx-live-0123456789", "a key of the gateway"),
        (b"openai=a-configured-key", "a key of the gateway"),
        (b"openai=the-key-of-ci", "a key of the gateway"),
        (b"openai=the-admin-token", "a key of the gateway"),
    ],
)
def test_what_cannot_be_taken_is_refused_and_not_shown(value: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        taken(value)
    info = error.value.info
    assert (info.status, info.param) == (400, "X-Nexus-Provider-Key")
    assert reason in info.message
    for secret in ("live", "xxxx", "configured", "admin", "ci:"):
        assert secret not in info.message


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-api-key", b"sk-of-the-client")],
        [(b"authorization", b"Bearer sk-of-the-client")],
        [(b"x-api-key", b"sk-of-the-client"), (b"authorization", b"Bearer sk-another-one")],
        [(b"x-api-key", b"nothing"), (b"authorization", b"Bearer sk-of-the-client")],
        [(b"x-api-key", b"sk-configured"), (b"authorization", b"Bearer sk-of-the-client")],
        [(b"x-nexus-token", b"sk-wrong-place"), (b"x-api-key", b"sk-of-the-client")],
    ],
)
async def test_who_passes_through_brings_the_key_it_came_with(headers: Headers) -> None:
    assert taken(principal=CLIENT, more=headers) == {"target": b"sk-of-the-client"}
    keys = authenticator(CONFIG)
    known = await keys.authenticate([(b"x-api-key", b"sk-of-the-client")])
    if b"sk-configured" not in [value for _, value in headers]:
        assert await keys.authenticate(headers) == known
    assert taken(b"openai=sk-1", principal=CLIENT, more=headers) == {
        "openai": b"sk-1",
        "target": b"sk-of-the-client",
    }
    assert taken(b"target=sk-1", principal=CLIENT, more=headers) == {"target": b"sk-1"}


def test_who_has_a_key_of_ours_brings_nothing_by_that() -> None:
    assert taken(more=[(b"authorization", b"Bearer sk-of-the-client")]) == {}


VIRTUAL = new_key(bytes)
JWT = b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"


def passed(*headers: tuple[bytes, bytes]) -> dict[str, str]:
    return forwarded(list(headers), authenticator(CONFIG))


def test_headers_that_the_client_made_for_the_provider_go_on() -> None:
    assert passed(
        (b"x-custom", b"one"),
        (b"x-custom", b"two"),
        (b"openai-organization", b"org"),
        (b"anthropic-beta", "ü".encode()),
        (b"x-stainless-os", b"Linux"),
        (b"accept", b"*/*"),
        (b"x-nexus-app", b"shop"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"x-real-ip", b"1.2.3.4"),
        (b"x-goog-api-key", b"k"),
        (b"x-amz-security-token", b"k"),
        (b"authorization", b"Bearer a-configured-key"),
    ) == {
        "x-custom": "one, two",
        "openai-organization": "org",
        "anthropic-beta": "ü",
        "x-stainless-os": "Linux",
    }


@pytest.mark.parametrize(
    "credential",
    [
        (b"authorization", b"Bearer " + JWT),
        (b"authorization", b"Bearer sk-of-the-client"),
        (b"authorization", b"Basic dTpwYXNzd29yZA=="),
        (b"authorization", b"Bearer a-configured-key"),
        (b"authorization", b"Bearer short"),
        (b"x-api-key", b"sk-of-the-client"),
        (b"x-nexus-token", VIRTUAL.encode()),
        (HEADER, b"openai=sk-live-0123456789"),
        (HEADER, b"openai=sk-live-0123456789,anthropic=sk-another"),
    ],
)
def test_no_header_carries_a_credential_of_the_same_request(
    credential: tuple[bytes, bytes],
) -> None:
    value = credential[1]
    last = value.rpartition(b" ")[2].rpartition(b"=")[2] or value.rpartition(b" ")[2]
    leaks = [
        (b"x-copy", value),
        (b"x-bare", last),
        (b"x-quoted", b'{"key": "%b"}' % last),
        (b"x-within", b"key=%b;other" % last),
    ]
    kept = (b"x-custom", b"something else")
    assert passed(kept, *leaks, credential) == {"x-custom": "something else"}
    assert passed(*leaks, credential, kept) == {"x-custom": "something else"}


def test_a_key_of_ours_never_goes_on_whoever_sends_it() -> None:
    headers = [(b"x-copy", VIRTUAL.encode()), (b"openai-x", b"see a-configured-key")]
    assert passed(*headers, (b"authorization", b"Bearer sk-of-the-client")) == {}


def test_a_credential_that_was_sent_twice_is_kept_back_both_times() -> None:
    sent = [(b"x-api-key", b"first-credential"), (b"x-api-key", b"second-credential")]
    assert passed(*sent, (b"x-one", b"first-credential"), (b"x-two", b"second-credential")) == {}
