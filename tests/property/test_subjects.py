"""Whatever a client names, it is one token of a subject and can be told from any other name."""

import re

from hypothesis import given
from hypothesis import strategies as st

from schemas import subjects

TOKEN = re.compile(r"[A-Za-z0-9_=-]{1,96}")


@given(st.text(max_size=300))
def test_any_text_becomes_one_plain_token(text: str) -> None:
    assert TOKEN.fullmatch(subjects.token(text))


@given(st.text(max_size=300))
def test_a_token_leads_back_to_its_text_unless_it_was_hashed(text: str) -> None:
    encoded = subjects.token(text)
    decoded = subjects.text_of_token(encoded)
    assert decoded == text or (decoded is None and encoded.startswith("=h"))


@given(st.text(max_size=60), st.text(max_size=60))
def test_two_texts_never_share_a_token(one: str, other: str) -> None:
    assert (subjects.token(one) == subjects.token(other)) == (one == other)


def test_what_would_break_a_subject_is_encoded() -> None:
    for text in ("a.b", "*", ">", "a b", "a\nb", "../x", "", "=", "\x00", "é", "$JS.API.>"):
        assert TOKEN.fullmatch(subjects.token(text)), text


def test_a_ledger_subject_gives_back_its_role_and_type() -> None:
    subject = subjects.ledger("worker", "team a.b>*", "model.request.complete")
    assert subject.count(".") == 5
    assert subjects.ledger_parts(subject) == ("worker", "model.request.complete")
