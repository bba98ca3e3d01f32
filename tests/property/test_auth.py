"""Whatever is written as a pattern, a claim or a key: the same answer as the simplest reading."""

import asyncio
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ingress.client_keys import brought
from ingress.forwarding import forwarded
from ingress.tokens import Tokens
from ledger.access.configured import configured
from ledger.access.key_text import new_key
from ledger.access.registry import Registry
from ledger.secret import ServerSecret
from schemas.access import Secret
from schemas.config import Config, JwtConfig
from schemas.errors import InvalidRequest, NexusError, Unauthenticated
from schemas.globs import matches
from schemas.ids import Clock
from tests import sample_events as sample
from tests.ingress_doors import authenticator
from tests.sample_events import NOON, SECOND
from tests.token_issuer import AUDIENCE, EC_KEY, ISSUER, SHARED, claims, public_pem, signed

NOW = NOON // SECOND
CLOCK = Clock(now_ns=lambda: NOON)


def reference(pattern: str, name: str) -> bool:
    """The definition, letter by letter."""
    fits = [True] + [False] * len(name)
    for sign in pattern:
        if sign == "*":
            fits = [any(fits[: end + 1]) for end in range(len(fits))]
        else:
            one = [sign in ("?", letter) for letter in name]
            fits = [False, *(before and same for before, same in zip(fits, one, strict=False))]
    return fits[-1]


@given(st.text("ab*?[.\\", max_size=12), st.text("ab*?[.\\", max_size=12))
def test_a_pattern_matches_as_it_is_defined(pattern: str, name: str) -> None:
    assert matches(pattern, name) == reference(pattern, name)


@given(st.text(max_size=30), st.data())
def test_a_pattern_made_from_a_name_matches_it(name: str, data: st.DataObject) -> None:
    pattern = ""
    for letter in name:
        pattern += data.draw(st.sampled_from([letter, "?", "*", f"*{letter}", f"{letter}*"]))
    assert matches(pattern, name)


@given(st.text(max_size=30), st.text(max_size=30))
def test_without_wildcards_a_pattern_matches_itself_only(pattern: str, name: str) -> None:
    assume(not re.search(r"[*?]", pattern))
    assert matches(pattern, name) == (pattern == name)
    assert matches(pattern, pattern)
    assert not matches(pattern, pattern + "x")


def test_no_pattern_takes_for_ever() -> None:
    assert not matches("a*" * 99 + "c", "a" * 200)
    assert not matches("*a" * 100, "b" * 200)
    assert matches("*" * 200, "x" * 200)


ids = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x2FFF, exclude_categories=("Cs", "Cc")),
    max_size=128,
)
patterns = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200)
valid_claims = st.fixed_dictionaries(
    {
        "sub": ids.filter(bool),
        "exp": st.floats(NOW - 9, NOW + 1e9) | st.integers(NOW - 9, NOW + 10**9),
        "iss": st.just(ISSUER),
        "aud": st.just(AUDIENCE)
        | st.lists(st.text(max_size=9)).map(lambda more: [*more, AUDIENCE]),
    },
    optional={
        "nbf": st.floats(0, NOW + 9),
        "iat": st.integers(0, NOW + 10),
        "project": ids,
        "team": ids,
        "tier": st.sampled_from(["", "free", "pro", "enterprise", "house"]),
        "models": st.lists(patterns, min_size=1, max_size=5),
        "scope": st.recursive(st.none() | st.text(), st.lists),
    },
)
TOKENS = Tokens(
    JwtConfig(
        secret=SHARED,
        public_key=public_pem(EC_KEY),
        algorithms=("HS256", "ES256"),
        issuer=ISSUER,
        audience=AUDIENCE,
    ),
    ("house",),
    CLOCK,
)
DOOR = authenticator(Config(), tokens=TOKENS, clock=CLOCK)


async def principal_of(token: str | bytes) -> Any:
    text = token.encode() if isinstance(token, str) else token
    return await DOOR.authenticate([(b"authorization", b"Bearer " + text)])


@given(valid_claims, st.booleans())
def test_valid_claims_come_out_as_they_went_in(said: dict[str, Any], elliptic: bool) -> None:
    how: tuple[Any, ...] = (EC_KEY, "ES256") if elliptic else (SHARED, "HS256")
    principal = asyncio.run(principal_of(signed(said, *how)))
    assert principal.tenant.user == said["sub"]
    assert principal.tenant.project == said.get("project", "")
    assert principal.tenant.team == said.get("team", "")
    assert principal.tier == said.get("tier", "")
    assert principal.models == ((tuple(said["models"]),) if "models" in said else ())
    assert principal.until_ns == round((said["exp"] + 10) * 1e9)


GOOD = [signed(claims(project="shop")).encode(), signed(None, EC_KEY, "ES256").encode()]


@given(st.sampled_from(GOOD), st.data())
def test_a_token_with_one_letter_changed_is_refused(token: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(token) - 1))
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \x00\xff"
    letter = data.draw(st.sampled_from([bytes([one]) for one in letters]))
    mutant = token[:place] + letter + token[place + 1 :]
    # Space around a credential is not part of it.
    assume(mutant.strip() != token)
    asyncio.run(principal_of(token))
    with pytest.raises(Unauthenticated) as error:
        asyncio.run(principal_of(mutant))
    assert error.value.info.code in ("invalid_token", "invalid_api_key")


@pytest.mark.parametrize("token", GOOD)
def test_no_last_letter_but_its_own_ends_a_token(token: bytes) -> None:
    """The last letter of base64 holds bits that nobody reads: they must be as they were signed."""
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = []
    for letter in letters:
        try:
            asyncio.run(principal_of(token[:-1] + bytes([letter])))
            accepted.append(letter)
        except Unauthenticated:
            pass
    assert accepted == [token[-1]]


@given(st.binary(max_size=60), st.sampled_from([b"", b"nx-", b"sk-", b"ey", b"a.b.", b"Basic "]))
def test_whatever_is_sent_is_refused_with_401_and_not_shown(text: bytes, begin: bytes) -> None:
    credential = begin + text
    for header, value in (
        (b"authorization", b"Bearer " + credential),
        (b"authorization", credential),
        (b"x-api-key", credential),
        (b"x-nexus-token", credential),
    ):
        with pytest.raises(NexusError) as error:
            asyncio.run(DOOR.authenticate([(header, value)]))
        assert error.value.info.status == 401
        shown = credential.strip().decode("latin-1")
        assert len(shown) < 12 or shown not in error.value.info.message


@given(st.lists(st.binary(min_size=32, max_size=32), unique=True, min_size=1, max_size=8))
def test_a_key_opens_itself_and_nothing_else(entropies: list[bytes]) -> None:
    config = Config(secret=("the server secret of a test",))
    secret, registry = ServerSecret(config.secret), Registry(configured(config))
    texts = [new_key(lambda _, drawn=one: drawn) for one in entropies]
    for seq, text in enumerate(texts[:-1], 1):
        key = sample.a_key(f"key_{seq}", secrets=(Secret(secret.digest(text.encode())),))
        registry.take(sample.stored(seq, sample.key_created(key)))
    door = authenticator(config, registry)
    for seq, text in enumerate(texts[:-1], 1):
        principal = asyncio.run(door.authenticate([(b"x-api-key", text.encode())]))
        assert principal.tenant.key_id == f"key_{seq}"
    with pytest.raises(Unauthenticated):
        asyncio.run(door.authenticate([(b"x-api-key", texts[-1].encode())]))


@given(
    st.binary(min_size=8, max_size=40).map(bytes.strip).filter(lambda text: len(text) >= 8),
    st.binary(max_size=10),
    st.binary(max_size=10),
)
def test_no_credential_goes_on_inside_anything(text: bytes, before: bytes, after: bytes) -> None:
    headers = [(b"authorization", b"Bearer " + text), (b"x-copy", before + text + after)]
    assert forwarded(headers, DOOR) == {}


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_provider_keys_are_taken_or_refused_with_400(values: list[bytes]) -> None:
    headers = [(b"x-nexus-provider-key", value) for value in values]
    principal = asyncio.run(principal_of(GOOD[0]))
    if values:
        with pytest.raises(InvalidRequest):
            brought(headers, principal, Config())
    else:
        assert brought(headers, principal, Config()) == {}
