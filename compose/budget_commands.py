"""`nexus budget`: what may be spent by whom, how that stands, and why a call was let through."""

import sys
from typing import Any, NamedTuple

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
  nexus budget stats
  nexus budget explain chatcmpl-0199aa00-0000-7000-8000-000000000000
  nexus budget reset project:shop:day                          counts from zero, at once
  nexus budget remove project:shop:day
"""


class Named(NamedTuple):
    """The name of a budget, and its parts."""

    name: str
    scope: str
    id: str
    period: str


def _named(text: str) -> Named:
    """`project:shop:month`, `global:day`."""
    whose, _, period = text.rpartition(":")
    try:
        scope, id = arguments.budget_scope(whose if period in arguments.PERIODS else "")
    except ValueError:
        raise ValueError(
            f"expected a name such as project:shop:month or global:day, got {text!r}"
        ) from None
    return Named(text, scope, id, period)


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


@budget.command("reset")
@click.argument("named", metavar="NAME", callback=read_by(_named))
@click.option("--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")
@options.as_json
def reset_budget(named: Named, yes: bool, as_json: bool) -> None:
    """Let a budget, such as project:shop:month, count from zero.

    What was spent stays in the ledger, and running calls stay on the old account.
    """
    from compose import budget_views as views

    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("a reset cannot be undone; say --yes, as nobody can be asked")
        question = views.question(admin.ask("GET", "budgets", named.name).read(views.Budget))
        click.confirm(question, abort=True, err=True)
    body = {"scope": named.scope, "id": named.id, "period": named.period}
    reply = admin.ask_gateway("POST", "budget", "reset", body=body)
    admin.show_done(reply, views.begun(named.name, reply.read(views.Scope)), as_json)


@budget.command("stats")
@options.as_json
def stats(as_json: bool) -> None:
    """Show how budgets stand.

    With the admin token all of them, with a key those that its calls are charged to.
    """
    from compose import budget_views as views

    reply = admin.ask_gateway("GET", "budget", "stats")
    click.echo(reply.body if as_json else views.stats(reply.read(views.Stats), admin.room()))


@budget.command("explain")
@click.argument("call", callback=read_by(arguments.id))
@options.as_json
def explain(call: str, as_json: bool) -> None:
    """Show what a call was admitted on.

    CALL is its id in any form: chatcmpl-..., req_... or bare. Told are the limits of its accounts
    and what was spent, held and leased just before its start, and what came of it.
    """
    from compose import budget_views as views

    reply = admin.ask("GET", "calls", call, "budget")
    click.echo(reply.body if as_json else views.explanation(reply.read(views.Explanation)))
