"""The command `aggregator-consumer import`."""

import sys
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

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
from libaggregator.settings import SettingsError
from libaggregator.storage.faults import DATABASE_ERRORS, READ_ONLY, describe, is_read_only
from libaggregator.storage.schema import SchemaError

if TYPE_CHECKING:
    from consumer_service.transfer.importer import Summary


@click.command(name="import")
@click.argument("file")
@click.option("--merge", is_flag=True, help="Keep all that is there and add what is missing.")
@config_option
def import_(*, config_file: Path | None, file: str, merge: bool) -> None:
    """Write what `export` wrote to FILE, or to standard input (-), into a migrated database, which has to be empty.

    The whole file is checked before anything is written. An import that was broken off goes on with --merge, which
    also adds to a database that consumers have begun to fill: clusters that have a report there keep what they have.
    Exit status 0 if all is there, 1 in an outage, 2 if file or database are refused, 128 plus its number if a signal
    ended it.
    """
    settings = load_or_exit(ConsumerProcessSettings, config_file).settings
    logs.configure(settings.logging)
    stop = Event()
    signal_number = on_first_signal(stop.set)
    with needing_extra("consumer"):
        from consumer_service.transfer import exporter, importer, line_reader  # noqa: PLC0415 - other commands are quicker
    summary = importer.Summary()
    try:
        with needing_extra("consumer"):
            importer.import_file(settings.database, importer.Order(file, merge), stop, progress_bar, summary)
    except SettingsError as error:
        refuse(*error.problems)
    except (SchemaError, importer.DatabaseRefused) as error:
        refuse(str(error))
    except importer.DatabaseReadOnly as error:
        raise click.ClickException(f"{error}; nothing was written") from None
    except line_reader.FileRefused as error:
        refuse(f"{file}: {error}")
    except exporter.Stopped:
        click.echo(_what_was_written(summary), err=True)
        sys.exit(ENDED_BY_SIGNAL + (signal_number() or 0))
    except importer.RowRefused as error:
        advice = "mend the row where it was exported, and give --merge a new export"
        raise click.ClickException(f"{file}: {error}; {_what_was_written(summary, advice)}") from None
    except importer.ImportBroken as error:
        raise click.ClickException(f"{file}: {error}; {_what_was_written(summary)}") from None
    except DATABASE_ERRORS as error:
        problem = READ_ONLY if is_read_only(error) else f"the database does not do it: {describe(error)}"
        raise click.ClickException(f"{problem}; {_what_was_written(summary)}") from None
    except OSError as error:
        raise click.ClickException(f"{file} can't be read: {error.strerror or error}") from None
    _print(summary)


def _what_was_written(summary: "Summary", advice: str = "--merge goes on with the same file") -> str:
    if not any(summary.added.values()):
        return "nothing was written"
    _print(summary)
    return f"what was written stays, {advice}"


def _print(summary: "Summary") -> None:
    click.echo(f"{'':<40}{'added':>12}{'left':>12}")
    for table, added in summary.added.items():
        click.echo(f"{table:<40}{added:>12}{summary.left[table]:>12}")
