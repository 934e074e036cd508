"""Sends one request again and again over several connections, and counts the answers.

A program of its own, so that its work is not done by the process that is measured, nor by the one that measures.
"""

import selectors
import socket
import time
from dataclasses import dataclass, field

import click

_CHUNK_BYTES = 262_144
_PATIENCE_SECONDS = 30.0


@dataclass
class Client:
    """One connection, and what has come of the answer that it waits for."""

    connection: socket.socket
    received: bytearray = field(default_factory=bytearray)
    length: int = 0
    """Bytes of the whole answer, 0 while its head is not there."""

    def receive(self) -> bool:
        """Take what has come; return whether the answer is whole. Raises ClickException if it is not 200."""
        chunk = self.connection.recv(_CHUNK_BYTES)
        if not chunk:
            raise click.ClickException("the server closed a connection")
        self.received += chunk
        if not self.length:
            self.length = _length(self.received)
        if not self.length or len(self.received) < self.length:
            return False
        self.received.clear()
        self.length = 0
        return True


def _length(received: bytearray) -> int:
    """Return the length of an answer with its head, 0 if the head is not there yet."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = bytes(received[:end]).lower()
    if not head.startswith(b"http/1.1 200"):
        raise click.ClickException(f"not answered with 200: {head[:60]!r}")
    return end + 4 + int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])


@click.command()
@click.argument("port", type=int)
@click.argument("path")
@click.option("--connections", default=8, show_default=True)
@click.option("--seconds", default=2.0, show_default=True)
def main(port: int, path: str, connections: int, seconds: float) -> None:
    """Print how many answers a second came from PORT of this machine to GET PATH."""
    request = f"GET {path} HTTP/1.1\r\nHost: benchmark\r\n\r\n".encode()
    waiting = selectors.DefaultSelector()
    for _ in range(connections):
        client = Client(socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_SECONDS))
        client.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting.register(client.connection, selectors.EVENT_READ, client)
        client.connection.sendall(request)
    began = time.perf_counter()
    answers = 0
    while (elapsed := time.perf_counter() - began) < seconds:
        ready = waiting.select(_PATIENCE_SECONDS)
        if not ready:
            raise click.ClickException("no answer")
        for key, _ in ready:
            if key.data.receive():
                answers += 1
                key.data.connection.sendall(request)
    click.echo(answers / elapsed)


if __name__ == "__main__":
    main()
