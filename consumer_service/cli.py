"""The command `aggregator-consumer`."""

import os
from pathlib import Path
from threading import Event

import click

from consumer_service.commands.export import export
from consumer_service.commands.import_ import import_
from consumer_service.commands.migrate import migrate
from consumer_service.commands.prune import prune
from consumer_service.commands.replay import replay
from consumer_service.commands.status import status
from consumer_service.settings import ConsumerProcessSettings
from consumer_service.sources import SourceFailed
from libaggregator import logs, tracing
from libaggregator.build import DISTRIBUTION
from libaggregator.commands import (
    config_option,
    load_or_exit,
    needing_extra,
    on_first_signal,
    print_health,
    print_settings,
    refuse,
)
from libaggregator.settings import SettingsError
from libaggregator.storage.schema import SchemaError


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
    except SourceFailed as error:
        raise click.ClickException(str(error)) from None


main.add_command(migrate)
main.add_command(prune)
main.add_command(replay)
main.add_command(export)
main.add_command(import_)
main.add_command(status)


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
