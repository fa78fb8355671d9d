"""What can go wrong for a client: rows 18 to 22 of the table in docs/security.md.

A test named after its row; other rows of the client are in test_client.py and test_reasons.py.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from harness import (
    COMMANDS,
    PATIENCE,
    Echo,
    Host,
    Take,
    call,
    encode,
    finish,
    run_python,
    serve_until,
    settle,
    wait_until,
)

from ipcpoll import (
    Client,
    Limits,
    NotAnswered,
    NotPolled,
    NotRunning,
    PeerGone,
    Server,
    ShuttingDown,
    StaleSocket,
    send,
)
from ipcpoll._client import connecting
from ipcpoll._system.peer import NOBODY, Credentials
from ipcpoll._wire.states import CallState


@pytest.fixture
def path(directory: str) -> str:
    return f"{directory}/s"


@contextmanager
def storm_of_signals() -> Iterator[None]:
    """A harmless signal each millisecond."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_hazard_18_backlog_that_is_full_under_a_storm_of_signals(path, monkeypatch):
    """In blocking mode a signal can make connect(2) seem to succeed. Here it waits for room."""
    attempts: list[int] = []
    connect_ex = socket.socket.connect_ex

    def counted(sock, address):
        attempts.append(connect_ex(sock, address))
        return attempts[-1]

    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        holders = []
        while not holders or not holders[-1].connect_ex(path):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            holders.append(stack.enter_context(sock))
        monkeypatch.setattr(socket.socket, "connect_ex", counted)

        def make_room_and_serve():
            wait_until(lambda: len(attempts) >= 5)
            for holder in holders:
                holder.close()
            data = b""
            while not data:  # those that held the backlog have gone
                connection, _ = listener.accept()
                with connection:
                    data = connection.recv(65536)
                    if data:
                        connection.sendall(encode([1, 0, 5]))

        server = threading.Thread(target=make_room_and_serve)
        server.start()
        with storm_of_signals():
            assert send(Echo(5), path, timeout=PATIENCE) == 5
        server.join()
    assert attempts.count(errno.EAGAIN) >= 5
    assert attempts[-1] == 0


def test_hazard_18_socket_that_only_seems_to_be_connected(path, monkeypatch):
    """Whoever has the credentials of nobody is not connected, whatever connect(2) said."""
    real = connecting.credentials
    said = [Credentials(0, NOBODY, NOBODY), Credentials(0, NOBODY, NOBODY)]
    monkeypatch.setattr(connecting, "credentials", lambda sock: said.pop() if said else real(sock))
    got: list[int] = []
    with Server(path, [Echo]) as server:
        client = threading.Thread(target=lambda: got.append(send(Echo(1), path)))
        client.start()
        serve_until(server, lambda: got)
        client.join()
    assert (got, said) == ([1], [])


def test_server_that_has_bound_and_does_not_listen_yet(path, monkeypatch):
    """A refused connection is tried again: a server that is just starting is no stale socket."""
    got: list[int] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        sleep = time.sleep

        def listen_meanwhile(seconds):
            listener.listen()
            sleep(seconds)

        monkeypatch.setattr(connecting.time, "sleep", listen_meanwhile)
        client = threading.Thread(target=lambda: got.append(send(Echo(5), path, timeout=PATIENCE)))
        client.start()
        connection, _ = listener.accept() if _listens(listener) else (None, None)
        with connection:
            connection.recv(65536)
            connection.sendall(encode([1, 0, 5]))
            client.join()
    assert got == [5]


def _listens(listener: socket.socket) -> bool:
    wait_until(lambda: listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return True


REQUEST = call(1, "Echo", value=5)


@pytest.mark.parametrize("size", range(len(REQUEST) + 1))
def test_hazard_20_server_that_ends_after_every_byte_of_a_call(path, size):
    """Once a byte was sent, a call is never sent again: it may have run."""
    connections = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve():
            connection, _ = listener.accept()
            with connection:
                read = b""
                while len(read) < size:
                    read += connection.recv(size - len(read))
            connections.append(read)

        server = threading.Thread(target=serve)
        server.start()
        with Client(path, timeout=PATIENCE) as client:
            with pytest.raises(PeerGone) as caught:
                client.call(Echo(5))
            server.join()
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
    assert connections == [REQUEST[:size]]
    # What it had not read to the last byte it can't have run.
    assert caught.value.unread is (size < len(REQUEST))


def test_hazard_21_answer_that_comes_before_a_reset_counts(path):
    """The server closes with unread input: its answer comes first, then ECONNRESET."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with Client(path, timeout=PATIENCE) as client:
            got = []
            caller = threading.Thread(target=lambda: got.append(client.call(Take(bytes(1000)))))
            caller.start()
            connection, _ = listener.accept()
            with connection:
                connection.recv(10)
                connection.sendall(encode([1, 0, 1000]))
            caller.join()
    assert got == [1000]


def test_hazard_21_client_that_is_still_sending_when_the_server_closes(path):
    """What it is told comes before the reset, though the server read only a part."""
    with Server(path, [Take]) as server, Client(path, timeout=PATIENCE) as client:
        caught = []

        def ask():
            try:
                client.call(Take(bytes(250_000)))
            except (ShuttingDown, PeerGone) as error:
                caught.append(error)

        caller = threading.Thread(target=ask)
        caller.start()
        serve_until(server, lambda: server.stats()["clients"], max_commands=0)
        server.close()
        caller.join()
    assert type(caught[0]) is ShuttingDown


def test_hazard_22_program_that_dies_of_sigpipe(path):
    """Neither end sends the signal, whatever the program has done with it."""
    out = finish(
        run_python(
            "import signal, sys\nfrom harness import *\nfrom ipcpoll import *\n"
            "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
            "path = sys.argv[1]\n"
            # The server's send meets a client that has gone.
            "server = Server(path, COMMANDS)\n"
            "peer = Peer(server)\npeer.call(1, 'Blob', size=1_000_000)\n"
            "server.poll(Host())\npeer.close()\nsettle(server)\n"
            # The client's meets a server that has gone.
            "client = Client(path, timeout=1)\n"
            "try: client.call(Echo(1), timeout=0)\n"
            "except NotPolled: server.close()\n"
            "for timeout in (0, 1):\n"
            "    try: client.call(Echo(2), timeout=timeout)\n"
            "    except IpcError as error: print(type(error).__name__)\n",
            path,
        )
    )
    assert out.split() == ["NotRunning", "NotRunning"]


def test_directory_that_is_not_there(path):
    """For a path of any length."""
    with pytest.raises(NotRunning, match="there is no socket at"):
        send(Echo(1), f"{path}/{'x' * 60}/{'y' * 60}/s")


def test_hazard_12_dead_socket_at_a_long_path(directory):
    long = f"{directory}/{'x' * 60}/{'y' * 60}"
    os.makedirs(long)
    finish(
        run_python(
            "import os, sys\nfrom harness import *\n"
            "server = Server(sys.argv[1], COMMANDS)\nos._exit(0)",
            f"{long}/s",
        )
    )
    with pytest.raises(StaleSocket, match=r"pid \d+ serves no more and has left its socket behind"):
        send(Echo(1), f"{long}/s")


@pytest.fixture
def ran(monkeypatch):
    """The sizes of the calls of `Take` that were run."""
    sizes: list[int] = []
    monkeypatch.setattr(Take, "process", lambda self, ctx: sizes.append(len(self.data)))
    return sizes


def test_call_whose_cancel_finds_no_room_is_not_run(path, ran):
    """It filled the socket to the last byte. Its client goes away instead of cancelling."""
    with Server(path, COMMANDS) as server, Client(path, timeout=0) as client:
        for size in range(200_000, 230_000, 500):  # what just fits is the kernel's to know
            with pytest.raises(NotPolled):
                client.call(Take(bytes(size)))
            settle(server)
    assert ran == []


@pytest.mark.parametrize("size", range(65_490, 65_530, 2))
def test_call_whose_cancel_stands_behind_what_one_read_takes_is_not_run(path, ran, size):
    with Server(path, COMMANDS) as server, Client(path, timeout=0) as client:
        with pytest.raises(NotPolled):
            client.call(Take(bytes(size)))
        client.notify(Echo(1), timeout=PATIENCE)
        host = Host()
        serve_until(server, lambda: host.log == [1], host)
    assert ran == []


def test_time_limit_holds_while_pieces_come_without_pause(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        over = threading.Event()

        def flood():
            connection, _ = listener.accept()
            piece = encode([1, 2, "x"]) * 1000
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.settimeout(PATIENCE)
                while not over.is_set():
                    connection.sendall(piece)

        server = threading.Thread(target=flood)
        server.start()
        client = Client(path, timeout=0.2)
        began = time.monotonic()
        with pytest.raises(NotAnswered):
            client.call(Echo(1))
        assert time.monotonic() - began < PATIENCE / 2
        over.set()
        client.close()
        server.join()


def test_call_behind_one_that_is_in_flight_is_not_said_to_be_unread(path):
    """The server has read the first and left the others: it is polled, only not done."""
    with Server(path, COMMANDS, limits=Limits(max_frames_waiting=1, read_size=64)) as server:
        with Client(path, timeout=0.05) as client:
            answers = client.map([Take(bytes(100)) for _ in range(4)], depth=4)
            serving = threading.Thread(target=serve_until, args=[server, lambda: True])
            serving.start()
            serving.join()
            channel = None
            with pytest.raises((NotAnswered, NotPolled)):
                next(answers)
            channel = client._session.connection
            call_id = channel.new_id()
            channel._protocol.calls[call_id - 1] = CallState.IN_FLIGHT  # an earlier one
            channel.post(call_id, b"\x83\x18\x63\x64Echo\xa1\x65value\x01")
            channel.send()
            assert type(channel.overdue(call_id, "Echo", 0.05)) is NotAnswered
        settle(server)


def test_connection_that_ends_behind_a_call_that_was_sent_whole(path):
    """Sending the second fails; the first may have run."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with Client(path, timeout=PATIENCE) as client:
            with pytest.raises(NotPolled):
                client.call(Echo(0), timeout=0)
            channel = client._session.connection
            first = channel.new_id()
            channel.post(first, b"\x83\x02\x64Echo\xa1\x65value\x01")
            channel.send()
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.close()
            second = channel.new_id()
            channel.post(second, b"\x83\x03\x64Echo\xa1\x65value\x01")
            channel.send()
            with pytest.raises(PeerGone) as caught:
                channel.wait_for(first, time.monotonic() + PATIENCE)
            assert not caught.value.unread
