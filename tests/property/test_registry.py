"""The registry equals the newest record of each id, whatever happened and wherever it was cut."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ledger.access.configured import configured
from ledger.access.registry import Entry, Registry
from schemas.access import Budget, Key, Limits, Project, Secret, Team
from schemas.config import Config, KeyConfig, ProjectConfig
from schemas.event import Event, type_of
from tests import sample_events as sample
from tests.sample_events import digest_of_text

IDS = ("a", "b", "c")
TEXTS = [f"secret {number}" for number in range(6)]
names = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"))
ids = st.sampled_from(IDS)
secrets = st.lists(st.integers(0, 1), max_size=2, unique=True)


@st.composite
def keys(draw: st.DrawFn) -> Key:
    """Every key has texts of its own, of which each change may name some."""
    number = draw(st.integers(0, len(IDS) - 1))
    own = [Secret(digest_of_text(TEXTS[2 * number + which]), "hint") for which in draw(secrets)]
    return sample.a_key(
        IDS[number],
        name=draw(names.filter(lambda name: len(name) < 128)),
        secrets=tuple(own),
        allowed_models=draw(st.none() | st.just(("gpt-*", "claude-3"))),
        metadata=draw(st.dictionaries(st.sampled_from(("x", "y")), st.just("1"))),
        limits=draw(st.none() | st.builds(Limits, concurrent=st.integers(1, 9))),
    )


budgets = st.builds(
    Budget,
    scope=st.sampled_from(("project", "team")),
    id=ids,
    period=st.sampled_from(("day", "total")),
    limit_nano=st.integers(0, 9),
)
events: st.SearchStrategy[Event] = st.one_of(
    keys().map(sample.key_created),
    keys().map(sample.key_updated),
    keys().map(sample.key_rotated),
    keys().map(sample.key_revoked),
    st.builds(Project, id=ids, name=st.sampled_from(IDS)).map(sample.project_set),
    ids.map(sample.project_removed),
    st.builds(Team, id=ids, name=st.sampled_from(IDS)).map(sample.team_set),
    ids.map(sample.team_removed),
    budgets.map(sample.budget_set),
    budgets.map(lambda budget: sample.budget_removed(budget.name)),
)
histories = st.lists(events, max_size=25)


def about(event: Any) -> tuple[str, str]:
    """The kind and the id of the record that an event sets or removes."""
    kind = type_of(event).split(".")[1]
    if hasattr(event, "record"):
        return kind, event.record.name if kind == "budget" else event.record.id
    return kind, event.name if kind == "budget" else getattr(event, kind)


def standing(said: Sequence[Any]) -> Any:
    """The record after all that was said of one id: a revocation is final, else the last word
    counts; None where that was a removal."""
    records = [getattr(event, "record", None) for event in said]
    revoked = [one for one in records if getattr(one, "revoked_at", None)]
    return revoked[0] if revoked else records[-1]


class Plain:
    """The same, by looking back on the whole history at once."""

    def __init__(self, history: Iterable[Event]) -> None:
        said: dict[tuple[str, str], list[Event]] = defaultdict(list)
        for event in history:
            said[about(event)].append(event)
        stand = {one: record for one, of in said.items() if (record := standing(of)) is not None}
        self.keys: dict[str, Key] = _of("key", stand)
        self.projects: dict[str, Project] = _of("project", stand)
        self.teams: dict[str, Team] = _of("team", stand)
        self.budgets: dict[str, Budget] = _of("budget", stand)

    def owner(self, digest: bytes) -> tuple[Key, Secret] | None:
        found = [
            (key, secret)
            for key in self.keys.values()
            for secret in key.secrets
            if secret.digest == digest
        ]
        return found[0] if found else None


def _of(kind: str, records: dict[tuple[str, str], Any]) -> dict[str, Any]:
    return {id: record for (one, id), record in records.items() if one == kind}


def take_all(registry: Registry, history: Sequence[Event], first_seq: int = 1) -> Registry:
    for seq, event in enumerate(history, first_seq):
        registry.take(sample.stored(seq, event))
    return registry


def all_of(registry: Registry) -> dict[str, Any]:
    return {
        "keys": list(registry.keys()),
        "owners": [registry.owner(digest_of_text(text)) for text in TEXTS],
        "projects": dict(registry.projects),
        "teams": dict(registry.teams),
        "budgets": dict(registry.budgets),
        "seq": registry.seq,
        "digest": registry.digest,
    }


def restored(registry: Registry) -> Registry:
    """What comes back from the registry's entries after they were bytes."""
    kept = msgspec.msgpack.encode(list(registry.entries()))
    again = Registry()
    for entry in msgspec.msgpack.decode(kept, type=list[Entry]):
        again.restore(entry)
    again.seq, again.digest = registry.seq, registry.digest
    return again


@given(histories)
def test_the_newest_record_of_an_id_is_the_record_and_a_revoked_key_stays_so(
    history: list[Event],
) -> None:
    registry, plain = take_all(Registry(), history), Plain(history)
    assert list(registry.keys()) == list(plain.keys.values())
    assert {id: registry.key(id) for id in plain.keys} == plain.keys
    for text in TEXTS:
        assert registry.owner(digest_of_text(text)) == plain.owner(digest_of_text(text))
    assert (registry.projects, registry.teams) == (plain.projects, plain.teams)
    assert registry.budgets == plain.budgets
    for id in IDS:
        own = [one for one in plain.budgets.values() if (one.scope, one.id) == ("team", id)]
        assert sorted(registry.budgets_of("team", id), key=repr) == sorted(own, key=repr)


@given(histories, st.data())
def test_a_snapshot_and_what_followed_is_the_whole(
    history: list[Event], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(history)))
    head = take_all(Registry(), history[:cut])
    whole = all_of(take_all(Registry(), history))
    assert all_of(take_all(restored(head), history[cut:], cut + 1)) == whole


@given(histories, histories)
def test_entries_are_those_of_the_moment_they_were_asked_for(
    history: list[Event], later: list[Event]
) -> None:
    registry = take_all(Registry(), history)
    before, entries = all_of(registry), registry.entries()
    seq, digest = registry.seq, registry.digest
    take_all(registry, later, len(history) + 1)
    again = Registry()
    for entry in entries:
        again.restore(entry)
    again.seq, again.digest = seq, digest
    assert all_of(again) == before


@given(histories)
def test_what_is_configured_wins_over_any_history(history: list[Event]) -> None:
    config = Config(
        keys={"a": KeyConfig(key="a configured secret", name="mine")},
        projects={"a": ProjectConfig(name="mine")},
    )
    known = configured(config)
    registry, plain = take_all(Registry(known), history), Plain(history)
    assert registry.key("a") == known.keys["a"]
    assert registry.project("a") == known.projects["a"]
    assert registry.projects == {**plain.projects, **known.projects}
    others = [key for key in plain.keys.values() if key.id != "a"]
    assert list(registry.keys()) == [known.keys["a"], *others]
    assert registry.key_count == 1 + len(others)
