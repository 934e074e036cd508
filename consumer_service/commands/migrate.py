"""The command `aggregator-consumer migrate`."""

from pathlib import Path

import click

from consumer_service.settings import ConsumerProcessSettings
from libaggregator import logs
from libaggregator.commands import config_option, load_or_exit, refuse
from libaggregator.settings import SettingsError
from libaggregator.storage.connections import open_writer
from libaggregator.storage.faults import DATABASE_ERRORS, describe
from libaggregator.storage.schema import SchemaError
from libaggregator.storage.schema import migrate as migrate_database


@click.command()
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
