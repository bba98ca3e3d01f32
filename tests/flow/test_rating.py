"""One limit over four ingress processes, with a real governor and a real bus between them."""

from pathlib import Path

import pytest

from tests.bench import rates


@pytest.mark.parametrize("parts", [rates.EVEN, rates.UNEVEN], ids=["even", "uneven"])
async def test_no_second_has_more_than_limit_and_burst_and_the_limit_is_used(
    tmp_path: Path, parts: tuple[float, ...]
) -> None:
    found = await rates.admitted(tmp_path, parts, seconds=4.0)
    assert found.let_through == 0
    assert found.most_in_a_second <= rates.LIMIT + rates.BURST
    assert found.per_second >= 0.97 * rates.LIMIT
