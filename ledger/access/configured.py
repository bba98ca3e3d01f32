"""The records that the configuration declares: they stand beside those of the ledger and win.

They are the same in every process that reads the same configuration; the API shows them and does
not change them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from schemas.access import (
    Budget,
    BudgetScope,
    BudgetTerms,
    Key,
    KeySettings,
    Limits,
    Project,
    ProjectSettings,
    Team,
    TeamSettings,
    budget_of,
    recorded,
)
from schemas.config import BudgetConfig, Config, KeyPolicy


class Configured(NamedTuple):
    """Records by id, budgets by name; `opens` has the key's id by each configured secret."""

    keys: Mapping[str, Key]
    opens: Mapping[str, str]
    projects: Mapping[str, Project]
    teams: Mapping[str, Team]
    budgets: Mapping[str, Budget]


def configured(config: Config) -> Configured:
    """What the configuration says of who may call."""
    keys: dict[str, Key] = {}
    opens: dict[str, str] = {}
    for secret in config.api_keys:
        key_id = id_of(secret)
        opens[secret] = key_id
        keys[key_id] = _with_policy(Key(id=key_id), config.key_policies.get(key_id))
    for key_id, entry in config.keys.items():
        opens[entry.key] = key_id
        keys[key_id] = Key(id=key_id, **recorded(entry, KeySettings.__struct_fields__))
    projects = {
        id: Project(id=id, **recorded(entry, ProjectSettings.__struct_fields__))
        for id, entry in config.projects.items()
    }
    teams = {
        id: Team(id=id, **recorded(entry, TeamSettings.__struct_fields__))
        for id, entry in config.teams.items()
    }
    budgets = [*_of_gateway(config.budget)]
    budgets += [budget_of(entry.scope, entry.id, entry, 0) for entry in config.budgets]
    budgets += _budgets("key", {id: entry.budgets for id, entry in config.keys.items()})
    budgets += _budgets("project", {id: entry.budgets for id, entry in config.projects.items()})
    budgets += _budgets("team", {id: entry.budgets for id, entry in config.teams.items()})
    timeless = (
        msgspec.structs.replace(budget, created_at=None, updated_at=None) for budget in budgets
    )
    return Configured(keys, opens, projects, teams, {budget.name: budget for budget in timeless})


def id_of(secret: str) -> str:
    """The id of a configured key that has no name: from its digest, so that it stays the same."""
    return f"key_{hashlib.sha256(secret.encode()).hexdigest()[:12]}"


def _with_policy(key: Key, policy: KeyPolicy | None) -> Key:
    if policy is None:
        return key
    limits = Limits(requests_per_minute=policy.rate_limit_per_minute)
    return msgspec.structs.replace(
        key,
        allowed_models=policy.allowed_models,
        limits=limits if policy.rate_limit_per_minute else None,
    )


def _of_gateway(config: BudgetConfig) -> Iterable[Budget]:
    """The budget of the whole gateway, `global:day`."""
    if config.daily_limit_usd is not None:
        terms = BudgetTerms(
            period="day",
            limit_usd=config.daily_limit_usd,
            hard_stop=config.hard_stop,
            warning_threshold=config.warning_threshold,
        )
        yield budget_of("global", "", terms, 0)


def _budgets(scope: BudgetScope, terms: Mapping[str, Iterable[BudgetTerms]]) -> Iterable[Budget]:
    return [budget_of(scope, id, one, 0) for id, several in terms.items() for one in several]
