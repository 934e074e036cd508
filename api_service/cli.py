"""The command `aggregator-api`."""

import os
from pathlib import Path

import click

from api_service.settings import ApiProcessSettings
from libaggregator import logs, tracing
from libaggregator.build import DISTRIBUTION
from libaggregator.commands import config_option, load_or_exit, needing_extra, print_health, print_settings, refuse
from libaggregator.settings import SettingsError
from libaggregator.storage.schema import SchemaError


@click.group()
@click.version_option(package_name=DISTRIBUTION)
def main() -> None:
    """Answer questions about the newest results of clusters over HTTP."""


@main.command()
@config_option
def serve(config_file: Path | None) -> None:
    """Answer requests until SIGTERM or SIGINT."""
    with needing_extra("api"):
        from api_service.process import serve_until_stopped  # noqa: PLC0415 - other commands do without it
    settings = load_or_exit(ApiProcessSettings, config_file).settings
    with needing_extra("tracing"):
        logs.configure(settings.logging, tracing.log_processors(os.environ))
    try:
        with tracing.opened("aggregator-api", os.environ) as spans:
            serve_until_stopped(settings, spans)
    except SettingsError as error:
        refuse(*error.problems)
    except SchemaError as error:
        refuse(str(error))


@main.command()
@click.option("--live", is_flag=True, help="Ask whether the process lives, not whether it is ready.")
@config_option
def health(config_file: Path | None, live: bool) -> None:
    """Ask a running API on this host; exit status 0 if it is well, 1 if not."""
    settings = load_or_exit(ApiProcessSettings, config_file).settings.api
    print_health(settings.admin_host, settings.admin_port, "/livez" if live else "/readyz")


@main.command()
@config_option
def config(config_file: Path | None) -> None:
    """Print the settings in force and where each came from, secrets masked."""
    print_settings(ApiProcessSettings, load_or_exit(ApiProcessSettings, config_file))


if __name__ == "__main__":
    main()
