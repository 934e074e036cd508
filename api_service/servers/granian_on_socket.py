"""Granian on a socket that it is given; it would open one by itself."""

from typing import Any

from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import Server


class GranianOnSocket(Server):
    """Granian in this process, on the socket with the file number `listening`, which it closes at its end."""

    def __init__(self, target: object, listening: int, **options: Any) -> None:
        self._listening = listening
        super().__init__(target, **options)

    def _init_shared_socket(self) -> None:
        self._shd: Any = SocketHolder(self._listening, False, self.backlog)  # type: ignore[call-arg]
