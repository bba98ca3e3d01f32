"""`nexus`: the command line. Every command imports what it needs when it runs, so help is fast."""

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from compose.budget_commands import budget
from compose.commands import BAD_USAGE, Command, Commands, refuse
from compose.key_commands import keys
from compose.ledger_commands import ledger
from compose.price_commands import prices
from compose.route_command import route
from compose.scope_commands import projects, teams

if TYPE_CHECKING:
    from compose.roles import Role
    from compose.settings import Loaded

_config = click.option(
    "--config",
    metavar="FILE",
    help="YAML file to read (default: CONFIG_PATH, else config/models.yaml and nexus.yaml).",
)
_data_dir = click.option("--data-dir", metavar="DIR", help="Where all data lives [.nexus].")


def _address(command: Command) -> Command:
    command = click.option("--port", type=int, help="Port to listen on; 0 takes any [8080].")(
        command
    )
    return click.option("--host", help="Address to listen on [127.0.0.1].")(command)


_EXAMPLES = """\
  nexus up                                      everything on this machine, in .nexus
  nexus up --port 9090 --workers 2 --mock       two workers; every model is answered by the mock
  nexus up --host 0.0.0.0                       needs keys: set GATEWAY_API_KEYS or ADMIN_TOKEN
  nexus check --config nexus.yaml               what is configured, and where each value is from
  nexus keys create --name my-app               a key to hand out, shown once
  nexus budget set project:shop month 500       what the project may spend
  nexus route --explain body.json               where a call would run, and why
  nexus prices show gpt-4o                      what a model costs, and since when
  nexus ledger verify                           whether all the books agree
  nexus tail --type 'model.request.*'           what happens, as it happens
  nexus sql "select model, count() from events group by model"
  NEXUS_NATS_URL=nats://bus:4222 nexus worker --pool openai

`nexus COMMAND --help` says more. Commands that ask a running gateway find it at NEXUS_URL (default
http://127.0.0.1:8080) and send NEXUS_TOKEN (default: the admin token in the data directory
NEXUS_DATA_DIR or .nexus, else dev-key).
"""


@click.group(
    cls=Commands, examples=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]}
)
def nexus() -> None:
    """Nexus: one OpenAI-compatible gateway to every model, with a ledger of every call."""


@nexus.command()
@_address
@_data_dir
@_config
@click.option("--ingress", "ingresses", type=click.IntRange(1, 64), default=1, metavar="N",
              help="Ingress processes [1].")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 64), default=1, metavar="N",
              help="Worker processes [1].")  # fmt: skip
@click.option("--mock", is_flag=True, help="Let the built-in mock answer every model.")
@click.option("--durability", type=click.Choice(["normal", "strict"]), default="normal",
              help="strict syncs to disk before each acknowledgement [normal].")  # fmt: skip
def up(
    host: str | None,
    port: int | None,
    data_dir: str | None,
    config: str | None,
    ingresses: int,
    workers: int,
    mock: bool,
    durability: Any,
) -> None:
    """Serve on this machine, with everything that is needed.

    That is: bus, ingress, worker, governor and analytics, each a process of its own, from this
    package alone. What dies is started again, Ctrl-C stops all of it in order, and all data lives
    in one directory.
    """
    from compose.claims import CannotStart
    from compose.up import Shape
    from compose.up import up as run

    loaded = _load(config, host=host, port=port, data_dir=data_dir, mock_all=mock or None)
    try:
        sys.exit(run(loaded, config, Shape(ingresses, workers, durability)))
    except CannotStart as error:
        refuse(str(error))


@nexus.command()
@_address
@_config
def ingress(host: str | None, port: int | None, config: str | None) -> None:
    """Run one ingress: the HTTP side.

    Finds the bus at NEXUS_NATS_URL. Any number of them can run behind a load balancer.
    """
    _run_role("ingress", _load(config, host=host, port=port))


@nexus.command()
@click.option("--pool", "pools", multiple=True, metavar="NAME",
              help="Serve only this pool; may be given several times.")  # fmt: skip
@_config
def worker(pools: tuple[str, ...], config: str | None) -> None:
    """Run one worker: the side of the providers.

    Finds the bus at NEXUS_NATS_URL. Example: nexus worker --pool openai --pool anthropic
    """
    loaded = _load(config)
    known = loaded.config.pools()
    for pool in pools:
        if pool not in known:
            there = ", ".join(sorted(known))
            refuse(f"--pool: {pool!r} is not configured; there are: {there}", BAD_USAGE)
    _run_role("worker", loaded, list(pools) or None)


@nexus.command()
@_config
def governor(config: str | None) -> None:
    """Run the governor: ends calls that nobody ended.

    Finds the bus at NEXUS_NATS_URL.
    """
    _run_role("governor", _load(config))


@nexus.command()
@_data_dir
@_config
def analytics(data_dir: str | None, config: str | None) -> None:
    """Run the projector: from the ledger into ClickHouse.

    Finds the bus at NEXUS_NATS_URL. Writes to the server at NEXUS_CLICKHOUSE_URL, else to an
    embedded one in the data directory, which only one process may own.
    """
    _run_role("analytics", _load(config, data_dir=data_dir))


@nexus.command()
@_config
def check(config: str | None) -> None:
    """Check the configuration and print what is in effect.

    Each value is shown with its origin, secrets as set or unset. Ends with exit code 2 when
    something is wrong.
    """
    from compose.check import describe
    from compose.price_commands import catalog_of

    loaded = _load(config)
    click.echo(describe(loaded.config, loaded.origins))
    click.echo(f"\nprices: {catalog_of(loaded).edition}")
    for notice in loaded.notices:
        click.echo(f"note: {notice}", err=True)


@nexus.command()
@_config
def setup(config: str | None) -> None:
    """Create or update the streams of a bus.

    Finds the bus at NEXUS_NATS_URL, and needs a user that may do this. `nexus up` does it for its
    own bus.
    """
    from compose import setup as bus

    sys.exit(bus.run(_load(config).config))


@nexus.command("bus-permissions")
@_config
def bus_permissions(config: str | None) -> None:
    """Print the users that a bus of your own needs.

    A block for the configuration of the nats-server: one user per role, each with its own
    permissions only, and `monitor`, which may only read the live events.
    """
    from compose import setup as bus

    click.echo(bus.authorization(_load(config).config), nl=False)


for group in (keys, projects, teams, budget, prices, route, ledger):
    nexus.add_command(group)


@nexus.command()
@click.argument("query")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table",
              help="How to print the rows [table].")  # fmt: skip
def sql(query: str, form: str) -> None:
    """Ask the analytics database.

    Read-only. The query goes to the gateway at NEXUS_URL.
    Example: nexus sql "select count() from events" --format csv
    """
    from compose import client, show

    answer = client.ask(client.address(os.environ), query)
    click.echo(show.rows(answer, form), nl=False)


@nexus.command()
@click.option("--type", "pattern", default="*", metavar="GLOB",
              help="Only these types, such as 'model.request.*' [*].")  # fmt: skip
@click.option("--since", type=click.IntRange(min=0), metavar="SEQ",
              help="Begin after this ledger sequence [now]; 0 is the very beginning.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print whole events as JSON lines.")
def tail(pattern: str, since: int | None, as_json: bool) -> None:
    """Print events as they happen.

    One line per event of the ledger until Ctrl-C; goes on where it was when the gateway at
    NEXUS_URL restarts. The same events are on the bus, under agent.events.>, for any NATS client.
    """
    from compose import client, show

    try:
        for event in client.events(client.address(os.environ), since, pattern):
            click.echo(event.data if as_json else show.event(event))
    except KeyboardInterrupt:
        sys.exit(0)


@nexus.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        click.echo(f"nexus {installed('nexus-gateway')}")
    except PackageNotFoundError:
        click.echo("nexus, run from its source and not installed")


def _load(config: str | None, **overrides: Any) -> "Loaded":
    from compose.settings import ConfigError, load

    try:
        return load(config, os.environ, overrides)
    except ConfigError as error:
        refuse(str(error), BAD_USAGE)


def _run_role(role: "Role", loaded: "Loaded", pools: list[str] | None = None) -> NoReturn:
    from compose import roles

    if not roles.supervised():
        for notice in loaded.notices:
            click.echo(notice, err=True)
    sys.exit(roles.run(role, loaded.config, pools))


def main() -> None:
    """The entry point; `-help` is understood as well."""
    arguments = ["--help" if argument == "-help" else argument for argument in sys.argv[1:]]
    nexus.main(arguments, prog_name="nexus")


if __name__ == "__main__":
    main()
