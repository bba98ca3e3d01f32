"""How rows and events look in a terminal."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import msgspec

from compose.client import Answer, LedgerEvent
from schemas.money import format_usd

_WIDEST = 60


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
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    numeric = [_is_number(name) for name in answer.types]
    rule = "  ".join("-" * width for width in widths)
    lines = [_line(header, widths, numeric), rule]
    lines += [_line(row, widths, numeric) for row in cells]
    count = len(answer.rows)
    lines.append(f"({count} row{'' if count == 1 else 's'}, ledger sequence {answer.as_of_seq})")
    return "\n".join(lines) + "\n"


def _line(cells: list[str], widths: list[int], numeric: list[bool]) -> str:
    padded = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _is_number(type_name: str) -> bool:
    inner = type_name.removeprefix("Nullable(").removeprefix("LowCardinality(")
    return inner.startswith(("Int", "UInt", "Float", "Decimal"))


def _cell(value: Any) -> str:
    text = "NULL" if value is None else printable(_text(value))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def event(one: LedgerEvent) -> str:
    """`time  type  model  what came of it` in one line."""
    fields = one.fields
    parts = (
        str(fields.get("time", ""))[11:23],
        f"{one.type:<24}",
        f"{fields.get('model', ''):<20}",
        _outcome(fields),
    )
    return printable("  ".join(parts).rstrip())


def _outcome(fields: Mapping[str, Any]) -> str:
    """What it cost, how long it took and what went wrong, as far as the event says."""
    told: list[str] = []
    if fields.get("provider"):
        told.append(str(fields["provider"]))
    if fields.get("latency_ms") is not None:
        told.append(f"{fields['latency_ms']:.0f} ms")
    if fields.get("cost_nano") is not None:
        told.append(f"${format_usd(fields['cost_nano'])}")
    error = fields.get("error")
    if isinstance(error, Mapping):
        told.append(f"{error.get('status')} {error.get('message')}")
    return "  ".join(told)


def printable(text: str) -> str:
    """Text that cannot steer a terminal: what clients send may hold escape sequences."""
    return "".join(char if char.isprintable() else "�" for char in text)
