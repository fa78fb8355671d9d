"""A server that a thread polls, so that a test may block in a client."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from harness import PATIENCE

from ipcpoll import Server


@contextmanager
def served(path: str, commands: Any, ctx: Any, options: dict[str, Any]) -> Iterator[Server[Any]]:
    """Make a server, and let a thread poll it until the end."""
    made: list[Any] = []
    ready, over = threading.Event(), threading.Event()

    def serve() -> None:
        try:
            server = Server(path, commands, **options)
        except BaseException as error:
            made.append(error)
            ready.set()
            return
        with server:
            made.append(server)
            ready.set()
            while not over.is_set():
                select.select([server], [], [], PATIENCE)
                server.poll(ctx)

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(PATIENCE)
    [server] = made
    try:
        if isinstance(server, BaseException):
            raise server
        yield server
    finally:
        over.set()
        if isinstance(server, Server):
            server.wake()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def serve(directory: str) -> Iterator[Callable[..., Server[Any]]]:
    """Serve commands until the end of the test. `ctx` is the context, the rest is for Server."""
    with ExitStack() as ending:
        many = iter(range(100))

        def begin(commands: Any, ctx: Any = None, **options: Any) -> Server[Any]:
            path = f"{directory}/{next(many)}.sock"
            return ending.enter_context(served(path, commands, ctx, options))

        yield begin
