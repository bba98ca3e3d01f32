"""The key registry: a fold of the ledger's access events, in memory, without I/O.

A key is held as its encoded values, decoded when somebody asks for it: a hundred thousand of them
are a few dozen megabytes, and there is nothing for the garbage collector to walk through.
"""

import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from types import GenericAlias
from typing import Any, Literal, NamedTuple, get_type_hints

import msgspec

from ledger.access.budget_index import BudgetIndex
from ledger.access.configured import Configured
from ledger.checkpoint import digest_of
from ledger.reader import Stored
from schemas import subjects
from schemas.access import Budget, Key, Project, Secret, Team
from schemas.access_events import (
    AccessEvent,
    BudgetRemoved,
    BudgetSet,
    KeyEvent,
    ProjectRemoved,
    ProjectSet,
    TeamRemoved,
    TeamSet,
)
from schemas.call import Tenant
from schemas.event import type_of
from schemas.events import WRITERS, decode_event

log = logging.getLogger("nexus.access")

_NOTHING = Configured({}, {}, {}, {}, {})
_encode = msgspec.msgpack.Encoder().encode
_KEY_FIELDS = Key.__struct_fields__
# Without their bounds, as these were checked when the event was read: it takes half the time.
_KEY_TYPES: Any = GenericAlias(tuple, tuple(map(get_type_hints(Key).get, _KEY_FIELDS)))
_decode_values = msgspec.msgpack.Decoder(_KEY_TYPES).decode
_decode_project = msgspec.msgpack.Decoder(Project).decode
_decode_team = msgspec.msgpack.Decoder(Team).decode
_decode_budget = msgspec.msgpack.Decoder(Budget).decode


class Entry(NamedTuple):
    """One record, encoded; of a key also what it is found by, so that none has to be decoded."""

    kind: Literal["key", "project", "team", "budget"]
    id: str
    digests: tuple[bytes, ...]
    record: msgspec.Raw


class Registry:
    """Feed it the access events of the ledger in order; what is configured wins over them.

    `seq` and `digest` are those of the last event taken; `version` grows with every event, for
    whoever keeps something derived.
    """

    def __init__(self, configured: Configured = _NOTHING) -> None:
        self.configured = configured
        self.seq = 0
        self.digest = ""
        self.version = 0
        self._keys: dict[str, bytes] = {}
        self._owners: dict[bytes, str] = {}
        self._projects: dict[str, Project] = {}
        self._teams: dict[str, Team] = {}
        self._budgets = BudgetIndex(configured.budgets)

    def take(self, record: Stored) -> None:
        """Fold one record of the ledger; what is no access event of ours is logged and left."""
        event = _event_of(record)
        if event is None:
            log.warning("access event parked", extra={"seq": record.seq})
        elif isinstance(event, KeyEvent):
            self._put_key(event.record)
        elif isinstance(event, ProjectSet):
            self._projects[event.record.id] = event.record
        elif isinstance(event, ProjectRemoved):
            self._projects.pop(event.project, None)
        elif isinstance(event, TeamSet):
            self._teams[event.record.id] = event.record
        elif isinstance(event, TeamRemoved):
            self._teams.pop(event.team, None)
        elif isinstance(event, BudgetSet):
            self._budgets.put(event.record)
        elif isinstance(event, BudgetRemoved):
            self._budgets.remove(event.name)
        self.seq = record.seq
        self.digest = digest_of(record)
        self.version += 1

    def ends_with(self, record: Stored) -> bool:
        """Whether this is the last event taken. The sequence is not enough: a power cut may take
        the ledger's end, and other events take its place."""
        return record.seq == self.seq and digest_of(record) == self.digest

    def become(self, other: "Registry") -> None:
        """Hold from now on what `other` holds, which has the same configuration and must not be
        used after that."""
        self.seq = other.seq
        self.digest = other.digest
        self.version += max(1, other.version)
        self._keys = other._keys
        self._owners = other._owners
        self._projects = other._projects
        self._teams = other._teams
        self._budgets = other._budgets

    def entries(self) -> Iterator[Entry]:
        """All that was folded up to now, each record once, however slowly it is read; `restore` of
        every one of them brings it back."""
        return _entries(
            self._keys.copy(),
            self._projects.copy(),
            self._teams.copy(),
            self._budgets.recorded.copy(),
        )

    def restore(self, entry: Entry) -> None:
        """Put back one record. Raises msgspec.DecodeError."""
        if entry.kind == "key":
            self._keys[entry.id] = bytes(entry.record)
            for digest in entry.digests:
                self._owners[digest] = entry.id
        elif entry.kind == "project":
            self._projects[entry.id] = _decode_project(entry.record)
        elif entry.kind == "team":
            self._teams[entry.id] = _decode_team(entry.record)
        else:
            self._budgets.put(_decode_budget(entry.record))

    def owner(self, digest: bytes) -> tuple[Key, Secret] | None:
        """The key that a secret's digest belongs to, whether or not it is still good."""
        key_id = self._owners.get(digest)
        if key_id is None:
            return None
        key = _decode_key(self._keys[key_id])
        return key, next(secret for secret in key.secrets if secret.digest == digest)

    def key(self, key_id: str) -> Key | None:
        """A key by its id, configured or made at run time."""
        configured = self.configured.keys.get(key_id)
        if configured is not None:
            return configured
        record = self._keys.get(key_id)
        return None if record is None else _decode_key(record)

    def keys(self, after: str = "") -> Iterator[Key]:
        """All keys, or those behind the one of an id: the configured ones, then the others in the
        order of their making.

        May be read slowly: what is made meanwhile may be missing.
        """
        ids = [
            *self.configured.keys,
            *(one for one in self._keys if one not in self.configured.keys),
        ]
        for key_id in islice(ids, ids.index(after) + 1 if after else 0, None):
            key = self.key(key_id)
            if key is not None:
                yield key

    @property
    def key_count(self) -> int:
        return len(self._keys.keys() | self.configured.keys.keys())

    def project(self, project_id: str) -> Project | None:
        return self.configured.projects.get(project_id) or self._projects.get(project_id)

    def team(self, team_id: str) -> Team | None:
        return self.configured.teams.get(team_id) or self._teams.get(team_id)

    @property
    def projects(self) -> Mapping[str, Project]:
        """By id; only those that somebody has set up."""
        return {**self._projects, **self.configured.projects}

    @property
    def teams(self) -> Mapping[str, Team]:
        """By id."""
        return {**self._teams, **self.configured.teams}

    @property
    def budgets(self) -> Mapping[str, Budget]:
        """By name."""
        return {**self._budgets.recorded, **self.configured.budgets}

    def budgets_of(self, scope: str, id: str) -> list[Budget]:
        """The budgets of one scope: one per period at most."""
        return list(self._budgets.of(scope, id))

    def budget_named(self, name: str) -> Budget | None:
        """A budget by its name; `user:ana:month` is `user:*:month` for that one user where it has
        no record of its own."""
        return self._budgets.resolve(name)

    def has_budget(self, name: str) -> bool:
        """Whether a budget of this very name is recorded."""
        return self._budgets.get(name) is not None

    def budgets_for(self, tenant: Tenant) -> tuple[Budget, ...]:
        """All budgets that a call of this tenant is charged to: the global ones, then those of its
        team, project, user and key, by `*` where an id has none of its own for a period."""
        return self._budgets.of_tenant(tenant)

    def _put_key(self, key: Key) -> None:
        """A key that was revoked stays so, whatever is said of it later."""
        before = self._keys.get(key.id)
        if before is not None:
            old = _decode_key(before)
            if old.revoked_at is not None:
                return
            for secret in old.secrets:
                self._owners.pop(secret.digest, None)
        self._keys[key.id] = _encode_key(key)
        for secret in key.secrets:
            self._owners[secret.digest] = key.id


def _entries(
    keys: Mapping[str, bytes],
    projects: Mapping[str, Project],
    teams: Mapping[str, Team],
    budgets: Mapping[str, Budget],
) -> Iterator[Entry]:
    for key_id, record in keys.items():
        digests = tuple(secret.digest for secret in _decode_key(record).secrets)
        yield Entry("key", key_id, digests, msgspec.Raw(record))
    for id, project in projects.items():
        yield Entry("project", id, (), msgspec.Raw(_encode(project)))
    for id, team in teams.items():
        yield Entry("team", id, (), msgspec.Raw(_encode(team)))
    for name, budget in budgets.items():
        yield Entry("budget", name, (), msgspec.Raw(_encode(budget)))


def _encode_key(key: Key) -> bytes:
    """Copied, as the encoder's own bytes keep the room they were made in."""
    return bytes(memoryview(_encode(msgspec.structs.astuple(key))))


def _decode_key(record: bytes) -> Key:
    return Key(**dict(zip(_KEY_FIELDS, _decode_values(record), strict=True)))


def _event_of(record: Stored) -> AccessEvent | None:
    try:
        role, event_type = subjects.ledger_parts(record.subject)
        event = decode_event(record.data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if event is None or type_of(event) != event_type:
        return None
    if event_type not in WRITERS.get(role, frozenset()) or not isinstance(event, AccessEvent):
        return None
    return event
