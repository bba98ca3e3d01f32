"""Events of who may call: written by an ingress for an administrator, folded by every ingress."""

from schemas.access import Budget, Key, Project, Team
from schemas.event import Event


class AccessEvent(Event, frozen=True):
    """A change of who may call. Those events carry the whole new record, so that the newest one
    says all; `by` is the key id of who made the change."""

    by: str = ""


class KeyEvent(AccessEvent, frozen=True, kw_only=True):
    """A virtual key after a change; the tenant fields are the key's own."""

    record: Key


class KeyCreated(KeyEvent, frozen=True, tag="access.key.created"):
    """A key was made."""


class KeyUpdated(KeyEvent, frozen=True, tag="access.key.updated"):
    """Its settings were changed."""


class KeyRotated(KeyEvent, frozen=True, tag="access.key.rotated"):
    """It has a new secret; the old ones end after their grace."""


class KeyRevoked(KeyEvent, frozen=True, tag="access.key.revoked"):
    """It opens nothing any more, for ever."""


class ProjectSet(AccessEvent, frozen=True, kw_only=True, tag="access.project.set"):
    """A project was set up or changed."""

    record: Project


class ProjectRemoved(AccessEvent, frozen=True, tag="access.project.removed"):
    """A project's settings are gone; `project` names it."""


class TeamSet(AccessEvent, frozen=True, kw_only=True, tag="access.team.set"):
    """A team was set up or changed."""

    record: Team


class TeamRemoved(AccessEvent, frozen=True, tag="access.team.removed"):
    """A team's settings are gone; `team` names it."""


class BudgetSet(AccessEvent, frozen=True, kw_only=True, tag="access.budget.set"):
    """A budget was set up or changed."""

    record: Budget


class BudgetRemoved(AccessEvent, frozen=True, tag="access.budget.removed"):
    """A budget is gone; `name` is that of its record."""

    name: str = ""
