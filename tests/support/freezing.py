"""Processes that are there and do nothing: stopped from running, they keep their connections and answer nobody."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.support.kafka import ApacheKafka


@contextmanager
def frozen(broker: ApacheKafka) -> Iterator[None]:
    """Stop a broker from running until the end of the block."""
    assert broker._process is not None
    process = psutil.Process(broker._process.pid)
    process.suspend()
    try:
        yield
    finally:
        process.resume()
