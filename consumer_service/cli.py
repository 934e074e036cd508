"""The command `aggregator-consumer`."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Event

import click

from consumer_service.settings import ConsumerProcessSettings
from libaggregator import logs, tracing
from libaggregator.build import DISTRIBUTION
from libaggregator.commands import (
    ENDED_BY_SIGNAL,
    config_option,
    load_or_exit,
    needing_extra,
    on_first_signal,
    print_health,
    print_settings,
    refuse,
)
from libaggregator.messages import Reason
from libaggregator.settings import SettingsError
from libaggregator.storage.connections import open_writer
from libaggregator.storage.faults import DATABASE_ERRORS, describe
from libaggregator.storage.schema import SchemaError
from libaggregator.storage.schema import migrate as migrate_database
from libaggregator.times import parse_time


@click.group()
@click.version_option(package_name=DISTRIBUTION)
def main() -> None:
    """Store the rule engine's results of clusters, as they come, in a SQL database."""


@main.command()
@config_option
def run(config_file: Path | None) -> None:
    """Read messages and store them until SIGTERM or SIGINT, or until a source that ends has ended."""
    with needing_extra("consumer"):
        from consumer_service.process import run_until_stopped  # noqa: PLC0415 - other commands do without it
    settings = load_or_exit(ConsumerProcessSettings, config_file).settings
    with needing_extra("tracing"):
        logs.configure(settings.logging, tracing.log_processors(os.environ))
    stop = Event()
    on_first_signal(stop.set)
    try:
        with tracing.opened("aggregator-consumer", os.environ) as spans:
            run_until_stopped(settings, stop, spans)
    except SettingsError as error:
        refuse(*error.problems)
    except SchemaError as error:
        refuse(str(error))


@main.command()
@config_option
def migrate(config_file: Path | None) -> None:
    """Make the tables in an empty database, or continue where a broken run ended."""
    settings = load_or_exit(ConsumerProcessSettings, config_file).settings
    logs.configure(settings.logging)
    try:
        steps = migrate_database(open_writer(settings.database, "aggregator-consumer migrate"))
    except (SettingsError, SchemaError) as error:
        refuse(str(error))
    except DATABASE_ERRORS as error:
        raise click.ClickException(f"the database does not do it: {describe(error)}") from None
    for step in steps:
        click.echo(f"done: {step}")
    click.echo("the schema is up to date")


class _Time(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A time as messages have it, RFC 3339 with a zone; gives it in UTC."""

    name = "time"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> datetime:
        try:
            return parse_time(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", parameter, context)


@main.command()
@click.option(
    "--from",
    "origin",
    type=click.Choice(["consumer_error", "dead_letters"]),
    default="consumer_error",
    show_default=True,
    help="Where they are taken from: the table, or the topic `kafka.dead_letter_topic`.",
)
@click.option(
    "--reason",
    "reasons",
    type=click.Choice([reason.value for reason in Reason]),
    multiple=True,
    help="Only those; repeatable.",
)
@click.option("--since", type=_Time(), help="Only those rejected at this time or later, 2026-05-01T08:00:00Z.")
@click.option("--max", "most", type=click.IntRange(1, 1_000_000_000), help="So many messages at most.")
@click.option("--dry-run", is_flag=True, help="Change nothing, tell what would happen.")
@config_option
def replay(
    *,
    config_file: Path | None,
    origin: str,
    reasons: tuple[str, ...],
    since: datetime | None,
    most: int | None,
    dry_run: bool,
) -> None:
    """Put rejected messages through the pipeline again, after what made them unusable was mended.

    The row of one that succeeds goes from `consumer_error`; what fails again keeps its place. Exit status 0 if all
    were replayed, 1 in an outage, 128 plus its number if a signal ended it; what was done stays done.
    """
    with needing_extra("consumer"):
        from consumer_service.replay import command, letters, replayer  # noqa: PLC0415 - other commands do without it
    settings = load_or_exit(ConsumerProcessSettings, config_file).settings
    logs.configure(settings.logging)
    selection = letters.Selection(frozenset(reasons), since, most)
    order = command.Order(command.Origin(origin), selection, dry_run)
    stop, summary = Event(), replayer.Summary()
    signal_number = on_first_signal(stop.set)
    try:
        with needing_extra("consumer"):
            command.replay(settings, order, stop, _progress, summary)
    except SettingsError as error:
        refuse(*error.problems)
    except SchemaError as error:
        refuse(str(error))
    except command.ReplayFailed as error:
        _print_summary(summary.lines(), dry_run)
        raise click.ClickException(f"{error}; what was done stays done, run it again") from None
    _print_summary(summary.lines(), dry_run)
    if number := signal_number():
        sys.exit(ENDED_BY_SIGNAL + number)


def _print_summary(lines: list[str], dry_run: bool) -> None:
    for line in lines:
        click.echo(line)
    if dry_run:
        click.echo("a dry run: nothing was changed")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error if that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done: None
        return
    with click.progressbar(length=total, label="Replaying", show_pos=True, file=sys.stderr) as bar:
        yield bar.update


@main.command()
@click.option("--live", is_flag=True, help="Ask whether the process lives, not whether it is ready.")
@config_option
def health(config_file: Path | None, live: bool) -> None:
    """Ask a running consumer on this host; exit status 0 if it is well, 1 if not."""
    settings = load_or_exit(ConsumerProcessSettings, config_file).settings.consumer
    print_health(settings.admin_host, settings.admin_port, "/livez" if live else "/readyz")


@main.command()
@config_option
def config(config_file: Path | None) -> None:
    """Print the settings in force and where each came from, secrets masked."""
    print_settings(ConsumerProcessSettings, load_or_exit(ConsumerProcessSettings, config_file))


if __name__ == "__main__":
    main()
