"""`/admin/projects`: what holds for all keys of a project."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from ingress.admin import bodies, checks
from ingress.admin.bodies import GivenId
from ingress.admin.budget_events import Budgets, begin_budgets
from ingress.admin.desk import Author, Desk, Page, Removed, already_there, declared, missing
from ingress.admin.views import ProjectView, project_view
from ingress.openapi import described
from ledger.access.registry import Registry
from schemas.access import Project, ProjectSettings
from schemas.access_events import ProjectRemoved, ProjectSet


class NewProject(ProjectSettings, frozen=True, kw_only=True):
    """A project to be set up, with budgets of its own."""

    id: GivenId
    budgets: Budgets = ()


def routes(desk: Desk) -> APIRouter:
    """`/admin/projects`."""
    api = APIRouter(prefix="/projects")
    admin = Depends(desk.admit)

    @api.post("", **described("create_project", ProjectView, status=201, body=NewProject))
    async def create(request: Request, author: Author = admin) -> Response:
        """Set up a project. Keys may name it before and without that."""
        new = bodies.decode(await desk.body(request), NewProject)
        checks.one_per_period(new.budgets)
        chosen = checks.settings(bodies.fields_of(new, ProjectSettings), desk.config, author.now())
        _vacant(desk.registry, new.id)
        await begin_budgets(desk, "project", new.id, new.budgets, author)
        make = partial(project_created, id=new.id, settings=chosen, author=author)
        event = await desk.change(new.id, make)
        return desk.answer(await _view(desk, event.record), status=201)

    @api.get("", **described("list_projects", Page[ProjectView]))
    async def show_all() -> Response:
        """All projects that somebody has set up."""
        seq, projects = desk.registry.seq, desk.registry.projects
        budgets = await desk.budgets_of("project", *projects)
        configured = desk.registry.configured
        views = [project_view(one, budgets[one.id], configured) for one in projects.values()]
        return desk.answer_list(views, seq)

    @api.get("/{id:path}", **described("get_project", ProjectView, errors=(404,)))
    async def show(id: str) -> Response:
        """One project."""
        return desk.answer(await _view(desk, found(desk.registry, id)))

    @api.patch(
        "/{id:path}",
        **described("update_project", ProjectView, body=ProjectSettings, errors=(404,)),
    )
    async def update(id: str, request: Request, author: Author = admin) -> Response:
        """Change what is given and leave the rest; null goes back to the default."""
        given = bodies.given(await desk.body(request), ProjectSettings)
        project = changeable(desk.registry, id)
        fields = checks.settings(given, desk.config, author.now())
        if fields:
            decide = partial(project_updated, id=id, fields=fields, author=author)
            project = (await desk.change(id, decide)).record
        return desk.answer(await _view(desk, project))

    @api.delete("/{id:path}", **described("delete_project", Removed, errors=(404,)))
    async def remove(id: str, author: Author = admin) -> Response:
        """Forget a project that no active key is bound to. Its budgets stay."""
        changeable(desk.registry, id)
        await checks.unused(
            desk.registry, "project", id, author.now(), lambda key: key.project == id
        )
        await desk.change(id, partial(project_removed, id=id, author=author))
        return desk.answer(Removed("project", id, True))

    return api


def project_created(
    registry: Registry, id: str, settings: Mapping[str, Any], author: Author
) -> ProjectSet:
    """A project as it begins. Raises InvalidRequest where there is one."""
    _vacant(registry, id)
    now = author.now()
    project = Project(**settings, id=id, created_at=now, updated_at=now)
    return ProjectSet(**author.signs(), project=id, record=project)


def project_updated(
    registry: Registry, id: str, fields: Mapping[str, Any], author: Author
) -> ProjectSet:
    """The project with some of its settings changed. Raises NotFound, InvalidRequest."""
    project = changeable(registry, id)
    changed = msgspec.structs.replace(project, **fields, updated_at=author.now())
    return ProjectSet(**author.signs(), project=id, record=changed)


def project_removed(registry: Registry, id: str, author: Author) -> ProjectRemoved:
    """The end of the project's settings. Raises NotFound, InvalidRequest."""
    changeable(registry, id)
    return ProjectRemoved(**author.signs(), project=id)


def found(registry: Registry, id: str) -> Project:
    """The project, configured or not. Raises NotFound."""
    project = registry.project(id)
    if project is None:
        raise missing("project", id)
    return project


def changeable(registry: Registry, id: str) -> Project:
    """The project, if it can be changed here. Raises NotFound, InvalidRequest."""
    project = found(registry, id)
    if id in registry.configured.projects:
        raise declared("project", id)
    return project


def _vacant(registry: Registry, id: str) -> None:
    if id in registry.configured.projects:
        raise declared("project", id)
    if registry.project(id) is not None:
        raise already_there("project", id)


async def _view(desk: Desk, project: Project) -> ProjectView:
    budgets = await desk.budgets_of("project", project.id)
    return project_view(project, budgets[project.id], desk.registry.configured)
