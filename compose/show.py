"""How rows and events look in a terminal."""

import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from compose.client import Answer, LedgerEvent
from schemas.access import budget_name
from schemas.money import format_usd

_WIDEST = 60
# Wide enough for a day, 2027-01-01.
_NARROWEST = 11
_GAP = "  "


def rows(answer: Answer, form: str) -> str:
    """Rows as `table`, `csv` (with a header line) or `json` (the whole answer); ends a line."""
    if form == "json":
        return msgspec.json.encode(answer).decode() + "\n"
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(answer.columns)
        writer.writerows([["" if v is None else _text(v) for v in row] for row in answer.rows])
        return out.getvalue()
    return _table(answer)


def _table(answer: Answer) -> str:
    cells = [[_cell(value) for value in row] for row in answer.rows]
    header = [_cell(name) for name in answer.columns]
    count = len(answer.rows)
    end = f"({count} row{'' if count == 1 else 's'}, ledger sequence {answer.as_of_seq})"
    return _grid(header, cells, [_is_number(name) for name in answer.types]) + end + "\n"


def table(
    header: Sequence[str],
    cells: Sequence[Sequence[str]],
    room: int | None,
    spare: Sequence[str] = (),
) -> str:
    """A table of at most `room` letters (None: any) in which the first column is never cut.

    Columns in which nothing stands are left out, and where there is too little room the `spare`
    ones, one by one. Ends a line.
    """
    kept = [place for place in range(len(header)) if any(row[place] for row in cells)]
    while True:
        titles = [header[place] for place in kept]
        shown = [[printable(row[place]) for place in kept] for row in cells]
        widths = _narrowed(_widths(titles, shown), room)
        spared = [place for place in kept if header[place] in spare]
        if not spared or _fits(widths, room):
            break
        kept.remove(min(spared, key=lambda place: spare.index(header[place])))
    cut = [
        [_cut(cell, width) for cell, width in zip(row, widths, strict=True)]
        for row in (titles, *shown)
    ]
    return _grid(cut[0], cut[1:], [False] * len(kept))


def record(fields: Mapping[str, str]) -> str:
    """`name  value` in lines, without those that have no value."""
    told = {name: printable(value) for name, value in fields.items() if value}
    width = max(map(len, told), default=0)
    return "".join(f"{name.ljust(width)}  {value}\n" for name, value in told.items())


def _grid(header: list[str], cells: list[list[str]], right: list[bool]) -> str:
    widths = _widths(header, cells)
    rule = _GAP.join("-" * width for width in widths)
    lines = [_line(header, widths, right), rule]
    lines += [_line(row, widths, right) for row in cells]
    return "\n".join(lines) + "\n"


def _widths(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(header, *cells, strict=True)]


def _narrowed(widths: list[int], room: int | None) -> list[int]:
    """The widest columns give way first, down to a width that still says something."""
    widths = list(widths)
    while not _fits(widths, room):
        widest = max(widths[1:], default=0)
        if widest <= _NARROWEST:
            break
        widths[widths.index(widest, 1)] -= 1
    return widths


def _fits(widths: Sequence[int], room: int | None) -> bool:
    return room is None or sum(widths) + len(_GAP) * (len(widths) - 1) <= room


def _line(cells: list[str], widths: list[int], numeric: list[bool]) -> str:
    padded = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    ]
    return _GAP.join(padded).rstrip()


def _is_number(type_name: str) -> bool:
    inner = type_name.removeprefix("Nullable(").removeprefix("LowCardinality(")
    return inner.startswith(("Int", "UInt", "Float", "Decimal"))


def _cell(value: Any) -> str:
    text = "NULL" if value is None else printable(_text(value))
    return _cut(text, _WIDEST)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def curl(url: str, credential: str, model: str | None) -> str:
    """A line to paste that asks a model a first question; without a model, which there are.

    `credential` is the header with it as one word of a shell, which may say where to look.
    """
    start = f"curl {shlex.quote(url + '/v1')}"
    if model is None:
        return f"{start}/models -H {credential}"
    question = {"model": model, "messages": [{"role": "user", "content": "Say hello"}]}
    kind = "-H 'Content-Type: application/json'"
    return f"{start}/chat/completions -H {credential} {kind} -d {shlex.quote(json.dumps(question))}"


def event(one: LedgerEvent) -> str:
    """`time  type  model  what came of it` in one line; of budgets, and of changes of who may call,
    which it is in place of the model."""
    fields = one.fields
    is_change = one.type.startswith("access.")
    about = _changed(fields) if is_change else fields.get("budget") or fields.get("model", "")
    parts = (
        str(fields.get("time", ""))[11:23],
        f"{one.type:<24}",
        f"{about:<20}",
        _outcome(fields),
    )
    return printable("  ".join(parts).rstrip())


def _changed(fields: Mapping[str, Any]) -> str:
    """The key, project, team or budget that an access event is about."""
    record = fields.get("record") or {}
    if "period" in record:
        return budget_name(record["scope"], record.get("id", ""), record["period"])
    removed = fields.get("name") or fields.get("project") or fields.get("team")
    return str(record.get("id") or removed or "")


def _outcome(fields: Mapping[str, Any]) -> str:
    """What it cost, how long it took and what went wrong, as far as the event says."""
    told: list[str] = []
    if fields.get("by"):
        told.append(f"by {fields['by']}")
    if fields.get("provider"):
        told.append(str(fields["provider"]))
    if fields.get("latency_ms") is not None:
        told.append(f"{fields['latency_ms']:.0f} ms")
    if fields.get("cost_nano") is not None:
        told.append(f"${format_usd(fields['cost_nano'])}")
    told += _money(fields)
    error = fields.get("error")
    if isinstance(error, Mapping):
        told.append(f"{error.get('status')} {error.get('message')}")
    return "  ".join(told)


def _money(fields: Mapping[str, Any]) -> Iterator[str]:
    """How a budget stood that warns or refuses, and the threshold that a cost has passed."""
    if "account" in fields:
        spent = f"${format_usd(fields.get('spent_nano', 0))} spent"
        held = f", ${format_usd(fields['held_nano'])} held" if fields.get("held_nano") else ""
        yield f"{spent}{held} of ${format_usd(fields.get('limit_nano', 0))}"
    if fields.get("needed_nano"):
        yield f"${format_usd(fields['needed_nano'])} needed"
    if fields.get("refused", 1) > 1:
        yield f"{fields['refused']} calls refused"
    if fields.get("current_cost") is not None:
        yield f"${fields['current_cost']:g}, more than ${fields.get('threshold', 0):g}"


def printable(text: str) -> str:
    """Text that cannot steer a terminal: what clients send may hold escape sequences."""
    return "".join(char if char.isprintable() else "�" for char in text)
