"""What the command lines of both processes have in common."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import click

from libaggregator import admin
from libaggregator.build import DISTRIBUTION
from libaggregator.settings import Loaded, SettingsError, free_sections_of, load, options_of, shown

T = TypeVar("T")

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

ENDED_BY_SIGNAL = 128
"""Added to the number of the signal, as shells do it."""

BAD_SETTING = 2
"""Exit status of a start that a setting or the schema of the database forbids."""

config_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="TOML file with settings.  [env: AGGREGATOR_CONFIG]",
)


def load_or_exit(settings_class: type[T], config_file: Path | None) -> Loaded[T]:
    """Read the settings of this process; a bad one ends it with a line each and exit status 2."""
    try:
        return load(settings_class, config_file, os.environ)
    except SettingsError as error:
        refuse(*error.problems)


def refuse(*problems: str) -> NoReturn:
    """End the process with exit status 2, one line for each problem on standard error."""
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    sys.exit(BAD_SETTING)


@contextmanager
def needing_extra(extra: str) -> Iterator[None]:
    """End the process with one line if an import in the block fails because an extra was not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        refuse(f"{error.name} is missing, install the extra: pip install '{DISTRIBUTION}[{extra}]'")


def on_first_signal(stop: Callable[[], None]) -> Callable[[], int | None]:
    """Call `stop` at the first SIGTERM or SIGINT from here on; a second one ends the process at once.

    Returns a function that tells the number of the first one, None while there was none.
    """
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        received.append(number)
        for again in _STOP_SIGNALS:
            # the kernel keeps signals from process 1 of a container that it has no handler for
            signal.signal(again, _end_at_once if os.getpid() == 1 else signal.SIG_DFL)
        stop()

    for number in _STOP_SIGNALS:
        signal.signal(number, handle)
    return lambda: received[0] if received else None


def _end_at_once(number: int, frame: object) -> NoReturn:
    os._exit(ENDED_BY_SIGNAL + number)


def print_settings(settings_class: type[T], loaded: Loaded[T]) -> None:
    """Print each setting in force as a line of TOML and where it came from, secrets masked.

    In a section that is given on unread nobody knows what is a secret, so that all of it is masked.
    """
    section_before = ""
    for name, option in options_of(settings_class).items():
        section, _, key = name.partition(".")
        if section != section_before:
            click.echo(("\n" if section_before else "") + f"[{section}]")
            section_before = section
        value = getattr(getattr(loaded.settings, section), key)
        _print_setting(key, shown(option, value), loaded.origins[name])
    for section in free_sections_of(settings_class):
        if values := getattr(loaded.settings, section):
            click.echo(f"\n[{section}]")
        for key in values:
            _print_setting(key, "'***'", loaded.origins[f"{section}.{key}"])


def _print_setting(key: str, value: str, origin: str) -> None:
    click.echo(f"{f'{key} = {value}':<60}  # {origin}")


def print_health(host: str, port: int, path: str) -> NoReturn:
    """Ask the admin port of a running process, print its answer, exit with 0 if it is well, else with 1."""
    reachable = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104
    well, answer = admin.ask(reachable, port, path, timeout=5)
    click.echo(answer, err=not well)
    sys.exit(0 if well else 1)
