"""Fixtures that many tests share."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import conformance_table
import hypothesis
import pytest
from fake_server import FakeServer, be_silent
from harness import COMMANDS, PATIENCE, Peer, settle

from ipcpoll import Client, Limits, Server
from ipcpoll._attach import oneself

# The same examples each time: what passed today passes tomorrow. HYPOTHESIS_PROFILE=explore looks
# for new ones, and more of them.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# A shell without job control starts what is in the background with SIGINT ignored (POSIX, 2.11 of
# the shell's language), and so would all that is started here: tests of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def may_have_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is in some programs: else a server that nobody polls would be told to be one's own.

    Idle threads that libraries of other tests keep for a while must not decide.
    """
    monkeypatch.setattr(oneself, "is_only_thread", lambda: False)


@pytest.fixture
def directory() -> Iterator[str]:
    """A private directory with a short name: a socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="ipcpoll-") as path:
        yield path


@pytest.fixture
def long_directory(directory: str) -> str:
    """A directory with a path of 200 bytes."""
    path = directory
    while len(path) < 200:
        path = f"{path}/{'x' * min(60, 199 - len(path))}"
        os.mkdir(path, 0o700)
    return path


@pytest.fixture
def path(directory: str) -> str:
    """Where a socket may be."""
    return f"{directory}/s"


@pytest.fixture
def fake(path: str) -> Iterator[FakeServer]:
    """A server made by hand."""
    with FakeServer(path) as fake:
        yield fake


@pytest.fixture
def client(path: str) -> Iterator[Client]:
    """A client of what is at `path`, which has fallen silent at the end if it is in a loop."""
    with Client(path, timeout=PATIENCE) as client:
        yield client
        if client.fileno() >= 0:
            be_silent(client)


@pytest.fixture
def make_server(directory: str) -> Iterator[Callable[..., Server[Any]]]:
    """Make servers; at the end each one that is open must fall silent, and is closed."""
    servers: list[Server[Any]] = []

    def make(commands: Any = COMMANDS, **limits: Any) -> Server[Any]:
        path = f"{directory}/{len(servers)}.sock"
        servers.append(Server(path, commands, limits=Limits(**limits)))
        return servers[-1]

    yield make
    for server in servers:
        if not server.closed:
            settle(server)
        server.close()


@pytest.fixture
def server(make_server: Callable[..., Server[Any]]) -> Server[Any]:
    """A server of the harness's commands."""
    return make_server()


@pytest.fixture
def connect() -> Iterator[Callable[[Server[Any]], Peer]]:
    """Make clients by hand; they are closed at the end, after the server."""
    peers: list[Peer] = []

    def make(server: Server[Any]) -> Peer:
        peers.append(Peer(server))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


@pytest.fixture
def peer(server: Server[Any], connect: Callable[[Server[Any]], Peer]) -> Peer:
    """One client of `server`."""
    return connect(server)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of loops and cases, after a run of test_adapters.py."""
    marks: dict[tuple[str, str], str] = {}
    words = {
        "passed": conformance_table.PASSED,
        "failed": conformance_table.FAILED,
        "skipped": conformance_table.SKIPPED,
    }
    for outcome, word in words.items():
        for report in terminalreporter.stats.get(outcome, []):
            properties = dict(getattr(report, "user_properties", []))
            if "cell" in properties:
                applies = properties.get("applies", True)
                marks[properties["cell"]] = word if applies else conformance_table.APPLIES_NOT
    if marks:
        terminalreporter.section("what each loop has passed")
        titles, cases = (list(dict.fromkeys(names)) for names in zip(*marks, strict=True))
        for line in conformance_table.lines(titles, cases, marks):
            terminalreporter.write_line(line)
