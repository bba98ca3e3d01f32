"""Events as they were once written, decoded for ever: the ledger is never rewritten.

A file of `tests/golden/events` is never edited. A new event type, and a new field of an old one,
comes with a further file that shows it (`<event type>.<what is new>.json`).
"""

import json
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest

from analytics.rows import Record, row_of
from ledger.checkpoint import Checkpoint
from ledger.fold import Fold
from ledger.reader import Stored
from schemas import subjects
from schemas.access import Budget, Key, Project, Team
from schemas.access_events import AccessEvent
from schemas.event import Event, type_of
from schemas.events import KNOWN_TYPES, WRITERS, decode_event, encode_event

FILES = sorted((Path(__file__).parents[1] / "golden" / "events").glob("*.json"))
golden = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
REQUIRED = {"event_id": "1", "time": "2026-11-21T02:37:55.564141Z", "v": 1}
SMALLEST = {
    Key: {"id": "key_1"},
    Project: {"id": "p"},
    Team: {"id": "t"},
    Budget: {"scope": "global", "period": "day", "limit_nano": 1},
}


def written(file: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(file.read_bytes())
    return fields


def required_of(name: str) -> dict[str, Any]:
    """What cannot be left out of an event of that type: of a change, what the record is now."""
    fields = {f.encode_name: f for f in msgspec.structs.fields(KNOWN_TYPES[name])}
    record = fields.get("record")
    return REQUIRED if record is None else {**REQUIRED, "record": SMALLEST[record.type]}


def struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """The Struct in a field's type such as `Usage | None` or `tuple[Secret, ...]`."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType, tuple) else (kind,)
    found = [one for one in kinds if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    return found[0] if found else None


def fields_of(kind: type[msgspec.Struct]) -> set[str]:
    """The names of all fields, those of a Struct inside as `usage.input`."""
    names = set()
    for field in msgspec.structs.fields(kind):
        inner = struct_in(field.type)
        names |= {f"{field.encode_name}.{name}" for name in fields_of(inner)} if inner else set()
        names.add(field.encode_name)
    return names


def names_in(fields: dict[str, Any]) -> set[str]:
    names = set(fields)
    for name, value in fields.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                names |= {f"{name}.{inner}" for inner in names_in(part)}
    return names


@golden
def test_an_event_of_the_past_is_decoded_and_nothing_of_it_is_lost(file: Path) -> None:
    event = decode_event(file.read_bytes())
    assert event is not None
    assert type_of(event) == written(file)["event_type"]
    assert json.loads(encode_event(event)) == written(file)
    assert type(event) is KNOWN_TYPES[type_of(event)]


@golden
def test_every_reader_of_the_ledger_takes_it(file: Path) -> None:
    """The projection has a row for it, and the governor counts it."""
    fields, data = written(file), file.read_bytes()
    name = fields["event_type"]
    role = next(role for role, types in WRITERS.items() if name in types)
    subject = subjects.ledger(role, fields.get("project", ""), name)
    row = row_of(Record(7, subject, 0, data))
    assert (row["parked"], row["event_type"]) == ("", name)
    for column in ("key_id", "project", "team", "user", "call_id"):
        assert row[column] == fields.get(column, "")
    fold = Fold(Checkpoint())
    fold.take(Stored(7, subject, data))
    assert fold.telemetry.events.values == {(name,): 1}
    if name.startswith("access."):
        assert not fold.telemetry.requests.values
        assert not len(fold.open_calls)


@golden
def test_a_file_is_named_after_its_event(file: Path) -> None:
    assert file.stem.startswith(written(file)["event_type"])


@pytest.mark.parametrize("name", KNOWN_TYPES)
def test_every_field_of_every_event_type_is_in_a_golden_file(name: str) -> None:
    shown = [names_in(written(file)) for file in FILES if written(file)["event_type"] == name]
    assert shown, f"write tests/golden/events/{name}.json"
    kind = KNOWN_TYPES[name]
    missing = fields_of(kind) - set.union(*shown)
    if issubclass(kind, AccessEvent):
        # Whose a change is depends on what it is of; it is of no call.
        missing -= set(Event.__struct_fields__)
    assert not missing, f"show {missing} in a further file tests/golden/events/{name}.*.json"


@pytest.mark.parametrize("name", KNOWN_TYPES)
def test_an_event_needs_no_more_than_id_time_version_and_record(name: str) -> None:
    """What has no default could not have been in an event that is older than it."""
    required = required_of(name)
    event = decode_event(json.dumps({"event_type": name, **required}).encode())
    assert type(event) is KNOWN_TYPES[name]
    assert json.loads(encode_event(event)) == {"event_type": name, **required}


@golden
def test_fields_of_the_future_are_passed_over(file: Path) -> None:
    later = {**written(file), "shade": "blue", "nested": {"a": [1]}, "v": 7}
    if "record" in later:
        later["record"] = {**later["record"], "shade": "blue", "nested": {"a": [1]}}
    event = decode_event(json.dumps(later).encode())
    assert isinstance(event, Event) and event.v == 7


@pytest.mark.parametrize("name", ["model.request.dreamt", "model.budget.warning.2", "x", ""])
def test_an_event_type_of_the_future_is_left_to_be_parked(name: str) -> None:
    assert name not in KNOWN_TYPES
    assert decode_event(json.dumps({"event_type": name, **REQUIRED}).encode()) is None


@golden
@pytest.mark.parametrize("damage", [{"v": "one"}, {"time": None}, {"call_id": 5}])
def test_a_damaged_event_of_a_known_type_is_an_error(file: Path, damage: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_event(json.dumps({**written(file), **damage}).encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"5", b'{"event_type":1}', b"\xff"])
def test_what_is_no_event_is_an_error(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_event(data)


def test_every_event_type_has_a_role_that_may_write_it() -> None:
    assert set().union(*WRITERS.values()) == KNOWN_TYPES.keys()
