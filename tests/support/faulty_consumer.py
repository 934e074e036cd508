"""The consumer's command with faults that last as long as files are there; `FaultyConsumer` starts it.

The folder is in the environment. Each line of the file `not-fetched` is the number of a partition that is not fetched:
the group is joined, the broker answers, and other partitions are read. While there is a file `hang`, the loop hangs
where it decodes messages.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher

from consumer_service.cli import main
from consumer_service.pipeline import Batch, Pipeline
from consumer_service.sources import Record
from examples.demo.ports import free_port
from tests.support.deployment import Consumer, Deployment

_VARIABLE = "TESTS_FOLDER_OF_FAULTS"
_LOOK_SECONDS = 0.05


class FaultyConsumer(Consumer):
    """A consumer of a deployment, whose faults the test begins and ends; `settings` are as of `start_consumer`."""

    def __init__(self, deployment: Deployment, folder: Path, **settings: str) -> None:
        self._folder = folder / "faults"
        self._folder.mkdir()
        port = free_port()
        environment = {
            **deployment.environment,
            "AGGREGATOR_CONSUMER__ADMIN_PORT": str(port),
            **{f"AGGREGATOR_{name}": value for name, value in settings.items()},
            _VARIABLE: str(self._folder),
        }
        command = [sys.executable, "-m", __name__, "run"]
        super().__init__(deployment.processes.start("faulty-consumer", command, environment), port)

    def do_not_fetch(self, *partitions: int) -> None:
        """Fetch all partitions but these from the next fetch on."""
        (self._folder / "not-fetched").write_text("\n".join(map(str, partitions)))

    def hang(self) -> None:
        """Hang as soon as there is a message."""
        (self._folder / "hang").touch()

    def go_on(self) -> None:
        """Hang no longer."""
        (self._folder / "hang").unlink()


def _let_fail(folder: Path) -> None:
    fetchable, sort = Fetcher._fetchable_partitions, Pipeline.sort

    def fetchable_less_those_of_the_file(fetcher: Any) -> list[TopicPartition]:
        file = folder / "not-fetched"
        numbers = set(file.read_text().split()) if file.exists() else set()
        return [partition for partition in fetchable(fetcher) if str(partition.partition) not in numbers]

    def sort_when_there_is_no_file(pipeline: Pipeline, records: Sequence[Record]) -> Batch:
        while (folder / "hang").exists():
            time.sleep(_LOOK_SECONDS)
        return sort(pipeline, records)

    Fetcher._fetchable_partitions = fetchable_less_those_of_the_file
    Pipeline.sort = sort_when_there_is_no_file  # type: ignore[method-assign]


if __name__ == "__main__":
    _let_fail(Path(os.environ[_VARIABLE]))
    main()
