"""What `docs/providers.md` says of vendors is what is built in."""

from tests.provider_pages import PAGE, with_vendors


def test_the_table_of_vendors_is_current() -> None:
    text = PAGE.read_text()
    assert "| groq | openai | `GROQ_API_KEY` | `https://api.groq.com/openai/v1` |" in text
    assert with_vendors(text) == text, "python -m tests.provider_pages writes it anew"
