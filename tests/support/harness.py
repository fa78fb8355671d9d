"""What the tests of sockets share: commands, a raw client, and waiting for conditions.

Nothing here sleeps: a wait is for a condition, with a deadline that only a failing test reaches.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cbor2

from ipcpoll import Client, CommandError, Server
from ipcpoll._wire.framing import FrameBuffer, frame

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0
"""Seconds after which a wait has failed."""


# ---------------------------------------------------------------------------------------------
# Commands. The context is a `Host`.


@dataclass
class Host:
    """What the commands of these tests see of the program."""

    log: list[Any] = field(default_factory=list)
    server: Server[Any] | None = None
    do: Callable[[], Any] | None = None


@dataclass
class Echo:
    """Answers its value, and leaves it in the host's log."""

    value: int

    def process(self, ctx: Host) -> int:
        ctx.log.append(self.value)
        return self.value


@dataclass
class Blob:
    """Answers `size` bytes."""

    size: int

    def process(self, ctx: Host) -> bytes:
        ctx.log.append(self.size)
        return bytes(self.size)


@dataclass
class Take:
    """Answers how many bytes it was given."""

    data: bytes

    def process(self, ctx: Host) -> int:
        return len(self.data)


@dataclass
class Refuse:
    """Refuses with a code of the application's."""

    code: str
    message: str = "no"

    def process(self, ctx: Host) -> None:
        raise CommandError(self.code, self.message, {"why": [1, 2]})


@dataclass
class Do:
    """Does what the test put into the host: raise, poll, close, fork."""

    value: int = 0

    def process(self, ctx: Host) -> int:
        ctx.log.append(("do", self.value))
        assert ctx.do is not None
        ctx.do()
        return self.value


COMMANDS = [Echo, Blob, Take, Refuse, Do]


# ---------------------------------------------------------------------------------------------
# A client made by hand


def encode(message: Any) -> bytes:
    """Return one message as a frame."""
    return frame(cbor2.dumps(message))


def call(call_id: int | None, name: str, **fields: Any) -> bytes:
    """Return the frame of a call."""
    return encode([call_id, name, fields])


class Peer:
    """A client that sends what the test says, and nothing else."""

    def __init__(self, server: Server[Any] | str) -> None:
        self.path = server if isinstance(server, str) else server.address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(self.path)
        self.socket.setblocking(False)
        self.frames = FrameBuffer(64 * 1024 * 1024)
        self.ended = False

    def send(self, *frames: bytes) -> None:
        """Send all of it; the test sees to it that there is room."""
        data = b"".join(frames)
        assert self.socket.send(data) == len(data)

    def send_what_fits(self, data: bytes) -> int:
        """Send until the socket is full; return how many bytes it took."""
        sent = 0
        while sent < len(data):
            try:
                sent += self.socket.send(data[sent : sent + 65536])
            except BlockingIOError:
                break
        return sent

    def call(self, call_id: int | None, name: str, **fields: Any) -> None:
        """Send one call."""
        self.send(call(call_id, name, **fields))

    def received(self, most: int = 1 << 24) -> list[Any]:
        """Return the messages that have come, without waiting."""
        while most > 0:
            try:
                data = self.socket.recv(min(most, 65536))
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            if not data:
                self.ended = True
                break
            most -= len(data)
            self.frames.feed(data)
        messages = []
        while (payload := self.frames.next()) is not None:
            messages.append(cbor2.loads(payload))
        return messages

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def full_backlog(path: str) -> Iterator[None]:
    """Let somebody listen at `path` who takes in nobody, and fill the backlog."""
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as waiting:
        listener.bind(path)
        listener.listen(0)
        refused = 0
        while not refused:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            refused = waiting.enter_context(sock).connect_ex(path)
        yield


# ---------------------------------------------------------------------------------------------
# Waiting


def readable(thing: Any, seconds: float = 0) -> bool:
    """Return whether a descriptor is readable within the time."""
    poll = select.poll()
    poll.register(thing, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def wait_until(condition: Callable[[], Any], what: str = "the condition") -> None:
    """Call `condition` again and again until it is true; give way in between."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {PATIENCE} s"
        select.select([], [], [], 0.001)


def serve_until(
    server: Server[Any], condition: Callable[[], Any], ctx: Any = None, **budget: Any
) -> int:
    """Poll when the descriptor says so, until `condition` is true. Returns the number of polls."""
    context = Host() if ctx is None else ctx
    deadline = time.monotonic() + PATIENCE
    polls = 0
    while not condition():
        assert time.monotonic() < deadline, f"it did not come within {PATIENCE} s"
        if readable(server, 0.02):
            server.poll(context, **budget)
            polls += 1
    return polls


def both_until(
    server: Server[Any],
    client: Client,
    condition: Callable[[], object],
    host: Host | None = None,
) -> None:
    """Serve and poll in turns, each when its descriptor says so."""
    host = host or Host()
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        select.select([server, client], [], [], 0.02)
        if readable(server):
            server.poll(host)
        if readable(client):
            client.poll()


def answers(server: Server[Any], peer: Peer, count: int, ctx: Any = None) -> list[Any]:
    """Serve until `peer` has received `count` messages, and return them."""
    got: list[Any] = []
    serve_until(server, lambda: got.extend(peer.received()) or len(got) >= count, ctx)
    assert len(got) == count
    return got


def settle(server: Server[Any], ctx: Any = None) -> None:
    """Poll until nothing is left to do; the descriptor must then be silent."""
    context = Host() if ctx is None else ctx
    deadline = time.monotonic() + PATIENCE
    while readable(server):
        assert time.monotonic() < deadline, "the descriptor never fell silent"
        server.poll(context)
    assert not server.pending


# ---------------------------------------------------------------------------------------------
# Descriptors


class Closable(Protocol):
    """What has a descriptor."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)


@contextmanager
def above_1023(make: Callable[[], T]) -> Iterator[T]:
    """Make something while no descriptor below 1,024 is free; close it at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2200), hard), hard))
    used: list[int] = []
    try:
        while not used or used[-1] < 1024:
            used.append(os.open(os.devnull, os.O_RDONLY))
        made = make()
        while used:
            os.close(used.pop())
        assert made.fileno() > 1023
        with closing(made):
            yield made
    finally:
        for fd in used:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---------------------------------------------------------------------------------------------
# Real processes


def run_python(
    source: str, *arguments: str, stdin: int | None = None, prefix: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start a Python process that runs `source`; it can import ipcpoll and this module.

    `prefix` is the command that starts it, with its own arguments; it has the same pid if it execs.
    """
    paths = [str(ROOT), str(ROOT / "tests" / "support")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*prefix, sys.executable, "-W", "error", "-c", source, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str], said: str | None = None) -> str:
    """Wait for a process to end well, and return what it printed. `said` is its last input."""
    try:
        out, err = process.communicate(said, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it did not end: {out}\n{err}") from None
    assert process.returncode == 0, f"exit code {process.returncode}: {out}\n{err}"
    return out


def serve_process(server: Server[Any], process: subprocess.Popen[str], ctx: Any = None) -> str:
    """Serve until a process has ended well, and return what it printed."""
    try:
        serve_until(server, lambda: process.poll() is not None, ctx)
    finally:
        if process.poll() is None:
            process.kill()
    return finish(process)
