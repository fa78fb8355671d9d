"""The client: calls, notifications, requests, time limits, and what it says when it fails."""

from __future__ import annotations

import itertools
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from harness import (
    PATIENCE,
    Blob,
    Echo,
    Host,
    Refuse,
    Take,
    encode,
    finish,
    run_python,
    serve_until,
    settle,
    wait_until,
)
from serving import Find, Found, Missing, Serving

from ipcpoll import (
    Busy,
    Client,
    CommandError,
    FrameTooLarge,
    InternalError,
    InvalidArguments,
    Limits,
    NotPolled,
    NotRunning,
    PeerGone,
    Server,
    ShuttingDown,
    StaleSocket,
    UnknownCommand,
    UsageError,
    send,
)
from ipcpoll._client.connection import ClientConnection


@dataclass
class Unknown:
    """A command that no server of these tests has."""

    def process(self, ctx: Host) -> None: ...


@pytest.fixture
def client(serving: Serving) -> Iterator[Client]:
    with Client(serving.server.address, timeout=PATIENCE) as client:
        yield client


# ---------------------------------------------------------------------------------------------
# Calls


def test_call(client):
    assert client.call(Echo(5)) == 5


def test_many_calls_over_one_connection(client, serving):
    assert [client.call(Echo(i)) for i in range(100)] == list(range(100))
    assert serving.server.stats()["accepted"] == 1


def test_send_connects_calls_and_closes(serving):
    assert send(Echo(7), serving.server.address, timeout=PATIENCE) == 7
    wait_until(lambda: serving.server.stats()["clients"] == 0)


def test_answer_that_is_one_of_several_dataclasses(client):
    assert client.call(Find("x")) == Found("/x", 3)
    assert client.call(Find("y")) == Missing(["x"])
    assert client.call(Find("")) is None


def test_large_request_and_large_answer(client):
    assert client.call(Take(bytes(250_000))) == 250_000
    assert client.call(Blob(5_000_000)) == bytes(5_000_000)


def test_request_by_name_with_plain_values(client):
    assert client.request("Echo", {"value": 5}) == 5
    assert client.request("Find", {"name": "x"}) == ["Found", {"path": "/x", "size": 3}]


def test_request_without_fields(client):
    with pytest.raises(InvalidArguments, match=r"^Echo\.value is missing"):
        client.request("Echo")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), r"Echo\.value is a value of type `object`; without an annotation only "),
        ((1, 2), r"Echo\.value is a tuple; without an annotation only None, .*; give a list$"),
        ([{"at": (1, 2)}], r"Echo\.value\[0\]\['at'\] is a tuple; "),
        ({1: 2}, r"Echo\.value has a key that must be a str, not 1$"),
        (2**64, r"Echo\.value: an integer outside -2\^63 to 2\^64-1 - at `\$`$"),
        ("\ud800", r"Echo\.value: text with a lone surrogate - at `\$`$"),
    ],
)
def test_request_with_what_can_not_be_carried(client, value, words):
    with pytest.raises((TypeError, ValueError), match=f"^{words}"):
        client.request("Echo", {"value": value})
    assert client.request("Echo", {"value": 1}) == 1


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("Echo", {1: 2}, "Echo: the name of a field is text, not 1"),
        ("Echo", {"\ud800": 2}, "Echo: text with a lone surrogate - at `$`"),
        ("Echo", [1], "Echo: the fields of a request are a dict, not a list"),
        ("Echo", "value", "Echo: the fields of a request are a dict, not 'value'"),
        ("Echo", 0, "Echo: the fields of a request are a dict, not 0"),
        (Echo, {}, "a request names its command in text, not by a value of type `type`"),
        (Echo(1), {}, "a request names its command in text, not by a value of type `Echo`"),
    ],
)
def test_request_that_is_none(client, name, fields, words):
    with pytest.raises((TypeError, ValueError)) as caught:
        client.request(name, fields)
    assert str(caught.value) == words
    assert client.request("Echo", {"value": 1}) == 1


def test_notify_is_run_and_not_answered(client, serving):
    client.notify(Echo(1))
    client.notify(Echo(2))
    assert client.call(Echo(3)) == 3
    assert serving.host.log == [1, 2, 3]


def test_notify_and_close_at_once_is_run(serving):
    with Client(serving.server.address) as client:
        client.notify(Echo(1))
    wait_until(lambda: serving.host.log == [1])


def echo_of_another_version():
    """Return a command that this side's class allows, and the server's does not."""

    @dataclass
    class Echo:
        value: str

        def process(self, ctx: object) -> str: ...

    return Echo("x")


OTHER_ECHO = echo_of_another_version()


def test_value_that_does_not_fit_its_field_is_refused_before_anything_is_sent(client):
    for call in (client.call, client.notify, client.submit, lambda it: list(client.map([it]))):
        with pytest.raises(TypeError, match=r"^Echo.value must be an int, not 'x'$"):
            call(Echo("x"))
    assert client.call(Echo(1)) == 1


def test_class_in_place_of_a_command_is_told(client):
    for call in (client.call, client.notify, client.submit, lambda it: list(client.map([it]))):
        with pytest.raises(TypeError, match=r"make one of it: `client\.call\(Stop\(\)\)`"):
            call(Echo)


def test_no_io_at_construction(directory):
    client = Client(f"{directory}/nobody")
    assert client.address == f"{directory}/nobody"
    client.close()


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        (Unknown(), UnknownCommand, "the server has no command `Unknown`"),
        (OTHER_ECHO, InvalidArguments, "Echo.value must be an int, not 'x'"),
    ],
)
def test_error_answers_have_their_classes(client, command, kind, message):
    with pytest.raises(kind) as caught:
        client.call(command)
    assert caught.value.message == message
    assert client.call(Echo(1)) == 1


def test_error_of_the_application_keeps_code_message_and_data(client):
    with pytest.raises(CommandError) as caught:
        client.call(Refuse("my-code", "not today"))
    error = caught.value
    assert (error.code, error.message, error.data) == ("my-code", "not today", {"why": [1, 2]})
    assert type(error) is CommandError
    assert str(error) == "not today [my-code]"


def test_command_that_can_not_be_carried_is_refused_before_anything_is_sent(client, serving):
    with pytest.raises(ValueError, match=r"Echo.value: an integer .* - at `\$`"):
        client.call(Echo(2**70))
    with pytest.raises(TypeError, match=r"Echo.value must be an int, not a value of type `object`"):
        client.call(Echo(object()))
    assert client.call(Echo(1)) == 1
    assert serving.host.log == [1]


def test_frame_over_the_limit_is_refused_before_anything_is_sent(client):
    with pytest.raises(FrameTooLarge, match=r"the frame has \d+ bytes, the limit is 262144"):
        client.call(Take(bytes(300_000)))
    assert client.call(Echo(1)) == 1


def test_what_is_no_command(client):
    with pytest.raises(TypeError, match="a command must be a dataclass"):
        client.call(5)


# ---------------------------------------------------------------------------------------------
# Time limits


@pytest.mark.parametrize("seconds", [-1, math.nan])
def test_time_limit_that_is_none(client, seconds):
    with pytest.raises(ValueError, match="a timeout must be at least 0"):
        client.call(Echo(1), timeout=seconds)


def test_none_is_no_limit(client):
    assert client.call(Echo(1), timeout=None) == 1


def test_long_waits_are_made_of_many(server, monkeypatch):
    """poll(2) takes only so many milliseconds; a wait without a limit goes on after them."""
    monkeypatch.setattr("ipcpoll._client.connection._LONGEST_WAIT", 0.005)
    waits = []
    wait = ClientConnection.wait
    monkeypatch.setattr(ClientConnection, "wait", lambda *given: (waits.append(1), wait(*given)))
    got = []
    with Client(server.address, timeout=None) as client:
        thread = threading.Thread(target=lambda: got.append(client.call(Echo(1))))
        thread.start()
        wait_until(lambda: len(waits) > 3)
        serve_until(server, lambda: got)
        thread.join()
    assert got == [1]


def test_server_that_is_not_polled(server):
    with Client(server.address, timeout=0.02) as client:
        with pytest.raises(NotPolled) as caught:
            client.call(Echo(1))
        assert str(caught.value) == (
            f"pid {os.getpid()} is alive and has not read Echo within 0.02 s; "
            f"it was cancelled and will most likely not run ({server.address})"
        )
        with pytest.raises(NotPolled, match="has not read Echo within 0 s"):
            client.call(Echo(2), timeout=0)


def test_late_answer_is_dropped_and_the_connection_is_kept(server):
    """A call that timed out sends its cancel, which the server reads before the call's turn."""
    host = Host()
    with Client(server.address, timeout=PATIENCE) as client:
        with pytest.raises(NotPolled):
            client.call(Echo(1), timeout=0)
        thread = threading.Thread(target=lambda: host.log.append(("got", client.call(Echo(2)))))
        thread.start()
        serve_until(server, lambda: ("got", 2) in host.log, host)
        thread.join()
        assert 1 not in host.log, "the cancelled call was not run"
        assert server.stats()["accepted"] == 1
    settle(server, host)


def fill(client: Client) -> str:
    """Notify until there is no more room, and return what the client says then."""
    while True:
        try:
            client.notify(Take(bytes(100_000)))
        except NotPolled as error:
            return str(error)


def test_call_that_found_no_room_was_not_sent(server):
    with Client(server.address, timeout=0.02) as client:
        message = fill(client)
        assert "has made no room for Take within 0.02 s; a part of it was sent" in message
        with pytest.raises(NotPolled, match=r"no room for Echo within 0.02 s; it was not sent"):
            client.call(Echo(5))
        with pytest.raises(NotPolled, match="no room for Echo within 0 s; it was not sent"):
            client.notify(Echo(6), timeout=0)
        host = Host()
        thread = threading.Thread(target=lambda: host.log.append(client.call(Echo(7), timeout=60)))
        thread.start()
        serve_until(server, lambda: host.log.count(7) == 2, host)
        thread.join()
        assert 5 not in host.log
        assert 6 not in host.log
    settle(server)


def _call_and_interrupt(client):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    client.call(Echo(1))


def test_interrupted_wait_gives_the_call_up(server):
    """Ctrl-C while a call waits: the call is cancelled, the client stays good."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Client(server.address, timeout=PATIENCE) as client:
            client.notify(Echo(0))  # it is connected before the timer runs
            with pytest.raises(KeyboardInterrupt):
                _call_and_interrupt(client)
            host = Host()
            thread = threading.Thread(target=lambda: host.log.append(("got", client.call(Echo(2)))))
            thread.start()
            serve_until(server, lambda: ("got", 2) in host.log, host)
            thread.join()
            assert 1 not in host.log
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_time_limit_holds_under_a_storm_of_signals(server):
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        began = time.monotonic()
        with Client(server.address) as client, pytest.raises(NotPolled):
            client.call(Echo(1), timeout=0.1)
        assert time.monotonic() - began >= 0.1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------------------------------------
# A server that is not there, or goes


def test_server_that_restarts_while_the_client_is_idle(directory):
    """Nothing was sent on the dead connection, so a new one is made."""
    from harness import COMMANDS

    path = f"{directory}/s"
    with Client(path, timeout=PATIENCE) as client:
        for value in range(3):
            with Server(path, COMMANDS) as server:
                serving = Serving(server)
                assert client.call(Echo(value)) == value
                assert list(client.map([Echo(1), Echo(2)])) == [1, 2]
                serving.stop()
        with pytest.raises(NotRunning):
            client.call(Echo(9))


def test_server_that_restarts_after_a_call_was_given_up(directory):
    """What was given up is nobody's loss: the next call connects anew."""
    from harness import COMMANDS

    path = f"{directory}/s"
    with Client(path, timeout=PATIENCE) as client:
        with Server(path, COMMANDS), pytest.raises(NotPolled):
            client.call(Echo(1), timeout=0.01)
        with Server(path, COMMANDS) as server:
            serving = Serving(server)
            assert client.call(Echo(2)) == 2
            serving.stop()


def test_interrupted_notification_is_taken_back(server):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Client(server.address, timeout=0.02) as client:
            fill(client)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                client.notify(Echo(5), timeout=PATIENCE)
            assert [frame.begun for frame in client._session.connection._out] == [True]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fake_server(
    directory: str, reply: Callable[[socket.socket], None]
) -> tuple[str, threading.Thread]:
    """A server that takes one connection and one read, and then does what the test says."""
    path = f"{directory}/fake"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def run() -> None:
        with listener:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                reply(sock)

    thread = threading.Thread(target=run)
    thread.start()
    return path, thread


def test_server_that_closes_before_the_answer(directory):
    path, thread = fake_server(directory, lambda sock: None)
    with pytest.raises(PeerGone) as caught:
        send(Echo(1), path, timeout=PATIENCE)
    assert str(caught.value) == (
        f"pid {os.getpid()} closed the connection or ended before the answer; "
        f"the call may have run ({path})"
    )
    assert not caught.value.unread
    thread.join()


def test_hazard_21_answer_that_came_before_the_end_counts(directory):
    path, thread = fake_server(directory, lambda sock: sock.sendall(encode([1, 0, 5])))
    assert send(Echo(1), path, timeout=PATIENCE) == 5
    thread.join()


def test_server_that_closes_and_has_not_read_the_call(directory):
    """The client reads ECONNRESET and not the end of file."""
    path = f"{directory}/deaf"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with Client(path, timeout=PATIENCE) as client:
            client.notify(Echo(1))
            listener.accept()[0].close()
            with pytest.raises(PeerGone, match="before the answer; the call may have run"):
                client._session.connection.wait_for(1, time.monotonic() + PATIENCE)
            assert client._session.connection.usable is False


def test_server_that_stops_reading_and_does_not_close(directory):
    """Sending fails while there is nothing to read: the call is over all the same."""
    ready, done = threading.Event(), threading.Event()

    def stop_reading(sock):
        sock.sendall(encode([1, 0, 1]))
        sock.shutdown(socket.SHUT_RD)
        ready.set()
        done.wait(PATIENCE)

    path, thread = fake_server(directory, stop_reading)
    with Client(path, timeout=PATIENCE) as client:
        assert client.call(Echo(1)) == 1
        assert ready.wait(PATIENCE)
        first = client._session.connection
        with pytest.raises(NotPolled):
            client.call(Echo(2), timeout=0.05)
        assert client._session.connection is not first, "not a byte was sent, so it connected anew"
    done.set()
    thread.join()


def test_flush_ends_when_the_server_goes(directory):
    path, thread = fake_server(directory, lambda sock: None)
    with Client(path, timeout=PATIENCE) as client:
        notifications = (client.notify(Take(bytes(200_000))) for _ in itertools.count())
        with pytest.raises((PeerGone, StaleSocket)):
            list(notifications)
    thread.join()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"HTTP/1.0 400 Bad Request\r\n", "what is no answer: this socket speaks CBOR frames"),
        (encode([1]), "an answer is [id, kind, item]"),
        (encode([2, 0, 5]), "an answer to 2, which is not in flight"),
        (encode([1, 7, 5]), "an answer's kind is 0, 1 or 2"),
        (encode([1, 1, "x"]), 'an error is {"code": text, "message": text}'),
        (encode(["x", 0, 5]), "an answer's id is unsigned"),
    ],
)
def test_server_that_sends_what_is_no_answer(directory, reply, words):
    path, thread = fake_server(directory, lambda sock: sock.sendall(reply))
    with pytest.raises(PeerGone) as caught:
        send(Echo(1), path, timeout=PATIENCE)
    assert words in str(caught.value)
    thread.join()


def test_answer_that_does_not_fit_the_annotation(directory):
    path, thread = fake_server(directory, lambda sock: sock.sendall(encode([1, 0, "five"])))
    with pytest.raises(InternalError) as caught:
        send(Echo(1), path, timeout=PATIENCE)
    assert caught.value.message == (
        "the answer of Echo is not what its annotation says here: Echo's answer must be an int, "
        "not 'five'; the two sides seem to have different versions of Echo"
    )
    thread.join()


def test_error_without_an_id_ends_every_call_in_flight(directory):
    error = encode([None, 1, {"code": "busy", "message": "full"}])
    path, thread = fake_server(directory, lambda sock: sock.sendall(encode([1, 0, 1]) + error))
    with Client(path, timeout=PATIENCE) as client:
        answers = client.map([Echo(1), Echo(2), Echo(3)])
        assert next(answers) == 1
        with pytest.raises(Busy):
            next(answers)
    thread.join()


def test_piece_of_a_stream_is_thrown_away_by_call(directory):
    path, thread = fake_server(
        directory, lambda sock: sock.sendall(encode([1, 2, "piece"]) + encode([1, 0, 5]))
    )
    assert send(Echo(1), path, timeout=PATIENCE) == 5
    thread.join()


def test_server_that_is_closed_while_a_call_waits(server):
    caught = []

    def ask():
        with Client(server.address, timeout=PATIENCE) as client:
            try:
                client.call(Echo(1))
            except ShuttingDown as error:
                caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    serve_until(server, lambda: server.pending, max_commands=0)
    server.close()
    thread.join()
    assert caught


def test_killed_server_process(directory):
    """A real process, killed while a call is in its hands."""
    path = f"{directory}/s"
    process = run_python(
        "import sys, os\nfrom harness import *\nfrom ipcpoll import Server\n"
        "server = Server(sys.argv[1], COMMANDS)\n"
        "host = Host(do=lambda: os.kill(os.getpid(), 9))\nprint('ready')\n"
        "while readable(server, 60): server.poll(host)",
        path,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        from harness import Do

        with Client(path, timeout=PATIENCE) as client:
            assert client.call(Echo(1)) == 1
            with pytest.raises(PeerGone):
                client.call(Do())
            process.wait()  # its listener may outlive its connection for a moment
            with pytest.raises(StaleSocket):
                client.call(Echo(2))
    finally:
        process.kill()
        process.communicate()


# ---------------------------------------------------------------------------------------------
# Misuse


def test_closed_client(client):
    client.close()
    client.close()
    with pytest.raises(UsageError, match="the client is closed"):
        client.call(Echo(1))


def test_two_threads(server):
    caught = []
    with Client(server.address, timeout=PATIENCE) as client:
        thread = threading.Thread(target=lambda: caught.append(client.call(Echo(1))))
        thread.start()
        wait_until(lambda: client._guard._inside)
        with pytest.raises(UsageError, match="a client belongs to one thread"):
            client.call(Echo(2))
        serve_until(server, lambda: caught)
        thread.join()


def test_forked_child_is_refused_by_its_client(serving, client):
    """What the fork hook calls in the child, called here; the connection is the parent's."""
    assert client.call(Echo(1)) == 1
    client.after_fork()
    with pytest.raises(UsageError, match="this process was forked"):
        client.call(Echo(2))
    client.close()


def test_limits_of_the_client_are_its_own(serving):
    with Client(serving.server.address, limits=Limits(max_frame=100)) as client:
        assert client.call(Echo(1)) == 1
        with pytest.raises(FrameTooLarge, match="the limit is 100"):
            client.call(Take(bytes(200)))
    words = "announces 2006 bytes, the limit is 1000"
    address, narrow = serving.server.address, Limits(max_answer=1000)
    with Client(address, limits=narrow) as client, pytest.raises(PeerGone, match=words):
        client.call(Blob(2000))


def test_client_closes_its_descriptor(serving):
    before = len(os.listdir("/proc/self/fd"))
    with Client(serving.server.address) as client:
        client.call(Echo(1))
    wait_until(lambda: serving.server.stats()["clients"] == 0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_shell_can_call_it(serving):
    """A second process with nothing but the public names."""
    process = run_python(
        "import sys, ipcpoll\n"
        "with ipcpoll.Client(sys.argv[1], timeout=20) as client:\n"
        "    print(client.request('Echo', {'value': 3}))",
        serving.server.address,
    )
    assert finish(process) == "3\n"
