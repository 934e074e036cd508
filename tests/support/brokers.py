"""The brokers that source tests run against, behind one interface."""

from typing import Protocol

from examples.demo.broker import EmbeddedBroker
from tests.support.topics import Sent, Topics

__all__ = ["Broker", "EmbeddedTestBroker", "Sent"]


class EmbeddedTestBroker(EmbeddedBroker, Topics):
    """The embedded broker, with topics for tests."""


class Broker(Protocol):
    """What a test needs of a broker, whichever it is."""

    @property
    def bootstrap(self) -> str:
        """The address for clients, `HOST:PORT`."""

    def start(self) -> None:
        """Start it on the same port."""

    def stop(self) -> None:
        """Stop it."""
