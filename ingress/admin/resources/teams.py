"""`/admin/teams`: what holds for all projects and keys of a team."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from ingress.admin import bodies, checks
from ingress.admin.bodies import GivenId
from ingress.admin.budget_events import Budgets, begin_budgets
from ingress.admin.desk import Author, Desk, Page, Removed, already_there, declared, missing
from ingress.admin.views import TeamView, team_view
from ingress.openapi import described
from ledger.access.registry import Registry
from schemas.access import Key, Team, TeamSettings
from schemas.access_events import TeamRemoved, TeamSet


class NewTeam(TeamSettings, frozen=True, kw_only=True):
    """A team to be set up, with budgets of its own."""

    id: GivenId
    budgets: Budgets = ()


def routes(desk: Desk) -> APIRouter:
    """`/admin/teams`."""
    api = APIRouter(prefix="/teams")
    admin = Depends(desk.admit)

    @api.post("", **described("create_team", TeamView, status=201, body=NewTeam))
    async def create(request: Request, author: Author = admin) -> Response:
        """Set up a team. Keys may name it before and without that."""
        new = bodies.decode(await desk.body(request), NewTeam)
        checks.one_per_period(new.budgets)
        chosen = checks.settings(bodies.fields_of(new, TeamSettings), desk.config, author.now())
        _vacant(desk.registry, new.id)
        await begin_budgets(desk, "team", new.id, new.budgets, author)
        make = partial(team_created, id=new.id, settings=chosen, author=author)
        event = await desk.change(new.id, make)
        return desk.answer(await _view(desk, event.record), status=201)

    @api.get("", **described("list_teams", Page[TeamView]))
    async def show_all() -> Response:
        """All teams that somebody has set up."""
        seq, teams = desk.registry.seq, desk.registry.teams
        budgets = await desk.budgets_of("team", *teams)
        configured = desk.registry.configured
        views = [team_view(one, budgets[one.id], configured) for one in teams.values()]
        return desk.answer_list(views, seq)

    @api.get("/{id:path}", **described("get_team", TeamView, errors=(404,)))
    async def show(id: str) -> Response:
        """One team."""
        return desk.answer(await _view(desk, found(desk.registry, id)))

    @api.patch("/{id:path}", **described("update_team", TeamView, body=TeamSettings, errors=(404,)))
    async def update(id: str, request: Request, author: Author = admin) -> Response:
        """Change what is given and leave the rest; null goes back to the default."""
        given = bodies.given(await desk.body(request), TeamSettings)
        team = changeable(desk.registry, id)
        fields = checks.settings(given, desk.config, author.now())
        if fields:
            decide = partial(team_updated, id=id, fields=fields, author=author)
            team = (await desk.change(id, decide)).record
        return desk.answer(await _view(desk, team))

    @api.delete("/{id:path}", **described("delete_team", Removed, errors=(404,)))
    async def remove(id: str, author: Author = admin) -> Response:
        """Forget a team that no active key is bound to, by itself or by its project. Its budgets
        stay."""
        changeable(desk.registry, id)
        projects = {one.id for one in desk.registry.projects.values() if one.team == id}

        def bound(key: Key) -> bool:
            return key.team == id or (not key.team and key.project in projects)

        await checks.unused(desk.registry, "team", id, author.now(), bound)
        await desk.change(id, partial(team_removed, id=id, author=author))
        return desk.answer(Removed("team", id, True))

    return api


def team_created(
    registry: Registry, id: str, settings: Mapping[str, Any], author: Author
) -> TeamSet:
    """A team as it begins. Raises InvalidRequest where there is one."""
    _vacant(registry, id)
    now = author.now()
    team = Team(**settings, id=id, created_at=now, updated_at=now)
    return TeamSet(**author.signs(), team=id, record=team)


def team_updated(registry: Registry, id: str, fields: Mapping[str, Any], author: Author) -> TeamSet:
    """The team with some of its settings changed. Raises NotFound, InvalidRequest."""
    team = changeable(registry, id)
    changed = msgspec.structs.replace(team, **fields, updated_at=author.now())
    return TeamSet(**author.signs(), team=id, record=changed)


def team_removed(registry: Registry, id: str, author: Author) -> TeamRemoved:
    """The end of the team's settings. Raises NotFound, InvalidRequest."""
    changeable(registry, id)
    return TeamRemoved(**author.signs(), team=id)


def found(registry: Registry, id: str) -> Team:
    """The team, configured or not. Raises NotFound."""
    team = registry.team(id)
    if team is None:
        raise missing("team", id)
    return team


def changeable(registry: Registry, id: str) -> Team:
    """The team, if it can be changed here. Raises NotFound, InvalidRequest."""
    team = found(registry, id)
    if id in registry.configured.teams:
        raise declared("team", id)
    return team


def _vacant(registry: Registry, id: str) -> None:
    if id in registry.configured.teams:
        raise declared("team", id)
    if registry.team(id) is not None:
        raise already_there("team", id)


async def _view(desk: Desk, team: Team) -> TeamView:
    budgets = await desk.budgets_of("team", team.id)
    return team_view(team, budgets[team.id], desk.registry.configured)
