"""The units are what systemd takes, hold little exposure, and name what exists."""

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from api_service.cli import main as api
from api_service.settings import ApiProcessSettings
from consumer_service.cli import main as consumer
from consumer_service.settings import ConsumerProcessSettings
from libaggregator.settings import CONFIG_VARIABLE, SECRETS_VARIABLE, load, options_of
from tests.support.processes import REPOSITORY
from tests.support.programs import ProgramMissingError, skipped_without_programs

FOLDER = REPOSITORY / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
TIMERS = sorted(FOLDER.glob("*.timer"))
COMMANDS = {"aggregator-consumer": consumer.commands, "aggregator-api": api.commands}
INSTALLED = "/opt/aggregator/bin"
# `systemd-analyze security`: up to 2.0 is "safe" or "ok", 9.6 is a service without any of it
MOST_EXPOSURE = 1.5


def options(unit: Path) -> list[tuple[str, str]]:
    """Return each option of a unit with its value."""
    lines = unit.read_text(encoding="utf-8").splitlines()
    return [(match[1], match[2]) for line in lines if (match := re.match(r"([A-Za-z]+)=(.*)", line))]


def option(unit: Path, name: str) -> str:
    (value,) = [value for found, value in options(unit) if found == name]
    return value


def unit(name: str) -> Path:
    (found,) = [path for path in UNITS if path.stem == name]
    return found


@pytest.fixture
def units_with_our_programs(tmp_path: Path) -> list[Path]:
    """Return copies of the units that start the programs of this environment: systemd looks whether they are there."""
    with skipped_without_programs():
        if not shutil.which("systemd-analyze"):
            raise ProgramMissingError("SYSTEMD", "systemd-analyze is missing: apt-get install systemd")
    # they name each other, so that all of them have to be there
    for path in TIMERS:
        shutil.copy(path, tmp_path)
    copies = [tmp_path / path.name for path in UNITS]
    for path, copy in zip(UNITS, copies, strict=True):
        copy.write_text(path.read_text(encoding="utf-8").replace(INSTALLED, sysconfig.get_path("scripts")))
    return copies


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_LOG_LEVEL": "warning"}
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def test_systemd_takes_the_units_without_a_word(units_with_our_programs: list[Path]) -> None:
    timers = [str(units_with_our_programs[0].parent / path.name) for path in TIMERS]
    result = analyze("verify", "--man=no", *map(str, units_with_our_programs), *timers)
    ours = [line for line in result.stderr.splitlines() if "aggregator" in line]
    assert (result.returncode, ours) == (0, [])


def test_systemd_finds_little_exposure(units_with_our_programs: list[Path]) -> None:
    for path in units_with_our_programs:
        threshold = f"--threshold={int(MOST_EXPOSURE * 10)}"
        result = analyze("security", "--offline=true", threshold, "--no-pager", str(path))
        assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_commands_settings_and_files_of_the_units_exist(path: Path) -> None:
    program, command, *arguments = option(path, "ExecStart").removeprefix(f"{INSTALLED}/").split()
    COMMANDS[program][command].make_context(program, arguments)
    variables = dict(value.split("=", 1) for name, value in options(path) if name == "Environment")
    assert variables.pop(CONFIG_VARIABLE) == "/etc/aggregator/aggregator.toml"
    # the folder of the credentials
    assert variables.pop(SECRETS_VARIABLE) == "%d"
    known = {found.variable for found in options_of(ConsumerProcessSettings).values()}
    assert variables.keys() <= known
    assert option(path, "LoadCredential").split(":")[0] in options_of(ConsumerProcessSettings)


def test_each_process_has_its_own_role() -> None:
    roles = {path.stem: Path(option(path, "LoadCredential")).stem for path in UNITS}
    assert roles == {
        "aggregator-api": "reader",
        "aggregator-consumer": "writer",
        "aggregator-migrate": "owner",
        "aggregator-prune": "pruner",
    }


def test_each_timer_starts_a_unit_of_ours_that_ends_by_itself() -> None:
    assert [path.stem for path in TIMERS] == ["aggregator-prune"]
    assert {option(unit(path.stem), "Type") for path in TIMERS} == {"oneshot"}


def test_processes_are_killed_only_after_they_had_the_time_that_they_take_to_stop() -> None:
    settings = load(ApiProcessSettings, None, {}).settings.api
    assert float(option(unit("aggregator-api"), "TimeoutStopSec")) >= (
        settings.shutdown_delay + settings.shutdown_timeout + 10
    )
    patience = load(ConsumerProcessSettings, None, {}).settings.consumer.shutdown_timeout
    assert float(option(unit("aggregator-consumer"), "TimeoutStopSec")) >= patience + 5


@pytest.mark.parametrize("name", ["aggregator-api", "aggregator-consumer"])
def test_a_process_that_waits_for_its_database_is_let_wait_and_a_bad_setting_is_not_tried_again(name: str) -> None:
    assert option(unit(name), "Type") == "notify"
    assert option(unit(name), "NotifyAccess") == "main"
    assert option(unit(name), "TimeoutStartSec") == "infinity"
    assert option(unit(name), "Restart") == "on-failure"
    assert option(unit(name), "RestartPreventExitStatus") == "2"
