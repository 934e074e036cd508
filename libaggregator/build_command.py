"""Used by setuptools alone (`setup.cfg`, `cmdclass`): leaves word in the build of what it was made from.

Nothing is written into the source tree. `AGGREGATOR_BUILD_BRANCH` and `AGGREGATOR_BUILD_COMMIT` win over git, for
builds from a copy without its history; `SOURCE_DATE_EPOCH` (seconds since 1970) over the clock, for builds that are
to be the same every time.
"""

import json
import os
import subprocess
import time
from pathlib import Path

from setuptools.command.build_py import build_py


class BuildWithFacts(build_py):  # type: ignore[misc]
    """`build_py`, and a file `libaggregator/build_facts.json` beside the modules that it copied."""

    def run(self) -> None:
        """Copy the modules and write the file."""
        super().run()
        if not self.editable_mode:
            self._facts_file.write_text(json.dumps(_facts(), sort_keys=True) + "\n", encoding="utf-8")

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return the files that this command writes."""
        outputs: list[str] = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, str(self._facts_file)]

    @property
    def _facts_file(self) -> Path:
        return Path(self.build_lib, "libaggregator", "build_facts.json")


def _facts() -> dict[str, str]:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    built = time.gmtime(int(epoch)) if epoch else time.gmtime()
    facts = {
        "branch": os.environ.get("AGGREGATOR_BUILD_BRANCH") or _git("symbolic-ref", "--short", "HEAD"),
        "commit": os.environ.get("AGGREGATOR_BUILD_COMMIT") or _git("rev-parse", "HEAD"),
        # as `date -u` writes it, in English whatever the locale
        "time": f"{time.asctime(built)[:-5]} UTC {built.tm_year}",
    }
    return {name: value for name, value in facts.items() if value}


def _git(*command: str) -> str:
    """Return what git says about this folder, empty if it is not the top of a repository."""
    try:
        top = _output("rev-parse", "--show-toplevel")
        return _output(*command) if Path(top).samefile(Path.cwd()) else ""
    except (OSError, subprocess.CalledProcessError):
        return ""


def _output(*command: str) -> str:
    result = subprocess.run(["git", *command], capture_output=True, text=True, check=True)  # noqa: S603, S607
    return result.stdout.strip()
