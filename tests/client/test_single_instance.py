"""`serve_or_send`: become the server, or hand the command over, without a race."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from dataclasses import dataclass

import pytest
from harness import (
    COMMANDS,
    PATIENCE,
    Do,
    Echo,
    Host,
    finish,
    run_python,
    serve_until,
    wait_until,
)

from ipcpoll import (
    AlreadyRunning,
    Client,
    CommandError,
    NotPolled,
    PeerGone,
    Server,
    ShuttingDown,
    StaleSocket,
    UnknownCommand,
    serve_or_send,
    single_instance,
)


@pytest.fixture
def path(directory):
    return f"{directory}/s"


def test_first_one_becomes_the_server(path):
    server, answer = serve_or_send(path, Echo, Echo(1))
    assert answer is None
    with server:
        assert isinstance(server, Server)
        assert server.address == path
        assert not server.pending
        host = Host()
        assert server.poll(host) == 0
        assert host.log == [], "the command was not run"


def test_second_one_hands_its_command_over(path):
    outcome = []
    host = Host()
    with Server(path, COMMANDS) as server:
        thread = threading.Thread(
            target=lambda: outcome.append(serve_or_send(path, COMMANDS, Echo(7)))
        )
        thread.start()
        serve_until(server, lambda: outcome, host)
        thread.join()
    assert outcome == [(None, 7)]
    assert host.log == [7]


def test_dead_socket_is_taken_over(path):
    process = run_python("import os, sys\nfrom ipcpoll import *\nfrom harness import *\n"
                         "Server(sys.argv[1], Echo)\nos._exit(0)", path)  # fmt: skip
    finish(process)
    assert os.path.exists(path)
    server, _ = serve_or_send(path, Echo, Echo(1))
    assert server is not None
    server.close()


@dataclass
class Unknown:
    def process(self, ctx: Host) -> None: ...


def test_what_the_running_one_answers_is_raised(path):
    caught = []

    def ask():
        try:
            serve_or_send(path, [Unknown], Unknown())
        except CommandError as error:
            caught.append(error)

    with Server(path, COMMANDS) as server:
        thread = threading.Thread(target=ask)
        thread.start()
        serve_until(server, lambda: caught)
        thread.join()
    assert type(caught[0]) is UnknownCommand


def test_running_one_that_is_not_polled(path):
    with Server(path, COMMANDS), pytest.raises(NotPolled, match="has not read Echo within 0"):
        serve_or_send(path, COMMANDS, Echo(1), timeout=0.05)


def test_lock_whose_owner_serves_nobody(path):
    fd = os.open(path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        pid = os.getpid()
        os.write(fd, b"%d\n" % pid)
        with pytest.raises(AlreadyRunning, match=rf"\(pid {pid}\)") as caught:
            serve_or_send(path, COMMANDS, Echo(1), timeout=0.03)
        assert caught.value.pid == pid
        assert "there is no socket" in str(caught.value.__cause__)
        with pytest.raises(AlreadyRunning):
            serve_or_send(path, COMMANDS, Echo(1), timeout=0)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "ending",
    [
        ShuttingDown("the server closed before the call had its turn"),
        StaleSocket("has ended"),
        PeerGone("ended without reading the call", True),
    ],
    ids=lambda error: type(error).__name__,
)
def test_running_one_that_ends_just_then(path, monkeypatch, ending):
    """It was not run, that is known: so this process becomes the server."""
    running = Server(path, COMMANDS)

    def ended(*_, **__):
        running.close()
        ending.told_to_all = True
        raise ending

    monkeypatch.setattr(single_instance, "send", ended)
    server, answer = serve_or_send(path, COMMANDS, Echo(1), timeout=None)
    assert answer is None
    server.close()


def test_command_that_passes_on_what_another_server_told_it(path):
    """It ran, so it is not sent again, though the code is that of a server that closes."""
    outcome = []

    def relay():
        raise ShuttingDown("the server that the command asked has closed")

    def ask():
        try:
            serve_or_send(path, COMMANDS, Do(7))
        except ShuttingDown as error:
            outcome.append(error)

    host = Host(do=relay)
    with Server(path, COMMANDS) as server:
        thread = threading.Thread(target=ask)
        thread.start()
        serve_until(server, lambda: outcome, host)
        thread.join()
    assert host.log == [("do", 7)]
    assert not outcome[0].told_to_all


def test_command_that_may_have_run_is_not_repeated(path, monkeypatch):
    def gone(*_, **__):
        raise PeerGone("ended before the answer")

    monkeypatch.setattr(single_instance, "send", gone)
    with Server(path, COMMANDS), pytest.raises(PeerGone):
        serve_or_send(path, COMMANDS, Echo(1))


# One process of the race. It runs its command itself when it becomes the server, serves some
# others, and closes.
CONTENDER = """
import os, sys
from harness import *
from ipcpoll import serve_or_send
path, log, name = sys.argv[1:]
file = os.open(log, os.O_WRONLY | os.O_APPEND)
class Host:
    class Log(list):
        def append(self, value):
            os.write(file, b"%d\\n" % value)
            list.append(self, value)
    def __init__(self):
        self.log = self.Log()
print("ready", flush=True)
sys.stdin.readline()
server, answer = serve_or_send(path, Echo, Echo(int(name)), timeout=60)
if server is None:
    assert answer == int(name)
    print("sent")
else:
    host = Host()
    Echo(int(name)).process(host)
    deadline = time.monotonic() + int(name) % 5 * 0.01
    while len(host.log) < int(name) % 4 + 1 and time.monotonic() < deadline:
        if readable(server, 0.01):
            server.poll(host, max_commands=1)
    server.close()
    print("served")
"""


def test_race_of_many_processes(path, directory):
    """They start together and end at once: every command is run exactly once, by somebody."""
    log = f"{directory}/log"
    open(log, "w").close()
    processes: list[subprocess.Popen[str]] = []
    try:
        for name in range(24):
            processes.append(run_python(CONTENDER, path, log, str(name), stdin=subprocess.PIPE))
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        shown = [finish(process).strip() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert set(shown) <= {"sent", "served"}
    assert "served" in shown
    with open(log) as file:
        assert sorted(map(int, file)) == list(range(24))
    assert os.listdir(directory) == ["log"], "the last one has tidied up"


def test_killed_servers_lose_only_what_they_had_read(path):
    """SIGKILL while calls wait unread: who called becomes the server, or hands over to the next."""
    victim = run_python(
        "import sys, signal\nfrom harness import *\n"
        "server = Server(sys.argv[1], COMMANDS)\nprint('ready', flush=True)\nsignal.pause()",
        path,
    )
    try:
        assert victim.stdout.readline() == "ready\n"
        outcomes = []
        threads = [
            threading.Thread(
                target=lambda value=value: outcomes.append(
                    serve_or_send(path, COMMANDS, Echo(value), timeout=PATIENCE)
                )
            )
            for value in range(5)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: waiting_in_backlog(path) >= 1)
        victim.kill()
        wait_until(lambda: any(server for server, _ in outcomes))
        [server] = [server for server, _ in outcomes if server]
        host = Host()
        serve_until(server, lambda: len(outcomes) == 5, host)
        for thread in threads:
            thread.join()
        server.close()
        assert sorted(answer for other, answer in outcomes if other is None) == sorted(host.log)
        assert len(host.log) == 4
    finally:
        victim.kill()
        victim.communicate()


def waiting_in_backlog(path: str) -> int:
    """Count the connections that nobody has accepted yet: they have the listener's path."""
    with open("/proc/net/unix") as file:
        lines = [line.split() for line in file if line.rstrip().endswith(path)]
    return len([line for line in lines if line[5] != "01"])


def test_client_can_be_used_after_it(path):
    server, _ = serve_or_send(path, COMMANDS, Echo(1))
    with server, Client(path, timeout=PATIENCE) as client:
        got = []
        thread = threading.Thread(target=lambda: got.append(client.call(Echo(2))))
        thread.start()
        serve_until(server, lambda: got)
        thread.join()
    assert got == [2]
