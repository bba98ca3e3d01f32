"""What the admin API shows of the records: every field always there, null where nothing is set."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec

from ingress.budget_standing import Bounds, Known
from ledger.access.configured import Configured
from schemas.access import (
    Budget,
    BudgetScope,
    Key,
    Limits,
    OnDisconnect,
    Payloads,
    Period,
    Project,
    Team,
)
from schemas.money import usd

Status = Literal["active", "expired", "revoked"]
Source = Literal["ledger", "configuration"]


class _View(msgspec.Struct, frozen=True, kw_only=True, tag_field="object"):
    """`object` says what it is, as in OpenAI's answers."""


class LimitsView(msgspec.Struct, frozen=True):
    """How often and how much at once; null is no limit."""

    requests_per_second: float | None
    burst: int | None
    requests_per_minute: int | None
    requests_per_hour: int | None
    tokens_per_minute: int | None
    tokens_per_hour: int | None
    concurrent: int | None


class BudgetView(_View, frozen=True, kw_only=True, tag="budget"):
    """A budget; dollars are decimal."""

    name: str
    scope: BudgetScope
    id: str | None
    period: Period
    limit_usd: float
    hard_stop: bool
    warning_threshold: float
    source: Source
    created_at: datetime | None
    updated_at: datetime | None


class BudgetAccountView(BudgetView, frozen=True, kw_only=True, tag="budget"):
    """A budget and how it stands as of a sequence of the ledger; what is spent, held and left is
    null while the governor is away. A budget for every id (`*`) is of no account itself; `record`
    names the one that stands for an id without a budget of its own, and is else `name`."""

    record: str
    spent_usd: float | None
    held_usd: float | None
    remaining_usd: float | None
    period_start: datetime | None
    period_end: datetime | None
    resets_at: datetime | None
    as_of_seq: int | None


class SecretView(msgspec.Struct, frozen=True):
    """One of the texts that open a key; `until` ends the grace of a replaced one."""

    hint: str
    until: datetime | None


class KeyView(_View, frozen=True, kw_only=True, tag="key"):
    """A virtual key, without what opens it."""

    id: str
    name: str | None
    hint: str | None
    status: Status
    source: Source
    project: str | None
    team: str | None
    user: str | None
    allowed_models: tuple[str, ...] | None
    tier: str | None
    limits: LimitsView | None
    metadata: dict[str, str]
    on_disconnect: OnDisconnect
    payloads: Payloads | None
    expires_at: datetime | None
    queue: bool
    budgets: tuple[BudgetView, ...]
    secrets: tuple[SecretView, ...]
    created_at: datetime | None
    updated_at: datetime | None
    revoked_at: datetime | None


class OpenedKeyView(KeyView, frozen=True, kw_only=True, tag="key"):
    """A virtual key with its new text, which is shown this once."""

    key: str


class ProjectView(_View, frozen=True, kw_only=True, tag="project"):
    """A project."""

    id: str
    name: str | None
    team: str | None
    allowed_models: tuple[str, ...] | None
    tier: str | None
    limits: LimitsView | None
    metadata: dict[str, str]
    payloads: Payloads | None
    budgets: tuple[BudgetView, ...]
    source: Source
    created_at: datetime | None
    updated_at: datetime | None


class TeamView(_View, frozen=True, kw_only=True, tag="team"):
    """A team."""

    id: str
    name: str | None
    allowed_models: tuple[str, ...] | None
    tier: str | None
    limits: LimitsView | None
    metadata: dict[str, str]
    budgets: tuple[BudgetView, ...]
    source: Source
    created_at: datetime | None
    updated_at: datetime | None


def status_of(key: Key, now: datetime) -> Status:
    """Revoked wins over expired."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


def key_view(key: Key, budgets: Iterable[Budget], configured: Configured, now: datetime) -> KeyView:
    """A key as it stands now; `hint` is that of its newest secret."""
    standing = [one for one in key.secrets if one.until is None or one.until > now]
    return KeyView(
        id=key.id,
        name=key.name or None,
        hint=(standing[-1].hint or None) if standing else None,
        status=status_of(key, now),
        source=_source(key.id in configured.keys),
        project=key.project or None,
        team=key.team or None,
        user=key.user or None,
        allowed_models=key.allowed_models,
        tier=key.tier or None,
        limits=_limits_view(key.limits),
        metadata=key.metadata,
        on_disconnect=key.on_disconnect,
        payloads=key.payloads,
        expires_at=key.expires_at,
        queue=key.queue,
        budgets=_budget_views(budgets, configured),
        secrets=tuple(SecretView(one.hint, one.until) for one in standing),
        created_at=key.created_at,
        updated_at=key.updated_at,
        revoked_at=key.revoked_at,
    )


def opened(view: KeyView, key: str) -> OpenedKeyView:
    """The view with the key's new text."""
    return OpenedKeyView(**msgspec.structs.asdict(view), key=key)


def project_view(
    project: Project, budgets: Iterable[Budget], configured: Configured
) -> ProjectView:
    return ProjectView(
        id=project.id,
        name=project.name or None,
        team=project.team or None,
        allowed_models=project.allowed_models,
        tier=project.tier or None,
        limits=_limits_view(project.limits),
        metadata=project.metadata,
        payloads=project.payloads,
        budgets=_budget_views(budgets, configured),
        source=_source(project.id in configured.projects),
        created_at=project.created_at,
        updated_at=project.updated_at,
    )


def team_view(team: Team, budgets: Iterable[Budget], configured: Configured) -> TeamView:
    return TeamView(
        id=team.id,
        name=team.name or None,
        allowed_models=team.allowed_models,
        tier=team.tier or None,
        limits=_limits_view(team.limits),
        metadata=team.metadata,
        budgets=_budget_views(budgets, configured),
        source=_source(team.id in configured.teams),
        created_at=team.created_at,
        updated_at=team.updated_at,
    )


def budget_view(budget: Budget, configured: Configured, record: str = "") -> BudgetView:
    """`record` is the name that it is recorded by, where that is not its own."""
    return BudgetView(
        name=budget.name,
        scope=budget.scope,
        id=budget.id or None,
        period=budget.period,
        limit_usd=usd(budget.limit_nano),
        hard_stop=budget.hard_stop,
        warning_threshold=budget.warning_threshold,
        source=_source((record or budget.name) in configured.budgets),
        created_at=budget.created_at,
        updated_at=budget.updated_at,
    )


def budget_account_view(
    budget: Budget, configured: Configured, known: Known, bounds: Bounds, record: str
) -> BudgetAccountView:
    """With what the governor knows of it, and the name of the record that says so."""
    state = known.states.get(budget.name)
    return BudgetAccountView(
        **msgspec.structs.asdict(budget_view(budget, configured, record)),
        record=record,
        **msgspec.structs.asdict(known.money(budget.name)),
        period_start=bounds.period_start,
        period_end=bounds.period_end,
        resets_at=bounds.period_end,
        as_of_seq=known.as_of_seq if state is not None else None,
    )


def _budget_views(budgets: Iterable[Budget], configured: Configured) -> tuple[BudgetView, ...]:
    return tuple(budget_view(one, configured) for one in budgets)


def _limits_view(limits: Limits | None) -> LimitsView | None:
    return LimitsView(**msgspec.structs.asdict(limits)) if limits is not None else None


def _source(configured: bool) -> Source:
    return "configuration" if configured else "ledger"
