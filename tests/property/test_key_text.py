"""A key tells by itself whether it was typed right."""

import re
import string

from hypothesis import given
from hypothesis import strategies as st

from ledger.access.key_text import PREFIX, hint, is_well_formed, new_key

entropies = st.binary(min_size=32, max_size=32)
KEY = re.compile(r"nx-[0-9A-Za-z]{49}")


def key_of(entropy: bytes) -> str:
    return new_key(lambda size: entropy[:size])


@given(entropies)
def test_every_key_that_is_made_is_well_formed(entropy: bytes) -> None:
    key = key_of(entropy)
    assert KEY.fullmatch(key)
    assert key.startswith(PREFIX)
    assert is_well_formed(key.encode())


@given(entropies, entropies)
def test_two_keys_are_equal_only_if_their_random_bits_are(one: bytes, other: bytes) -> None:
    assert (key_of(one) == key_of(other)) == (one == other)


@given(entropies, st.integers(0, 51), st.sampled_from(string.printable))
def test_one_wrong_character_is_noticed(entropy: bytes, place: int, character: str) -> None:
    key = key_of(entropy)
    changed = key[:place] + character + key[place + 1 :]
    assert is_well_formed(changed.encode()) == (changed == key)


@given(entropies, st.integers(0, 50))
def test_two_swapped_neighbours_are_noticed(entropy: bytes, place: int) -> None:
    key = key_of(entropy)
    changed = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    assert is_well_formed(changed.encode()) == (changed == key)


@given(entropies, st.integers(0, 51), st.sampled_from(string.ascii_letters + "\n "))
def test_a_missing_or_a_further_character_is_noticed(
    entropy: bytes, place: int, character: str
) -> None:
    key = key_of(entropy)
    assert not is_well_formed((key[:place] + key[place + 1 :]).encode())
    assert not is_well_formed((key[:place] + character + key[place:]).encode())
    assert not is_well_formed((key + character).encode())


@given(st.binary(max_size=80))
def test_any_bytes_may_be_asked_about(text: bytes) -> None:
    assert is_well_formed(text) in (True, False)


@given(entropies)
def test_a_hint_shows_eight_characters_of_a_key(entropy: bytes) -> None:
    key = key_of(entropy)
    shown = hint(key).split("…")
    assert shown == [key[:7], key[-4:]]
    assert len(key) - sum(map(len, shown)) > 40
