"""Each extra alone makes one process that works, without the libraries of the other."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    _run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY)])
    (found,) = folder.glob("*.whl")
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("extra", "program", "foreign"),
    [
        ("consumer", "aggregator-consumer", {"falcon", "waitress", "offapi"}),
        ("api", "aggregator-api", {"kafka-python", "tenacity", "offapi"}),
        ("redis", "aggregator-consumer", {"kafka-python", "falcon", "waitress"}),
    ],
)
def test_one_extra_gives_one_working_process_without_the_libraries_of_the_other(
    wheel: Path, tmp_path: Path, extra: str, program: str, foreign: set[str]
) -> None:
    programs = tmp_path / "venv" / "bin"
    # neither pip of its own nor modules compiled that are not used: that takes most of the time
    _run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")])
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python")]
    _run([*pip, "install", "--quiet", "--no-compile", f"{wheel}[{extra}]"])
    installed = _run([*pip, "list", "--format=freeze"])
    assert not {line.partition("==")[0] for line in installed.splitlines()} & foreign
    assert "[database]" in _run([str(programs / program), "config"])
    if program == "aggregator-consumer":
        url = f"sqlite:///{tmp_path}/aggregator.db"
        environment = {"AGGREGATOR_DATABASE__URL": url, "AGGREGATOR_CONSUMER__ADMIN_PORT": "0"}
        _run([str(programs / program), "migrate"], environment)
        (tmp_path / "messages.jsonl").write_bytes(b"{}\n")
        source = {"AGGREGATOR_CONSUMER__SOURCE": "file", "AGGREGATOR_FILE__PATH": str(tmp_path / "messages.jsonl")}
        _run([str(programs / program), "run"], {**environment, **source})


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout
