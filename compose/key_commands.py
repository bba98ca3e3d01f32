"""`nexus keys`: who may call."""

import sys
from datetime import timedelta
from typing import Any

import click

from compose import access_options as options
from compose import admin, arguments
from compose.arguments import read_by
from compose.commands import Commands

_LONGEST_PAGE = 1000
_KEY_EXAMPLES = """\
  nexus keys create --name my-app                              may use every model
  nexus keys create --project shop --model 'gpt-4o*' --expires 30d --budget month=100
  KEY=$(nexus keys create --quiet --name ci)                   for scripts
  nexus keys list --status active
  nexus keys update key_01 --model 'claude-*' --clear expires
  nexus keys rotate key_01 --grace 24h                         both secrets open it for a day
  nexus keys revoke key_01                                     refused everywhere in a second
"""


@click.group(cls=Commands, examples=_KEY_EXAMPLES)
def keys() -> None:
    """Make, change, replace and revoke keys."""


@keys.command("create")
@options.settings(*options.OF_A_KEY)
@options.budgets
@options.quiet
@options.as_json
def create_key(quiet: bool, as_json: bool, **chosen: Any) -> None:
    """Make a key.

    Its secret is shown only now: what is kept of it cannot be turned back.
    """
    options.check_form(quiet, as_json)
    reply = admin.ask("POST", "keys", body=options.given(chosen))
    admin.show_secret(reply, quiet, as_json, "is made. Its secret")


@keys.command("list")
@click.option("--project", metavar="ID", help="Only those of this project.")
@click.option("--team", metavar="ID", help="Only those of this team.")
@click.option("--user", metavar="ID", help="Only those of this user.")
@click.option("--status", type=click.Choice(["active", "expired", "revoked"]),
              help="Only those in this state.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1, _LONGEST_PAGE), metavar="N",
              help="At most so many [100].")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="All, in pages of --limit [1000].")
@options.as_json
def list_keys(everything: bool, as_json: bool, **filters: Any) -> None:
    """List keys.

    Never their secrets. With --json each page is a document of its own.
    """
    from compose import admin_views as views

    wanted = options.given(filters)
    empty = "There are no keys yet. Make one: nexus keys create --name my-app"
    if wanted.keys() - {"limit"}:
        empty = "No key is like that; `nexus keys list` shows all."
    if everything:
        wanted.setdefault("limit", _LONGEST_PAGE)
    admin.show_list(
        "keys", views.Page[views.Record], views.keys, wanted,
        empty=empty, as_json=as_json, everything=everything,
    )  # fmt: skip


@keys.command("show")
@options.id_argument
@options.as_json
def show_key(id: str, as_json: bool) -> None:
    """Show all that is set of a key."""
    admin.show_record(admin.ask("GET", "keys", id), as_json)


@keys.command("update")
@options.id_argument
@options.changes(*options.OF_A_KEY)
@options.as_json
def update_key(id: str, clear: tuple[str, ...], as_json: bool, **chosen: Any) -> None:
    """Change what is set of a key.

    What is given replaces what was set by the same option, all of it; the rest stays. Budgets are
    changed by `nexus budget`.
    """
    admin.show_record(admin.ask("PATCH", "keys", id, body=options.changed(chosen, clear)), as_json)


@keys.command("rotate")
@options.id_argument
@click.option("--grace", metavar="TIME", callback=read_by(arguments.duration),
              help="How long the old secret still opens: 0s, 15m, 24h, 7d [24h].")  # fmt: skip
@options.quiet
@options.as_json
def rotate_key(id: str, grace: timedelta | None, quiet: bool, as_json: bool) -> None:
    """Give a key a new secret.

    The id and all settings stay.
    """
    options.check_form(quiet, as_json)
    body = {} if grace is None else {"grace_seconds": int(grace.total_seconds())}
    reply = admin.ask("POST", "keys", id, "rotate", body=body)
    admin.show_secret(reply, quiet, as_json, "has a new secret")


@keys.command("revoke")
@options.id_argument
@click.option("--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")
@options.as_json
def revoke_key(id: str, yes: bool, as_json: bool) -> None:
    """Let a key open nothing any more, for ever."""
    if not yes:
        from compose import admin_views as views

        if not sys.stdin.isatty():
            raise click.UsageError("revoking cannot be undone; say --yes, as nobody can be asked")
        key = admin.ask("GET", "keys", id).read(views.Record)
        click.confirm(f"Revoke {views.title(key)} for ever?", abort=True, err=True)
    reply = admin.ask("POST", "keys", id, "revoke")
    admin.show_done(reply, f"Key {id} is revoked: it opens nothing any more.", as_json)
