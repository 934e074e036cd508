"""The command `aggregator-consumer replay`."""

import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event

import click

from consumer_service.commands.parameters import Time
from consumer_service.commands.progress import progress_bar
from consumer_service.settings import ConsumerProcessSettings
from libaggregator import logs
from libaggregator.commands import (
    ENDED_BY_SIGNAL,
    config_option,
    load_or_exit,
    needing_extra,
    on_first_signal,
    refuse,
)
from libaggregator.messages import Reason
from libaggregator.settings import SettingsError
from libaggregator.storage.schema import SchemaError


@click.command()
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
@click.option("--since", type=Time(), help="Only those rejected at this time or later, 2026-05-01T08:00:00Z.")
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
            command.replay(settings, order, stop, partial(progress_bar, "Replaying"), summary)
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
