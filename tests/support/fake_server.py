"""A server made by hand: it says what the test says, when the test says it, on real sockets.

And what the tests of clients inside a loop share: a command for it, and how a client is polled.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import cbor2
from harness import PATIENCE, encode, readable

from ipcpoll import Client, Subscription, Topic
from ipcpoll._wire.framing import FrameBuffer


class FakeServer:
    """Listens at a path; `accept` gives the next client's connection."""

    def __init__(self, path: str, backlog: int = 16) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen(backlog)
        self._connections: list[Connection] = []

    def accept(self) -> Connection:
        """Return the connection of the next client, which must come."""
        assert readable(self._socket, PATIENCE), "nobody connected"
        self._connections.append(Connection(self._socket.accept()[0]))
        return self._connections[-1]

    @property
    def is_asked(self) -> bool:
        """Whether a client waits to be accepted."""
        return readable(self._socket)

    def close(self) -> None:
        """Close it and its connections; the socket's file stays."""
        for connection in self._connections:
            connection.close()
        self._socket.close()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Connection:
    """One client of a fake server."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._frames = FrameBuffer(1 << 26)
        self.ended = False

    def next(self) -> Any:
        """Return the next message of the client, which must come; None at its end."""
        while not (messages := self.heard(1)) and not self.ended:
            assert readable(self.socket, PATIENCE), "the client said nothing"
        return messages[0] if messages else None

    def heard(self, most: int = 1 << 30) -> list[Any]:
        """Return the messages that have come, without waiting."""
        messages: list[Any] = []
        while len(messages) < most:
            payload = self._frames.next()
            if payload is not None:
                messages.append(cbor2.loads(payload))
                continue
            if self.ended or not readable(self.socket):
                break
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            self.ended = not data
            self._frames.feed(data)
        return messages

    @property
    def is_silent(self) -> bool:
        """Whether the client has said nothing more."""
        return not readable(self.socket)

    def say(self, *messages: Any) -> None:
        """Send messages."""
        self.socket.sendall(b"".join(map(encode, messages)))

    def fill(self, message: Any, most: int = 100_000) -> int:
        """Send a message again and again until nothing more is taken; return how often."""
        self.socket.setblocking(False)
        frame = encode(message)
        sent = 0
        try:
            while sent < most and self.socket.send(frame) == len(frame):
                sent += 1
        except BlockingIOError:
            pass
        finally:
            self.socket.setblocking(True)
        return sent

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


@dataclass
class Count:
    """Numbers, and then a text."""

    to: int = 3

    def process(self, ctx: Any) -> Generator[int, None, str]:
        yield self.to
        return "done"


@dataclass
class Hear:
    """What a topic publishes."""

    def process(self, ctx: Any) -> Subscription[int]:
        return Topic[int]().subscribe()


def be_silent(client: Client) -> None:
    """Check that the descriptor tells the truth: there is nothing to do."""
    polls = 0
    while readable(client):
        client.poll()
        polls += 1
        assert polls < 100, "the descriptor never fell silent"
    assert not client.pending
    assert client.poll() == 0


def poll_until(client: Client, condition: Callable[[], Any]) -> None:
    """Poll when the descriptor says so, until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        if readable(client, 0.02):
            client.poll()
