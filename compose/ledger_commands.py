"""`nexus ledger`: what can be asked of the books themselves."""

import sys

import click

from compose.commands import Commands, refuse

_EXAMPLES = """\
  nexus ledger verify
  nexus ledger verify --json | jq .differences
"""


@click.group(cls=Commands, examples=_EXAMPLES)
def ledger() -> None:
    """Look after the ledger."""


@ledger.command("verify")
@click.option("--wait", "patience", type=click.FloatRange(0, 3600), default=60.0, metavar="SECONDS",
              help="How long the database may need to reach the ledger [60].")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@click.option("--data-dir", metavar="DIR", help="Where `nexus up` keeps its data [.nexus].")
@click.option("--config", metavar="FILE", help="YAML file to read, as for `nexus up`.")
def verify(patience: float, as_json: bool, data_dir: str | None, config: str | None) -> None:
    """Compare ledger, database and governor.

    What each account was charged is summed up from the ledger itself, from the events in the
    database, from its rollup and by the governor, all as of one sequence: they have to be equal to
    the nano-dollar. Calls without an end and missing events are told as well. Ends with exit code
    1 when anything differs or could not be compared; nothing is ever corrected.

    Asks the bus of `nexus up` on this machine, or that at NEXUS_NATS_URL.
    """
    import os

    from compose import verify as books
    from compose.commands import BAD_USAGE
    from compose.own_bus import bus_for_operator
    from compose.settings import ConfigError, load

    try:
        loaded = load(config, os.environ, {"data_dir": data_dir})
    except ConfigError as error:
        refuse(str(error), BAD_USAGE)
    sys.exit(books.verify(bus_for_operator(loaded), patience, as_json))
