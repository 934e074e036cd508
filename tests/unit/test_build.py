"""What a build knows of itself, and that it leaves the source tree as it was."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from libaggregator import build
from libaggregator.build import RESOURCE, UNKNOWN, BuildFacts, build_facts

REPOSITORY = Path(__file__).parents[2]
SETUP_CFG = """
[metadata]
name = x
[options]
packages = libaggregator
cmdclass =
    build_py = libaggregator.build_command.BuildWithFacts
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Return a folder with a package that is built with our command."""
    folder = tmp_path / "sources"
    (folder / "libaggregator").mkdir(parents=True)
    (folder / "setup.cfg").write_text(SETUP_CFG)
    (folder / "libaggregator" / "__init__.py").touch()
    command = REPOSITORY / "libaggregator" / "build_command.py"
    (folder / "libaggregator" / "build_command.py").write_text(command.read_text())
    return folder


def _build(sources: Path, **environment: str) -> BuildFacts:
    target = sources.parent / "built"
    setup = ["-c", "import setuptools; setuptools.setup()", "-q", "build_py", "--build-lib", str(target)]
    settings = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(sources.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [sys.executable, *setup], cwd=sources, env=settings | environment, check=True, capture_output=True, timeout=60
    )
    return msgspec.json.decode((target / "libaggregator" / RESOURCE).read_bytes(), type=BuildFacts)


def _git(sources: Path, *command: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "init.defaultBranch=trunk"]
    result = subprocess.run(["git", *identity, *command], cwd=sources, check=True, capture_output=True, text=True)
    return result.stdout.strip()


def test_a_build_from_a_repository_knows_branch_commit_and_time(sources: Path) -> None:
    _git(sources, "init")
    _git(sources, "add", ".")
    _git(sources, "commit", "-m", "x")
    facts = _build(sources)
    assert facts.branch == "trunk"
    assert facts.commit == _git(sources, "rev-parse", "HEAD")
    assert re.fullmatch("[0-9a-f]{40}", facts.commit)
    assert re.fullmatch(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ 1-3][0-9] \d\d:\d\d:\d\d UTC \d{4}", facts.time)
    assert _git(sources, "status", "--porcelain") == ""


def test_a_build_from_a_copy_says_what_it_does_not_know(sources: Path) -> None:
    _git(sources.parent, "init")
    facts = _build(sources)
    assert (facts.branch, facts.commit) == (UNKNOWN, UNKNOWN)


def test_a_build_from_a_copy_can_be_told(sources: Path) -> None:
    told = {"AGGREGATOR_BUILD_BRANCH": "main", "AGGREGATOR_BUILD_COMMIT": "a" * 40, "SOURCE_DATE_EPOCH": "1795505585"}
    assert _build(sources, **told) == BuildFacts(UNKNOWN, "main", "a" * 40, "Tue Nov 24 07:33:05 UTC 2026")


def test_a_program_that_was_not_built_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build.resources, "files", lambda package: tmp_path)
    facts = build_facts()
    assert (facts.branch, facts.commit, facts.time) == (UNKNOWN, UNKNOWN, UNKNOWN)


def test_a_program_that_was_built_knows_what_the_build_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / RESOURCE).write_text('{"branch": "b", "commit": "c", "time": "t"}')
    monkeypatch.setattr(build.resources, "files", lambda package: tmp_path)
    monkeypatch.setattr(build.metadata, "version", lambda name: "1.2.3")
    assert build_facts() == BuildFacts("1.2.3", "b", "c", "t")
