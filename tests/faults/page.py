"""The table of faults in `docs/failures.md`: `python -m tests.faults.page` plays all of them and
writes it anew."""

import tempfile
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from schemas.errors import ErrorInfo
from schemas.events import Outcome, RequestComplete
from tests.faults.stage import SPARE, Came, matrix

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"
COMMAND = "python -m tests.faults.page"
_BEGIN, _END = "<!-- faults -->\n", "<!-- /faults -->"
_HEAD = (
    "| the provider | asked for | the client gets | attempts | cost | with a fallback | attempts"
    " | cost |\n|---|---|---|---|---|---|---|---|"
)


def with_faults(text: str, all_of: Sequence[Came]) -> str:
    """The page with the table of what came of all cases."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    lines = [_HEAD]
    for _, cases in groupby(all_of, lambda came: came.case.fault.name):
        lines += _rows(list(cases))
    return before + _BEGIN + "\n".join(lines) + "\n" + _END + after


def _rows(cases: list[Came]) -> list[str]:
    """Of one fault: one row where a stream fares as a whole answer does, else two."""
    what = cases[0].case.fault.what
    whole, stream = (
        [cell for came in cases if came.case.stream is mode for cell in _cells(came)]
        for mode in (False, True)
    )
    if whole == stream:
        return [_row(what, "both", *whole)]
    return [_row(what, "whole", *whole), _row("", "stream", *stream)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(came: Came) -> tuple[str, str, str]:
    return _seen(came), _attempts(came.outcomes), _costs(came.outcomes)


def _seen(came: Came) -> str:
    seen = came.seen
    if seen.error is None:
        return "the fallback's answer" if came.spared else "the answer"
    kind = f"`{seen.error['type']}`"
    if seen.error["code"] is not None:
        kind += f" `{seen.error['code']}`"
    if seen.status == 200:
        return f"{len(seen.texts)} pieces, then the error {kind}"
    wait = f", `Retry-After: {seen.retry_after}`" if seen.retry_after else ""
    return f"{seen.status} {kind}{wait}"


def _attempts(outcomes: Iterable[Outcome]) -> str:
    return _counted(map(_result, outcomes))


def _result(outcome: Outcome) -> str:
    error: ErrorInfo | None = getattr(outcome, "error", None)
    if error is not None:
        return str(error.status)
    assert isinstance(outcome, RequestComplete)
    return "fallback" if outcome.provider == SPARE else "good"


def _costs(outcomes: Iterable[Outcome]) -> str:
    return _counted(map(_cost, outcomes))


def _cost(outcome: Outcome) -> str:
    if outcome.cost_nano is None:
        return "unknown"
    if not outcome.cost_nano:
        return "0"
    return f"{outcome.cost_nano:,} {outcome.usage_status}"


def _counted(texts: Iterable[str]) -> str:
    runs = [(text, len(list(same))) for text, same in groupby(texts)]
    return ", ".join(f"{count} x {text}" if count > 1 else text for text, count in runs)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(with_faults(PAGE.read_text(), matrix(Path(folder))))
