"""The command `aggregator-consumer status`."""

import sys
from pathlib import Path

import click
import msgspec

from consumer_service.settings import ConsumerProcessSettings
from libaggregator import logs
from libaggregator.clock import utc_now
from libaggregator.commands import config_option, load_or_exit, needing_extra, refuse
from libaggregator.settings import SettingsError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
@config_option
def status(*, config_file: Path | None, as_json: bool) -> None:
    """Show schema, rows, lag and rejected messages, beside running consumers.

    Exit status 0 if everything was answered, 1 if a part could not be: the others are shown all the same.
    """
    from consumer_service.status import command, table  # noqa: PLC0415 - other commands do without it

    settings = load_or_exit(ConsumerProcessSettings, config_file).settings
    logs.configure(settings.logging)
    try:
        with needing_extra("consumer"):
            found = command.read_status(settings, utc_now())
    except SettingsError as error:
        refuse(*error.problems)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        for line in table.lines_of(found):
            click.echo(line)
    for problem in found.problems:
        click.echo(f"Error: {problem.part}: {problem.problem}", err=True)
    sys.exit(1 if found.problems else 0)
