"""What hands connections to instances of the API: a service of Kubernetes, or a load balancer that asks `/readyz`."""

import itertools
import socket
import threading
from dataclasses import dataclass
from typing import Protocol

from tests.support.deployment import Answer
from tests.support.network import Wire
from tests.support.waiting import eventually

REMOVAL_SECONDS = 0.5
"""How long an instance that is not ready any more, or about to be ended, is still given connections: as long as it
takes a cluster to tell all of its nodes."""

_PROBE_SECONDS = 0.1


class Instance(Protocol):
    """What the balancer knows of an instance."""

    port: int

    def readiness(self) -> Answer:
        """Ask whether it is ready."""


@dataclass(eq=False)
class _Place:
    instance: Instance
    takes_connections: bool = False
    is_leaving: bool = False


class Balancer(Wire):
    """Hands each new connection to the next instance that is ready; connections that are open stay where they are."""

    def __init__(self) -> None:
        super().__init__(target=0)
        self._places: list[_Place] = []
        self._turns = itertools.count()
        self._over = threading.Event()
        self._prober = threading.Thread(target=self._probe, daemon=True)
        self._prober.start()

    def add(self, instance: Instance) -> None:
        """Take an instance in, and return when it is given connections."""
        place = _Place(instance)
        self._places = [*self._places, place]
        eventually(lambda: place.takes_connections, 30, "the instance is given connections", interval=0.02)

    def remove(self, instance: Instance) -> None:
        """Give an instance no more connections, `REMOVAL_SECONDS` from now on, ready or not."""
        for place in self._places:
            if place.instance is instance:
                place.is_leaving = True
                threading.Timer(REMOVAL_SECONDS, self._take_out, [place]).start()

    def close(self) -> None:
        """Take no more connections, and end those that there are."""
        self._over.set()
        self._prober.join()
        super().close()

    def _connect(self) -> socket.socket:
        ready = [place for place in self._places if place.takes_connections]
        if not ready:
            raise ConnectionRefusedError("no instance is ready")
        place = ready[next(self._turns) % len(ready)]
        return socket.create_connection(("127.0.0.1", place.instance.port))

    def _probe(self) -> None:
        while not self._over.wait(_PROBE_SECONDS):
            for place in self._places:
                is_ready = place.instance.readiness().status == 200
                if place.takes_connections and not is_ready and not place.is_leaving:
                    self.remove(place.instance)
                elif is_ready and not place.is_leaving:
                    place.takes_connections = True

    def _take_out(self, place: _Place) -> None:
        place.takes_connections = False
        self._places = [other for other in self._places if other is not place]
