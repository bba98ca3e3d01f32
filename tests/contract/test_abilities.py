"""What the documentation says of each provider's abilities is what its adapter does."""

import pytest

from tests.contract.abilities import COMMAND, LOST, PAGE, SUBJECTS, abilities, with_abilities
from workers.providers import dialects

# The library leaves its clients open until it is collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


async def test_the_table_of_abilities_is_the_one_that_the_adapters_give() -> None:
    page, found = PAGE.read_text(), await abilities()
    lost = [(name, row) for name, column in found.items() for row, cell in column.items()
            if LOST in cell]  # fmt: skip
    assert not lost, "neither sent nor refused"
    assert with_abilities(page, found) == page, f"{PAGE.name} is not up to date: run {COMMAND}"


def test_every_dialect_is_in_the_table() -> None:
    assert {subject.dialect for subject in SUBJECTS} == set(dialects()) - {"mock"}
