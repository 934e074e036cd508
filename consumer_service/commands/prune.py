"""The command `aggregator-consumer prune`."""

import sys
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event

import click

from consumer_service.commands.parameters import Duration, only_once
from consumer_service.commands.progress import progress_bar
from consumer_service.settings import ConsumerProcessSettings
from libaggregator import logs
from libaggregator.clock import utc_now
from libaggregator.commands import (
    ENDED_BY_SIGNAL,
    config_option,
    load_or_exit,
    needing_extra,
    on_first_signal,
    refuse,
)
from libaggregator.settings import SettingsError
from libaggregator.storage.schema import SchemaError

_OF_CLUSTERS, _OF_ERRORS = "--older-than", "--errors-older-than"


@click.command()
@click.option(
    _OF_CLUSTERS,
    "unseen",
    type=Duration(),
    multiple=True,
    callback=only_once,
    metavar="DURATION",
    help="Delete clusters of which no report was stored for so long: 60d, 8w, 12h.",
)
@click.option(
    _OF_ERRORS,
    "rejected",
    type=Duration(),
    multiple=True,
    callback=only_once,
    metavar="DURATION",
    help="Delete rows of `consumer_error` that are older than this: 30d.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing, count what would go.")
@config_option
def prune(*, config_file: Path | None, unseen: timedelta | None, rejected: timedelta | None, dry_run: bool) -> None:
    """Delete clusters that are not seen any more, and old rows of rejected messages, beside running consumers.

    Each option prunes its part alone; with neither of them the limits are asked for, on a terminal. Clusters that users
    voted for stay, and so does all that users chose. Exit status 0 if everything was gone through, 1 in an outage, 128
    plus its number if a signal ended it; what was done stays done.
    """
    with needing_extra("consumer"):
        from consumer_service.pruning import command, pruner  # noqa: PLC0415 - other commands do without it
    settings = load_or_exit(ConsumerProcessSettings, config_file).settings
    if unseen is None and rejected is None:
        unseen, rejected = _ask_for_limits(dry_run)
    now = utc_now()
    limits = pruner.Limits(_before(now, unseen, _OF_CLUSTERS), _before(now, rejected, _OF_ERRORS))
    logs.configure(settings.logging)
    stop, summary = Event(), pruner.Summary()
    signal_number = on_first_signal(stop.set)
    try:
        command.prune(settings, command.Order(limits, dry_run), stop, progress_bar, summary)
    except SettingsError as error:
        refuse(*error.problems)
    except SchemaError as error:
        refuse(str(error))
    except command.PruneFailed as error:
        _print_summary(summary.lines(limits), dry_run)
        raise click.ClickException(str(error)) from None
    _print_summary(summary.lines(limits), dry_run)
    if number := signal_number():
        sys.exit(ENDED_BY_SIGNAL + number)


def _ask_for_limits(dry_run: bool) -> tuple[timedelta | None, timedelta | None]:
    """Ask whoever sits there, and make sure; without a terminal there is nobody to ask."""
    if sys.stdin is None or not sys.stdin.isatty():
        refuse(f"what is to go is not said: expected {_OF_CLUSTERS}, {_OF_ERRORS} or both")
    unseen = _ask("Delete clusters of which no report was stored for")
    rejected = _ask("Delete rows of consumer_error that are older than")
    if unseen is None and rejected is None:
        refuse("nothing is to go")
    if not dry_run:
        click.confirm("Delete them for good?", abort=True)
    return unseen, rejected


def _ask(question: str) -> timedelta | None:
    answer: timedelta | None = click.prompt(
        f"{question} (60d, 8w, 12h; nothing: none of them)",
        default="",
        show_default=False,
        value_proc=lambda text: Duration()(text) if text else None,
    )
    return answer


def _before(now: datetime, age: timedelta | None, option: str) -> datetime | None:
    """Return the instant that is so long ago."""
    try:
        return None if age is None else now - age
    except OverflowError:
        refuse(f"{option}: that is before the year 1")


def _print_summary(lines: list[str], dry_run: bool) -> None:
    for line in lines:
        click.echo(line)
    if dry_run:
        click.echo("a dry run: nothing was changed")
