"""The demo as a newcomer sees it."""

import signal
import sys
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY, Process

COMMAND = [sys.executable, "-m", "examples.demo"]


def _demo(folder: Path, *arguments: str) -> Process:
    environment = {"PYTHONPATH": str(REPOSITORY)}
    return Process("demo", [*COMMAND, *arguments], folder / "output.log", environment, folder=folder)


@pytest.mark.parametrize("run", ["first", pytest.param("second", marks=pytest.mark.long)])
def test_the_demo_shows_answers_and_ends_with_0(tmp_path: Path, run: str) -> None:
    if run == "second":
        (tmp_path / ".demo").mkdir()
        (tmp_path / ".demo" / "aggregator.db").write_text("left by a run before")
    demo = _demo(tmp_path, "--once")
    try:
        assert demo.wait_exit(90) == 0, demo.output
    finally:
        demo.kill()
    assert demo.output.count("$ curl http://127.0.0.1:") == 3
    assert '"status": "ok"' in demo.output
    assert {path.name for path in tmp_path.iterdir()} == {".demo", "output.log"}


@pytest.mark.long
def test_a_second_demo_in_the_same_folder_is_refused_and_does_not_disturb_the_first(tmp_path: Path) -> None:
    first = _demo(tmp_path)
    try:
        first.wait_for_log("newer result for", 90)
        second = Process("second", COMMAND, tmp_path / "second.log", {"PYTHONPATH": str(REPOSITORY)}, folder=tmp_path)
        assert second.wait_exit(30) == 1
        assert "another demo is running" in second.output
        assert (tmp_path / ".demo" / "aggregator.db").exists()
        first.signal(signal.SIGHUP)
        assert first.wait_exit(30) == 0, first.output
    finally:
        first.kill()


def test_ctrl_c_stops_all_parts(tmp_path: Path) -> None:
    demo = _demo(tmp_path)
    try:
        demo.wait_for_log("newer result for", 90)
        demo.signal(signal.SIGINT)
        assert demo.wait_exit(30) == 0, demo.output
    finally:
        demo.kill()
    assert "Everything is stopped." in demo.output
    for name in ("consumer", "api"):
        assert "stopped" in (tmp_path / ".demo" / f"{name}.log").read_text()
