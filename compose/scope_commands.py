"""`nexus projects`, `teams` and `budget`: what holds for many keys at once."""

from typing import Any

import click

from compose import access_options as options
from compose import admin, arguments
from compose.arguments import read_by
from compose.commands import Commands

_BUDGET_EXAMPLES = """\
  nexus budget set global month 1000
  nexus budget set project:shop day 25 --warn 0.9
  nexus budget set user:ana@example.com month 50 --soft
  nexus budget list --scope project
  nexus budget remove project:shop:day
"""


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


@click.group(cls=Commands, examples=_BUDGET_EXAMPLES)
def budget() -> None:
    """Set what may be spent, by whom."""


@budget.command("set")
@click.argument("scope", metavar="SCOPE[:ID]", callback=read_by(arguments.budget_scope))
@click.argument("period", type=click.Choice(arguments.PERIODS))
@click.argument("limit_usd", callback=read_by(arguments.dollars))
@click.option("--soft", is_flag=True, help="Warn only, and let calls go on when it is spent.")
@click.option("--warn", type=click.FloatRange(0, 1), metavar="SHARE",
              help="The share of it that is warned at [0.8].")  # fmt: skip
@options.as_json
def set_budget(
    scope: tuple[str, str],
    period: str,
    limit_usd: float,
    soft: bool,
    warn: float | None,
    as_json: bool,
) -> None:
    """Set a budget in US dollars.

    SCOPE is global, team:ID, project:ID, user:ID or key:ID. There is one budget for each scope, id
    and period; setting it again replaces it.
    """
    kind, whose = scope
    terms = {"period": period, "limit_usd": limit_usd, "hard_stop": not soft}
    body = {"scope": kind, "id": whose, **terms, **options.given({"warning_threshold": warn})}
    admin.show_budget(admin.ask("POST", "budgets", body=body), as_json)


@budget.command("list")
@click.option("--scope", type=click.Choice(arguments.SCOPES), help="Only those of this scope.")
@click.option("--id", metavar="ID", help="Only those of this team, project, user or key.")
@options.as_json
def list_budgets(as_json: bool, **filters: Any) -> None:
    """List budgets."""
    from compose import admin_views as views

    wanted = options.given(filters)
    empty = "There are no budgets yet. Set one: nexus budget set global month 1000"
    if wanted:
        empty = "No budget is like that; `nexus budget list` shows all."
    page = views.Page[views.Budget]
    admin.show_list("budgets", page, views.budgets, wanted, empty=empty, as_json=as_json)


@budget.command("show")
@click.argument("name", callback=read_by(arguments.id))
@options.as_json
def show_budget(name: str, as_json: bool) -> None:
    """Show a budget, such as project:shop:month."""
    admin.show_budget(admin.ask("GET", "budgets", name), as_json)


@budget.command("remove")
@click.argument("name", callback=read_by(arguments.id))
@options.as_json
def remove_budget(name: str, as_json: bool) -> None:
    """Remove a budget, such as project:shop:month."""
    admin.show_done(admin.ask("DELETE", "budgets", name), f"Budget {name} is gone.", as_json)
