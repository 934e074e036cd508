"""The command `aggregator-consumer migrate`."""

import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from threading import Event

import click
from peewee import Database

from consumer_service.settings import ConsumerProcessSettings
from libaggregator import logs
from libaggregator.commands import ENDED_BY_SIGNAL, config_option, load_or_exit, on_first_signal, refuse
from libaggregator.settings import SettingsError
from libaggregator.storage.connections import open_writer
from libaggregator.storage.faults import DATABASE_ERRORS, describe
from libaggregator.storage.schema import SchemaError, check_schema, plan
from libaggregator.storage.schema import migrate as migrate_database
from libaggregator.storage.session import MigrationStopped, Session

_LOOK_SECONDS = 0.2


@click.command()
@click.option("--plan", "only_plan", is_flag=True, help="Change nothing, tell the steps to do and what each costs.")
@click.option(
    "--skip-rewrite",
    is_flag=True,
    help="Leave the step that writes tables anew to a later run: it keeps everybody out of a table meanwhile.",
)
@config_option
def migrate(*, config_file: Path | None, only_plan: bool, skip_rewrite: bool) -> None:
    """Make the tables in an empty database, adopt one of an existing deployment, or continue a broken run.

    Exit status 2 if the database is neither empty nor one that can be adopted, which is found before anything is
    changed; 1 in an outage, 128 plus its number if a signal ended it: what was done stays done, run it again.
    """
    settings = load_or_exit(ConsumerProcessSettings, config_file).settings
    logs.configure(settings.logging)
    try:
        database = open_writer(settings.database, "aggregator-consumer migrate")
        if only_plan:
            _print_plan(database, skip_rewrite)
        else:
            _migrate(database, skip_rewrite)
    except (SettingsError, SchemaError) as error:
        refuse(str(error))
    except DATABASE_ERRORS as error:
        raise click.ClickException(f"the database does not do it: {describe(error)}") from None


def _print_plan(database: Database, skip_rewrite: bool) -> None:
    with closing(database):
        for line in plan(database, skip_rewrite=skip_rewrite) or ["the schema is up to date"]:
            click.echo(line)
    click.echo("a plan: nothing was changed")


def _migrate(database: Database, skip_rewrite: bool) -> None:
    """Work in another thread, so that signals are heard even while the driver of the database blocks in a call."""
    stop = Event()
    signal_number = on_first_signal(stop.set)
    session = Session(database, click.echo)

    def work() -> list[str]:
        with closing(database):
            migrate_database(database, skip_rewrite=skip_rewrite, session=session)
            return check_schema(database)

    with ThreadPoolExecutor(1, "migrate") as pool:
        running = pool.submit(work)
        while wait([running], _LOOK_SECONDS).not_done:
            if stop.is_set():
                session.stop()
    try:
        left = running.result()
    except MigrationStopped:
        click.echo("stopped; what was done stays done, run it again", err=True)
        sys.exit(ENDED_BY_SIGNAL + (signal_number() or 0))
    click.echo(f"left for a run without --skip-rewrite: {', '.join(left)}" if left else "the schema is up to date")
