"""The command `aggregator-consumer export`."""

import sys
from pathlib import Path
from threading import Event

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
from libaggregator.storage.faults import DATABASE_ERRORS, describe
from libaggregator.storage.schema import SchemaError


@click.command()
@click.argument("file")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@config_option
def export(*, config_file: Path | None, file: str, force: bool) -> None:
    """Write all tables, as they are at one moment, to FILE, beside running consumers.

    FILE ends in .jsonl, .jsonl.gz or .jsonl.zst, which says how it is compressed, or is - for standard output, not
    compressed. It gets its name when it is whole. Exit status 0 if it is, 1 in an outage or at a value that can't be
    exported, 128 plus its number if a signal ended it.
    """
    settings = load_or_exit(ConsumerProcessSettings, config_file).settings
    logs.configure(settings.logging)
    stop = Event()
    signal_number = on_first_signal(stop.set)
    try:
        with needing_extra("consumer"):
            from consumer_service.transfer import exporter, files, line_format  # noqa: PLC0415 - other commands are quicker

            counts = exporter.export(settings.database, file, force=force, stop=stop, progress=progress_bar)
    except SettingsError as error:
        refuse(*error.problems)
    except (SchemaError, files.BadName) as error:
        refuse(str(error))
    except line_format.ValueRefused as error:
        raise click.ClickException(f"{error}; nothing was exported") from None
    except exporter.Stopped:
        sys.exit(ENDED_BY_SIGNAL + (signal_number() or 0))
    except DATABASE_ERRORS as error:
        raise click.ClickException(f"the database does not do it: {describe(error)}; nothing was exported") from None
    except OSError as error:
        name = "standard output" if file == files.STANDARD else file
        raise click.ClickException(f"{name} can't be written: {error.strerror or error}") from None
    for table, rows in counts.items():
        click.echo(f"{table:<40}{rows:>12}", err=file == files.STANDARD)
