"""What the server secret keeps: digests of keys, and sealed credentials of clients."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.secret import ServerSecret, Unsealable, credential_purpose

OLD = "an old secret of the server"
NEW = "a new secret of the server"
PURPOSE = credential_purpose("call-1", "openai")
NONCE = bytes(range(12))
SEALED = ServerSecret((NEW,)).seal(b"sk-of-a-client", PURPOSE, NONCE)
texts = st.binary(max_size=200)
nonces = st.binary(min_size=12, max_size=12)


@given(texts, nonces)
def test_what_was_sealed_opens_again_and_does_not_show_its_text(text: bytes, nonce: bytes) -> None:
    secret = ServerSecret((NEW,))
    sealed = secret.seal(text, PURPOSE, nonce)
    assert secret.open(sealed, PURPOSE) == text
    assert len(text) < 8 or text not in sealed[len(nonce) :]


@given(st.integers(0, 8 * len(SEALED) - 1))
def test_with_one_bit_flipped_it_does_not_open(bit: int) -> None:
    damaged = bytearray(SEALED)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Unsealable):
        ServerSecret((NEW,)).open(bytes(damaged), PURPOSE)


@given(st.integers(0, len(SEALED) - 1))
def test_cut_off_it_does_not_open(length: int) -> None:
    with pytest.raises(Unsealable):
        ServerSecret((NEW,)).open(SEALED[:length], PURPOSE)


@pytest.mark.parametrize(
    "purpose",
    [
        credential_purpose("call-2", "openai"),
        credential_purpose("call-1", "anthropic"),
        b"",
    ],
)
def test_for_another_call_or_provider_it_does_not_open(purpose: bytes) -> None:
    with pytest.raises(Unsealable):
        ServerSecret((NEW,)).open(SEALED, purpose)


def test_with_another_secret_or_none_it_does_not_open() -> None:
    for secrets in ((OLD,), ()):
        with pytest.raises(Unsealable):
            ServerSecret(secrets).open(SEALED, PURPOSE)


def test_what_an_old_secret_sealed_and_hashed_is_understood_while_it_is_in_the_list() -> None:
    old, both = ServerSecret((OLD,)), ServerSecret((NEW, OLD))
    sealed = old.seal(b"text", PURPOSE, os.urandom(12))
    assert both.open(sealed, PURPOSE) == b"text"
    assert old.digest(b"nx-key") in both.digests(b"nx-key")
    assert old.pepper_id in both.pepper_ids()


def test_what_is_new_is_made_with_the_first_secret() -> None:
    new, both = ServerSecret((NEW,)), ServerSecret((NEW, OLD))
    assert both.digest(b"nx-key") == new.digest(b"nx-key") == both.digests(b"nx-key")[0]
    assert both.pepper_id == new.pepper_id
    assert new.open(both.seal(b"text", PURPOSE, NONCE), PURPOSE) == b"text"


@given(texts, texts)
def test_digests_tell_keys_and_secrets_apart(one: bytes, other: bytes) -> None:
    secret = ServerSecret((NEW,))
    assert (secret.digest(one) == secret.digest(other)) == (one == other)
    assert len(secret.digest(one)) == 32
    assert secret.digest(one) != ServerSecret((OLD,)).digest(one)


def test_every_secret_has_a_name_of_its_own_that_stays() -> None:
    secret = ServerSecret((NEW, OLD))
    assert secret.pepper_id == secret.pepper_ids()[0] == ServerSecret((NEW,)).pepper_id
    assert len(set(secret.pepper_ids())) == 2
    assert all(len(name) == 8 for name in secret.pepper_ids())


def test_without_a_secret_nothing_can_be_made() -> None:
    assert not ServerSecret(()).available
    assert ServerSecret((NEW,)).available
    assert ServerSecret(()).digests(b"nx-key") == []


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        ServerSecret((NEW, "too short"))
