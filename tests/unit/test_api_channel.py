"""Who sends on a connection of waitress: its thread, or the loop."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from waitress.adjustments import Adjustments

from api_service.servers.channel import Channel

LARGE = bytes(50_000_000)


class Server:
    """What a channel needs of the server: it counts how often the loop was woken."""

    def __init__(self) -> None:
        self.active_channels: dict[int, Any] = {}
        self.woken = 0

    def pull_trigger(self) -> None:
        self.woken += 1


class Watched(Channel):
    """A channel that notes what it said to the loop during each call of the kernel."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.said: list[bool] = []
        super().__init__(*arguments, **options)

    def send(self, data: bytes, do_close: bool = True) -> int:
        self.said.append(self.writable())
        return int(super().send(data, do_close))


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def client() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield both ends of a connection, the client's first."""
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def channel(server: Server, client: tuple[socket.socket, socket.socket]) -> Iterator[Watched]:
    """Yield the server's end as a channel that lets no thread wait for its client."""
    channel = Watched(server, client[1], ("127.0.0.1", 1), Adjustments(outbuf_high_watermark=2 * len(LARGE)), map={})
    yield channel
    channel.handle_close()


def test_the_loop_is_not_told_to_write_while_a_thread_sends(
    channel: Watched, server: Server, client: tuple[socket.socket, socket.socket]
) -> None:
    channel.write_soon(b"answer")

    assert channel.said == [False]
    assert client[0].recv(100) == b"answer"
    assert not channel.writable()
    assert server.woken == 0


def test_what_a_thread_could_not_send_is_left_to_the_loop_which_is_woken(
    channel: Watched, server: Server, client: tuple[socket.socket, socket.socket]
) -> None:
    channel.write_soon(LARGE)

    assert set(channel.said) == {False}
    assert channel.writable()
    assert server.woken > 0
    channel.said.clear()
    received = 0
    while channel.writable():
        channel.handle_write()
        received += len(client[0].recv(1_000_000))
    client[0].setblocking(False)
    while received < len(LARGE):
        received += len(client[0].recv(1_000_000))
    assert set(channel.said) == {True}


def test_a_connection_whose_client_went_while_a_thread_sent_is_closed_by_the_loop(
    channel: Watched, server: Server, client: tuple[socket.socket, socket.socket]
) -> None:
    client[0].close()

    channel.write_soon(b"answer")

    assert server.woken > 0
    assert channel.writable()
    channel.handle_write()
    assert not channel.connected
