"""Why there is no answer: each exception of the client provoked for real, its sentence compared.

The server is a real process of its own, which is killed, stopped, never polled, full, busy, closed,
or another user's.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from documents import blocks
from harness import PATIENCE, Do, Echo, Host, Peer, Take, readable, run_python, wait_until

from ipcpoll import (
    Busy,
    Client,
    NotAnswered,
    NotPolled,
    NotRunning,
    PeerGone,
    Server,
    ShuttingDown,
    StaleSocket,
    UntrustedPeer,
    send,
)
from ipcpoll._address import names as address
from ipcpoll._client import reasons
from ipcpoll._system import peer
from ipcpoll._system.peer import Credentials

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")

PREAMBLE = """
import os, signal, socket, sys, time
from harness import *
from ipcpoll import *
path = sys.argv[1]
def serve(server, host, done=lambda: False):
    while not done():
        if readable(server, 0.05):
            server.poll(host)
"""


@pytest.fixture
def path(directory: str) -> str:
    return f"{directory}/s"


@pytest.fixture
def program(path: str) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a process that runs some lines and prints `ready`; it is killed at the end."""
    with ExitStack() as stack:

        def start(source: str) -> subprocess.Popen[str]:
            process = run_python(PREAMBLE + source, path)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line == "ready\n", line + process.stderr.read()
            return process

        yield start


SERVED = """
server = Server(path, COMMANDS)
print("ready")
serve(server, Host(do=lambda: os.kill(os.getpid(), int(os.environ.get("WITH", "9")))))
"""
NEVER_POLLED = """
server = Server(path, COMMANDS)
print("ready")
signal.pause()
"""


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def test_nothing_there(path):
    with pytest.raises(NotRunning) as caught:
        send(Echo(1), path)
    assert type(caught.value) is NotRunning
    assert str(caught.value) == f"the program does not run: there is no socket at {path}"


def test_killed_before_the_call(program, path):
    """The lock file still tells whose socket it was."""
    process = program(SERVED)
    end(process)
    with pytest.raises(StaleSocket) as caught:
        send(Echo(1), path)
    assert str(caught.value) == (
        f"pid {process.pid} serves no more and has left its socket behind: nobody listens at {path}"
    )


def test_killed_in_the_command(program, path):
    process = program(SERVED)
    with Client(path, timeout=PATIENCE) as client:
        assert client.call(Echo(1)) == 1
        with pytest.raises(PeerGone) as caught:
            client.call(Do())
    assert str(caught.value) == (
        f"pid {process.pid} closed the connection or ended before the answer; "
        f"the call may have run ({path})"
    )
    assert not caught.value.unread


@pytest.mark.parametrize("accepted", [True, False])
def test_killed_before_it_read_the_call(program, path, accepted):
    """The kernel says so: the connection is reset, and not just ended."""
    process = program(SERVED if accepted else NEVER_POLLED)
    with Client(path, timeout=PATIENCE) as client:
        if accepted:
            assert client.call(Echo(1)) == 1
            os.kill(process.pid, signal.SIGSTOP)
            wait_until(lambda: peer.is_stopped(process.pid))

        def kill_when_the_call_waits():
            wait_until(
                lambda: (
                    client._session.connection
                    and peer.has_unread(client._session.connection._socket)
                )
            )
            process.kill()

        killer = threading.Thread(target=kill_when_the_call_waits)
        killer.start()
        with pytest.raises(PeerGone) as caught:
            client.call(Echo(2))
        killer.join()
    assert str(caught.value) == (
        f"pid {process.pid} closed the connection or ended without reading the call; "
        f"it was not run ({path})"
    )
    assert caught.value.unread


def test_hazard_19_stopped(program, path):
    """Ctrl-Z, kill -STOP or a debugger."""
    process = program(SERVED)
    with Client(path, timeout=0.05) as client:
        assert client.call(Echo(1), timeout=PATIENCE) == 1
        os.kill(process.pid, signal.SIGSTOP)
        wait_until(lambda: peer.is_stopped(process.pid))
        with pytest.raises(NotPolled) as caught:
            client.call(Echo(2))
        assert str(caught.value) == (
            f"pid {process.pid} is stopped (by a signal or a debugger) and has not read Echo "
            f"within 0.05 s; it was cancelled and will most likely not run ({path})"
        )
        os.kill(process.pid, signal.SIGCONT)
        assert client.call(Echo(3), timeout=PATIENCE) == 3


def test_stopped_in_the_command(program, path, monkeypatch):
    monkeypatch.setenv("WITH", str(int(signal.SIGSTOP)))
    process = program(SERVED)
    with Client(path, timeout=PATIENCE) as client:
        assert client.call(Echo(1)) == 1
        # It must have been read before the time is over, however slow the machine is.
        channel = client._session.connection
        call_id = channel.new_id()
        channel.post(call_id, b"\x83\x02\x62Do\xa0")
        channel.send()
        wait_until(lambda: peer.is_stopped(process.pid))
        error = channel.overdue(call_id, "Do", 0.05)
    assert type(error) is NotAnswered
    assert str(error) == (
        f"pid {process.pid} is stopped (by a signal or a debugger) and has not answered Do "
        f"within 0.05 s; it may still run it ({path})"
    )


def test_never_polled(program, path):
    process = program(NEVER_POLLED)
    with pytest.raises(NotPolled) as caught:
        send(Echo(1), path, timeout=0.05)
    assert str(caught.value) == (
        f"pid {process.pid} is alive and has not read Echo within 0.05 s; "
        f"it was cancelled and will most likely not run ({path})"
    )


BUSY = """
server = Server(path, COMMANDS)
print("ready")
serve(server, Host(do=lambda: (print("in the command", flush=True), signal.pause())))
"""


def test_busy_with_the_call_itself(program, path):
    process = program(BUSY)
    with Client(path, timeout=PATIENCE) as client:
        assert client.call(Echo(1)) == 1
        with Peer(path) as other:
            other.call(1, "Do")
            assert process.stdout.readline() == "in the command\n"
            # Another client's call is not read meanwhile …
            with pytest.raises(NotPolled) as caught:
                client.call(Echo(2), timeout=0.05)
            assert str(caught.value) == (
                f"pid {process.pid} is alive and has not read Echo within 0.05 s; "
                f"it was cancelled and will most likely not run ({path})"
            )
            # … nor is the next one, and that is known although an earlier one is in flight.
            with pytest.raises(NotPolled):
                client.call(Echo(3), timeout=0.05)
    end(process)
    process = program(BUSY)
    with Client(path, timeout=PATIENCE) as client:
        assert client.call(Echo(1)) == 1
        with pytest.raises(NotAnswered) as answered:
            client.call(Do(), timeout=1.0)
    assert str(answered.value) == (
        f"pid {process.pid} is alive and has not answered Do within 1 s; it may still run it "
        f"({path})"
    )


def test_full(program, path):
    process = program(SERVED.replace("COMMANDS)", "COMMANDS, limits=Limits(max_clients=1))"))
    with Client(path, timeout=PATIENCE) as first:
        assert first.call(Echo(1)) == 1
        with pytest.raises(Busy) as caught:
            send(Echo(2), path, timeout=PATIENCE)
    assert caught.value.message == (
        f"the server has 1 clients, which is its limit; try again later (pid {process.pid}, {path})"
    )


def test_closing(program, path):
    """It closes while the call waits in its backlog, not even accepted."""
    process = program(
        """
server = Server(path, COMMANDS)
print("ready")
wait_until(lambda: readable(server))
server.close()
"""
    )
    with pytest.raises(ShuttingDown) as caught:
        send(Echo(2), path, timeout=PATIENCE)
    assert caught.value.message == (
        f"the server closed before the call had its turn (pid {process.pid}, {path})"
    )


def test_hazard_18_full_backlog(program, path):
    process = program(
        NEVER_POLLED.replace("COMMANDS)", "COMMANDS, limits=Limits(backlog=1))"),
    )
    with ExitStack() as stack:
        refused = 0
        while not refused:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            refused = stack.enter_context(sock).connect_ex(path)
        with pytest.raises(NotPolled) as caught:
            send(Echo(1), path, timeout=0.05)
    assert str(caught.value) == (
        f"pid {process.pid} is alive and has not taken in this connection within 0.05 s, "
        f"its backlog is full; nothing was sent ({path})"
    )


def test_no_room(program, path):
    process = program(NEVER_POLLED)
    with Client(path, timeout=0.05) as client:
        with pytest.raises(NotPolled) as caught:
            list(map(client.notify, itertools.repeat(Take(bytes(100_000)))))
        assert str(caught.value) == (
            f"pid {process.pid} is alive and has made no room for Take within 0.05 s; "
            f"a part of it was sent ({path})"
        )
        with pytest.raises(NotPolled) as caught:
            client.call(Echo(1))
        assert str(caught.value) == (
            f"pid {process.pid} is alive and has made no room for Echo within 0.05 s; "
            f"it was not sent ({path})"
        )


def test_call_of_which_a_part_was_sent_was_not_read(program, path):
    process = program(NEVER_POLLED)
    with Client(path, timeout=PATIENCE) as client:
        with pytest.raises(NotPolled) as caught:  # a socket takes less than that
            client.call(Take(bytes(250_000)), timeout=0.05)
        assert client._session.connection._out[0].begun
    assert str(caught.value) == (
        f"pid {process.pid} is alive and has not read Take within 0.05 s; "
        f"it was cancelled and will most likely not run ({path})"
    )


@as_root
def test_hazard_17_server_of_another_user(program, path, directory):
    """It is found out before a byte is sent."""
    os.chmod(directory, 0o777)
    process = program(
        f"""
os.setgid({NOBODY})
os.setuid({NOBODY})
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o777)
listener.listen()
print("ready")
connection, _ = listener.accept()
print("received", connection.recv(100), flush=True)
"""
    )
    with pytest.raises(UntrustedPeer) as caught:
        send(Echo(1), path, timeout=PATIENCE)
    assert str(caught.value) == (
        f"pid {process.pid} belongs to user {NOBODY}, this process to user 0; "
        f"nothing was sent ({path})"
    )
    assert process.stdout.readline() == "received b''\n"


@pytest.fixture
def no_runtime_directory(directory, monkeypatch):
    """A user without one: names lie in a directory that anybody could have made."""
    monkeypatch.setattr(address, "_fault", lambda directory: "is not there")
    monkeypatch.setattr(
        address, "_runtime_directory", lambda: Path(directory, "ipcpoll-of-this-user")
    )
    return Path(directory, "ipcpoll-of-this-user")


@pytest.mark.parametrize("fault", ["open to others", "another user's", "a link"])
def test_hazard_17_name_whose_directory_is_not_private(no_runtime_directory, path, fault):
    """In it another user could lead the name to a second program of this user.

    That one has the right uid; it is not what was meant.
    """
    no_runtime_directory.mkdir(mode=0o700)
    if fault == "open to others":
        no_runtime_directory.chmod(0o755)
    elif fault == "another user's":
        if os.geteuid() != 0:
            pytest.skip("needs root to give a directory away")
        os.chown(no_runtime_directory, NOBODY, NOBODY)
    else:
        no_runtime_directory.rename(f"{no_runtime_directory}.real")
        no_runtime_directory.symlink_to(f"{no_runtime_directory}.real")
    os.symlink(path, no_runtime_directory / "calc.sock")
    with Server(path, [Echo]) as other:
        with pytest.raises(UntrustedPeer, match=r"nothing was sent \(.*/calc\.sock\)") as caught:
            send(Echo(1), "calc", timeout=0.05)
        assert str(no_runtime_directory) in str(caught.value)
        assert other.poll(Host()) == 0
        assert other.stats()["accepted"] == 0


def test_name_whose_directory_is_private(no_runtime_directory):
    with pytest.raises(NotRunning):
        send(Echo(1), "calc")
    with Server("calc", [Echo]) as server:
        assert server.address == f"{no_runtime_directory}/calc.sock"
        with pytest.raises(NotPolled):
            send(Echo(1), "calc", timeout=0)


@as_root
def test_socket_that_is_closed_to_this_user(path, directory):
    os.chmod(directory, 0o755)
    with Server(path, [Echo]):
        client = run_python(
            PREAMBLE
            + f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
            + "try: send(Echo(1), path)\n"
            + "except UntrustedPeer as error: print(error)\n",
            path,
        )
        out, err = client.communicate(timeout=PATIENCE)
    assert out == (
        f"user {NOBODY} may not connect: the socket, or a directory above it, is closed to this "
        f"user; nothing was sent ({path})\n"
    ), err


@as_root
def test_hazard_27_client_of_another_user(path, directory, caplog):
    """Wrong modes let it connect. It is told nothing."""
    os.chmod(directory, 0o755)
    with Server(path, [Echo]) as server:
        os.chmod(path, 0o777)
        client = run_python(
            PREAMBLE
            + f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
            + "with socket.socket(socket.AF_UNIX) as sock:\n"
            + "    sock.connect(path)\n"
            + "    try:\n"
            + "        sock.sendall(call(1, 'Echo', value=5))\n"
            + "        print(sock.recv(100))\n"
            + "    except (BrokenPipeError, ConnectionResetError):\n"
            + "        print(b'')\n",
            path,
        )
        host = Host()
        while client.poll() is None:
            if readable(server, 0.02):
                server.poll(host)
        assert client.communicate()[0] == "b''\n"
        assert host.log == []
        assert server.stats()["untrusted"] == 1
        assert server.stats()["clients"] == 0
        assert f"a connection of user {NOBODY} was closed" in caplog.text


# ---------------------------------------------------------------------------------------------
# What the sentences are made of


def test_process_that_can_not_be_named():
    nobody = Credentials(0, 0, 0)
    assert str(reasons.not_read("/s", nobody, "Add", 5.0)) == (
        "the program (pid unknown) is alive and has not read Add within 5 s; "
        "it was cancelled and will most likely not run (/s)"
    )
    assert not peer.is_stopped(0)


def test_sentence_that_the_readme_shows(monkeypatch):
    monkeypatch.setattr(reasons, "is_stopped", lambda pid: pid == 4711)
    server = Credentials(4711, 1000, 1000)
    error = reasons.not_read("/run/user/1000/ipcpoll/calc.sock", server, "Add", 5.0)
    [shown] = [block.text for block in blocks("README.md") if block.language == "text"]
    assert " ".join(shown.split()) == f"{type(error).__name__}: {error}"
