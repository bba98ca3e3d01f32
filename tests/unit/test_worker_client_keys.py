"""A worker opens the client's own key for the target it is about to ask, and no other."""

import logging
import subprocess
import sys

import pytest
from msgspec.structs import replace

from ledger.secret import ServerSecret, credential_purpose
from schemas.call import Call, Target, Tenant
from schemas.config import ProviderConfig
from workers.client_keys import ClientKeys, KeyUnusable

SECRET = ServerSecret(("the secret of all processes",))
KEY = "sk-clients-own-key"
PROVIDERS = {
    "acme": ProviderConfig(),
    "needy": ProviderConfig(client_keys="required"),
}


def call(provider: str = "acme", *, sealed_for: str = "", secret: ServerSecret = SECRET) -> Call:
    """A call to a provider, with a key that is sealed for a provider."""
    purpose = credential_purpose("c1", sealed_for)
    sealed = {sealed_for: secret.seal(KEY.encode(), purpose, b"n" * 12)} if sealed_for else {}
    return Call(
        id="c1",
        model="m",
        plan=(Target(provider, "e", provider),),
        tenant=Tenant(),
        ingress="i",
        received_ns=0,
        deadline_ns=0,
        credentials=sealed,
    )


def test_the_key_of_the_target_is_opened_and_none_of_another_provider() -> None:
    keys = ClientKeys(SECRET, PROVIDERS)
    assert keys.of_target(call(sealed_for="acme")) == KEY
    assert keys.of_target(call(sealed_for="other")) == ""
    assert keys.of_target(call()) == ""


def test_a_secret_that_was_replaced_still_opens_what_it_sealed() -> None:
    rotated = ServerSecret(("a new secret for everything", "the secret of all processes"))
    assert ClientKeys(rotated, PROVIDERS).of_target(call(sealed_for="acme")) == KEY


@pytest.mark.parametrize("secret", [ServerSecret(()), ServerSecret(("another secret, not ours",))])
def test_a_key_sealed_with_another_secret_ends_the_call(
    secret: ServerSecret, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(KeyUnusable) as caught:
        ClientKeys(secret, PROVIDERS).of_target(call(sealed_for="acme"))
    info = caught.value.info
    assert (info.status, info.type, info.code) == (503, "server_error", "secret_mismatch")
    assert "ingress and worker must share NEXUS_SECRET" in info.message
    (line,) = caplog.records
    assert (line.__dict__["call_id"], line.__dict__["provider"]) == ("c1", "acme")


def test_a_key_sealed_for_another_call_or_provider_or_cut_is_not_opened() -> None:
    good = call(sealed_for="acme").credentials["acme"]
    keys = ClientKeys(SECRET, PROVIDERS)
    other = SECRET.seal(KEY.encode(), credential_purpose("c2", "acme"), b"n" * 12)
    swapped = call(sealed_for="needy").credentials["needy"]
    for sealed in (other, swapped, good[:-1], good[:5], b"", good[:-1] + b"\x00"):
        with pytest.raises(KeyUnusable):
            keys.of_target(replace(call(), credentials={"acme": sealed}))


def test_a_provider_that_needs_the_clients_own_key_says_how_to_send_it() -> None:
    keys = ClientKeys(SECRET, PROVIDERS)
    assert keys.of_target(call("needy", sealed_for="needy")) == KEY
    with pytest.raises(KeyUnusable) as caught:
        keys.of_target(call("needy", sealed_for="acme"))
    info = caught.value.info
    assert (info.status, info.type) == (401, "authentication_error")
    assert (info.code, info.provider) == ("provider_key_missing", "needy")
    assert "X-Nexus-Provider-Key: needy=<key>" in info.message


def test_a_key_of_any_bytes_is_opened_without_an_error_that_would_quote_it() -> None:
    sealed = SECRET.seal(b"k\xff\xfe", credential_purpose("c1", "acme"), b"n" * 12)
    odd = replace(call(), credentials={"acme": sealed})
    assert ClientKeys(SECRET, PROVIDERS).of_target(odd) == "k\xff\xfe"


def test_a_worker_loads_no_cryptography_for_calls_without_keys() -> None:
    script = (
        "import sys, workers.app, workers.client_keys as c\n"
        "from tests.unit.test_worker_client_keys import PROVIDERS, SECRET, call\n"
        "before = 'cryptography' in sys.modules\n"
        "assert c.ClientKeys(SECRET, PROVIDERS).of_target(call()) == ''\n"
        "assert not before and 'cryptography' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
