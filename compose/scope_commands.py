"""`nexus projects` and `nexus teams`: what holds for many keys at once."""

from typing import Any

import click

from compose import access_options as options
from compose import admin
from compose.commands import Commands


def _scope_commands(one: str, names: tuple[str, ...], summary: str, example: str) -> click.Group:
    """The commands of `projects` or `teams`, which are alike; `names` are their settings."""
    several = f"{one}s"
    examples = (
        f"  nexus {several} create {example}\n"
        f"  nexus {several} list\n"
        f"  nexus {several} update {example.partition(' ')[0]} --model 'gpt-4o*' --clear limit\n"
        f"  nexus {several} remove {example.partition(' ')[0]}\n"
    )

    @click.group(several, cls=Commands, examples=examples, help=summary)
    def group() -> None:
        pass

    @group.command("create", help=f"Set up a {one}.")
    @options.id_argument
    @options.settings(*names)
    @options.budgets
    @options.as_json
    def create(id: str, as_json: bool, **chosen: Any) -> None:
        admin.show_record(
            admin.ask("POST", several, body={"id": id, **options.given(chosen)}), as_json
        )

    @group.command("list", help=f"List the {several} that are set up.")
    @options.as_json
    def list_all(as_json: bool) -> None:
        from compose import admin_views as views

        empty = f"No {one} is set up yet. Set one up: nexus {several} create {example}"
        page = views.Page[views.Record]
        admin.show_list(several, page, views.scopes, {}, empty=empty, as_json=as_json)

    @group.command("show", help=f"Show all that is set of a {one}.")
    @options.id_argument
    @options.as_json
    def show(id: str, as_json: bool) -> None:
        admin.show_record(admin.ask("GET", several, id), as_json)

    @group.command(
        "update",
        help=f"Change what is set of a {one}.\n\nWhat is given replaces what was set by the same"
        " option, all of it; the rest stays. Budgets are changed by `nexus budget`.",
    )
    @options.id_argument
    @options.changes(*names)
    @options.as_json
    def update(id: str, clear: tuple[str, ...], as_json: bool, **chosen: Any) -> None:
        admin.show_record(
            admin.ask("PATCH", several, id, body=options.changed(chosen, clear)), as_json
        )

    @group.command(
        "remove", help=f"Forget what is set of a {one}.\n\nRefused while active keys belong to it."
    )
    @options.id_argument
    @options.as_json
    def remove(id: str, as_json: bool) -> None:
        done = f"What was set of the {one} {id} is forgotten."
        admin.show_done(admin.ask("DELETE", several, id), done, as_json)

    return group


projects = _scope_commands(
    "project",
    options.OF_A_PROJECT,
    "Set what holds for all keys of a project.",
    "shop --team retail --budget month=500",
)
teams = _scope_commands(
    "team",
    options.OF_A_TEAM,
    "Set what holds for all projects of a team.",
    "retail --budget month=2000",
)
