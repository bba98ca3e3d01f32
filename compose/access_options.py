"""The options of the commands for keys, projects, teams and budgets."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from compose import arguments
from compose.arguments import read_by
from compose.commands import Command


def _expiry(text: str) -> str:
    return arguments.expiry(text, datetime.now(UTC))


as_json = click.option("--json", "as_json", is_flag=True, help="Print the API's JSON as it came.")
quiet = click.option("--quiet", is_flag=True, help="Print only the secret of the key, for scripts.")
id_argument = click.argument("id", callback=read_by(arguments.id))
budgets = click.option(
    "--budget", "budgets", multiple=True, callback=read_by(arguments.budgets),
    metavar="PERIOD=USD", help="day=5, week=20, month=100, total=500; may be repeated.",
)  # fmt: skip

_SETTINGS = {
    "name": click.option("--name", metavar="TEXT", help="What people call it."),
    "project": click.option("--project", metavar="ID", help="The project its calls belong to."),
    "team": click.option("--team", metavar="ID", help="The team it belongs to."),
    "user": click.option("--user", metavar="ID", help="The user it belongs to."),
    "model": click.option(
        "--model", "allowed_models", multiple=True, callback=read_by(list),
        metavar="GLOB", help="Allowed models, such as 'gpt-4o*'; may be repeated [all].",
    ),
    "tier": click.option("--tier", metavar="NAME", help="free, pro, enterprise or another one."),
    "limit": click.option(
        "--limit", "limits", multiple=True, callback=read_by(arguments.limits),
        metavar="NAME=N", help="Such as requests_per_minute=60; may be repeated [none].",
    ),
    "metadata": click.option(
        "--metadata", multiple=True, callback=read_by(arguments.metadata),
        metavar="NAME=TEXT", help="A note of yours; may be repeated.",
    ),
    "on-disconnect": click.option(
        "--on-disconnect", type=click.Choice(["cancel", "drain", "detach"]),
        help="What becomes of a call whose client has left [cancel].",
    ),
    "payloads": click.option(
        "--payloads", type=click.Choice(["none", "redacted", "full"]),
        help="How the texts of calls are recorded [none].",
    ),
    "expires": click.option(
        "--expires", "expires_at", metavar="WHEN",
        callback=read_by(_expiry),
        help="30d, 12h, 2027-01-01 (UTC) or 2027-01-01T08:00:00Z [never].",
    ),
    "queue": click.option(
        "--queue/--no-queue", default=None,
        help="Let calls wait for their turn where a limit would refuse them [no].",
    ),
}  # fmt: skip
_FIELDS = {"model": "allowed_models", "limit": "limits", "expires": "expires_at"}

OF_A_KEY = tuple(_SETTINGS)
OF_A_PROJECT = ("name", "team", "model", "tier", "limit", "metadata", "payloads")
OF_A_TEAM = ("name", "model", "tier", "limit", "metadata")


def settings(*names: str) -> Callable[[Command], Command]:
    """These options, each for the field of the API that it fills."""

    def decorated(command: Command) -> Command:
        for name in reversed(names):
            command = _SETTINGS[name](command)
        return command

    return decorated


def changes(*names: str) -> Callable[[Command], Command]:
    """The same, and `--clear` for what is to be reset."""
    clear = click.option(
        "--clear", multiple=True, type=click.Choice(names), metavar="OPTION",
        help="Reset what another option sets, such as expires; may be repeated.",
    )  # fmt: skip
    return lambda command: settings(*names)(clear(command))


def given(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen, by field."""
    return {field: value for field, value in chosen.items() if value is not None}


def changed(chosen: Mapping[str, Any], clear: tuple[str, ...]) -> dict[str, Any]:
    """What is to be another, by field; null resets. Raises UsageError for nothing, or for both."""
    cleared = {_FIELDS.get(name, name.replace("-", "_")): name for name in clear}
    wanted = given(chosen)
    for field in cleared.keys() & wanted.keys():
        raise click.UsageError(f"--{cleared[field]} is both set and cleared")
    if not cleared and not wanted:
        raise click.UsageError("nothing is to be changed: give an option, or --clear")
    return {**wanted, **dict.fromkeys(cleared)}


def check_form(quiet: bool, as_json: bool) -> None:
    """Raises UsageError when two forms of output are asked for."""
    if quiet and as_json:
        raise click.UsageError("give either --quiet or --json")
