"""The key registry: a fold of the ledger's access events, in memory, without I/O.

A key is held as its encoded record, decoded when somebody asks for it: a hundred thousand of them
are a few dozen megabytes, and there is nothing for the garbage collector to walk through.
"""

import logging
from collections.abc import Iterator, Mapping

import msgspec

from ledger.access.configured import Configured
from ledger.reader import Stored
from schemas import subjects
from schemas.access import Budget, Key, Project, Secret, Team
from schemas.events import (
    WRITERS,
    AccessEvent,
    BudgetRemoved,
    BudgetSet,
    KeyEvent,
    ProjectRemoved,
    ProjectSet,
    TeamRemoved,
    TeamSet,
    decode_event,
    type_of,
)

log = logging.getLogger("nexus.access")

_NOTHING = Configured({}, {}, {}, {}, {})
_encode_key = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder(Key).decode


class Registry:
    """Feed it the access events of the ledger in order; what is configured wins over them.

    `seq` is the last sequence taken, `version` grows with every change, for whoever keeps something
    derived.
    """

    def __init__(self, configured: Configured = _NOTHING) -> None:
        self.configured = configured
        self.seq = 0
        self.version = 0
        self._keys: dict[str, bytes] = {}
        self._owners: dict[bytes, str] = {}
        self._projects: dict[str, Project] = {}
        self._teams: dict[str, Team] = {}
        self._budgets: dict[str, Budget] = {}

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
            self._budgets[event.record.name] = event.record
        elif isinstance(event, BudgetRemoved):
            self._budgets.pop(event.name, None)
        self.seq = record.seq
        self.version += 1

    def become(self, other: "Registry") -> None:
        """Hold from now on what `other` holds, which must not be used after that."""
        self.configured = other.configured
        self.seq = other.seq
        self.version += 1
        self._keys = other._keys
        self._owners = other._owners
        self._projects = other._projects
        self._teams = other._teams
        self._budgets = other._budgets

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

    def keys(self) -> Iterator[Key]:
        """All keys: the configured ones, then the others in the order of their making.

        May be read slowly: what is made meanwhile may be missing.
        """
        yield from self.configured.keys.values()
        for key_id in tuple(self._keys):
            record = self._keys.get(key_id)
            if record is not None and key_id not in self.configured.keys:
                yield _decode_key(record)

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
        return {**self._budgets, **self.configured.budgets}

    def budgets_of(self, scope: str, id: str) -> list[Budget]:
        """The budgets of one scope."""
        return [one for one in self.budgets.values() if (one.scope, one.id) == (scope, id)]

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
