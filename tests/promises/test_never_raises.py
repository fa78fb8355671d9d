"""Promise 3: `poll` raises nothing for what a client or a command did; what it may raise leaves
the server whole."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from dataclasses import dataclass

import cbor2
import pytest
from harness import (
    COMMANDS,
    Do,
    Echo,
    Host,
    Peer,
    answers,
    call,
    encode,
    readable,
    serve_until,
    settle,
)

from ipcpoll import (
    Client,
    InternalError,
    Server,
    UsageError,
)
from ipcpoll._address import listener
from ipcpoll._wire.framing import frame


class Unspeakable(Exception):
    """An exception whose text can't be made."""

    def __str__(self):
        raise ValueError("no text")


FAILURES = [
    ValueError("v"),
    KeyError("k"),
    OSError(5, "io"),
    MemoryError(),
    RecursionError("deep"),
    StopIteration(3),
    AssertionError(),
    Unspeakable(),
    GeneratorExit(),
    asyncio.CancelledError(),
    BaseException("base"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    Exception("\ud800 and a lone surrogate"),
    Exception("x" * 100_000),
    ExceptionGroup("group", [ValueError("inner")]),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_hazard_55_command_that_raises(server, peer, caplog, failure):
    def fail():
        raise failure

    host = Host(do=fail)
    peer.send(call(1, "Do"), call(2, "Echo", value=2))
    error, answer = answers(server, peer, 2, host)
    assert error[:2] == [1, 1]
    assert error[2]["code"] == "internal"
    assert error[2]["message"].startswith(f"Do raised {type(failure).__name__}")
    assert len(error[2]["message"]) < 1000
    assert answer == [2, 0, 2], "the connection lives on"
    [record] = caplog.records
    assert record.name == "ipcpoll"
    assert record.levelno == logging.ERROR
    assert record.exc_info[1] is failure, "the log has the traceback"


def test_command_that_refuses(server, peer, caplog):
    peer.call(1, "Refuse", code="no-such-level", message="there is no level 9")
    assert answers(server, peer, 1) == [
        [1, 1, {"code": "no-such-level", "message": "there is no level 9", "data": {"why": [1, 2]}}]
    ]
    assert caplog.records == []


BAD_PAYLOADS = {
    "empty": b"",
    "not CBOR": b"\xff\xff",
    "a number": cbor2.dumps(5),
    "an empty array": cbor2.dumps([]),
    "two items": cbor2.dumps([1, "Echo"]),
    "five items": cbor2.dumps([1, "Echo", {}, {}, {}]),
    "negative id": cbor2.dumps([-1, "Echo", {"value": 1}]),
    "id is a float": cbor2.dumps([1.0, "Echo", {"value": 1}]),
    "id is a boolean": cbor2.dumps([True, "Echo", {"value": 1}]),
    "name is a number": cbor2.dumps([1, 5, {}]),
    "fields are an array": cbor2.dumps([1, "Echo", [1]]),
    "options are an array": cbor2.dumps([1, "Echo", {"value": 1}, [1]]),
    "unknown option": cbor2.dumps([1, "Echo", {"value": 1}, {"colour": 1}]),
    "timeout is text": cbor2.dumps([1, "Echo", {"value": 1}, {"timeout": "1"}]),
    "a tag": cbor2.dumps([1, "Echo", {"value": 2**70}]),
    "trailing bytes": cbor2.dumps([1, "Echo", {"value": 1}]) + b"\x00",
    "duplicate key": b"\x83\x01\x64Echo\xa2\x65value\x01\x65value\x02",
    "indefinite": b"\x9f\x01\x64Echo\xa0\xff",
    "too deep": b"\x83\x01\x64Echo" + b"\x81" * 80 + b"\x01",
    "cancel of text": cbor2.dumps(["x"]),
}


@pytest.mark.parametrize("name", BAD_PAYLOADS)
def test_bad_frame_is_answered_and_the_connection_lives_on(server, peer, name):
    peer.send(frame(BAD_PAYLOADS[name]), call(7, "Echo", value=7))
    error, answer = answers(server, peer, 2)
    assert error[0] in (1, None)
    assert error[1] == 1
    assert error[2]["code"] == "malformed"
    assert answer == [7, 0, 7]
    assert server.stats()["faults"] == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not text"),
        (b"add 1 2\n", "not text"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", "begins with the bytes d8 18, not 16 03"),
        (b"\xd8\x19\x41\x00", "begins with the bytes d8 18, not d8 19"),
        (b"\xd8\x18\x5f\x41\x00\xff", "indefinite length"),
        (b"\xd8\x18\x81\x00", "byte string"),
        (b"\xd8\x18\x5a\xff\xff\xff\xff", "announces 4294967295 bytes, the limit is 262144"),
    ],
)
def test_hazard_36_stream_that_is_no_sequence_of_frames_gets_one_error_and_the_end(
    server, connect, data, words
):
    bad, good = connect(server), connect(server)
    bad.send(call(1, "Echo", value=1), data)
    answer, error = answers(server, bad, 2)
    assert answer == [1, 0, 1], "what came before it is answered"
    assert error[:2] == [None, 1]
    assert error[2]["code"] in ("malformed", "too-large")
    assert words in error[2]["message"]
    settle(server)
    bad.received()
    assert bad.ended
    good.call(2, "Echo", value=2)
    assert answers(server, good, 1) == [[2, 0, 2]]


def test_hazard_21_much_garbage_ends_without_a_reset(server, peer):
    """What is left unread at the close would turn the end into ECONNRESET."""
    peer.send_what_fits(b"garbage " * 12_000)
    settle(server)
    data = b"".join(iter(lambda: peer.socket.recv(65536), b""))
    assert b"not text" in data


@pytest.mark.parametrize(
    ("name", "fields", "code", "message"),
    [
        ("Ech", {}, "unknown-command", "the server has no command `Ech`; did you mean `Echo`?"),
        ("Echo", {"value": "x"}, "invalid-arguments", "Echo.value must be an int, not 'x'"),
        (
            "Echo",
            {},
            "invalid-arguments",
            "Echo.value is missing; the two sides may have different versions of Echo",
        ),
        (
            "Echo",
            {"value": 1, "valu": 2},
            "invalid-arguments",
            "Echo has no field `valu`; did you mean `value`?",
        ),
    ],
)
def test_wrong_call_is_refused_before_process_is_entered(server, peer, name, fields, code, message):
    host = Host()
    peer.send(encode([3, name, fields]))
    assert answers(server, peer, 1, host) == [[3, 1, {"code": code, "message": message}]]
    assert host.log == []


def test_notification_that_fails_is_not_answered_but_logged(server, peer, caplog):
    peer.send(
        call(None, "Echo", value="x"), call(None, "Refuse", code="c"), call(1, "Echo", value=1)
    )
    assert answers(server, peer, 1) == [[1, 0, 1]]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "Echo.value must be an int, not 'x'" in caplog.text


def test_bad_notification_is_not_answered(server, peer):
    peer.send(frame(b"\x83\xf6\x64Echo\xc1\x00"), call(1, "Echo", value=1))
    assert answers(server, peer, 1) == [[1, 0, 1]]
    assert server.stats()["faults"] == 1


@dataclass
class Liar:
    """Promises an int."""

    def process(self, ctx: Host) -> int:
        assert ctx.do is not None
        return ctx.do()


@pytest.mark.parametrize(
    "value",
    ["text", None, 2**64, -(2**63) - 1, 1.5, object(), [1], {1: 2}, 3j],
    ids=repr,
)
def test_answer_that_is_not_what_its_annotation_promises(make_server, connect, caplog, value):
    server = make_server(Liar)
    peer = connect(server)
    peer.send(call(1, "Liar"))
    [error] = answers(server, peer, 1, Host(do=lambda: value))
    assert error[2]["code"] == "internal"
    assert error[2]["message"].startswith("the answer of Liar is not what its annotation promises")
    assert len(caplog.records) == 1


def test_handler_of_the_log_that_fails_does_not_reach_the_poll(server, peer):
    class Broken(logging.Handler):
        def emit(self, record):
            raise OSError("disk full")

    logger = logging.getLogger("ipcpoll")
    handler = Broken()
    logger.addHandler(handler)
    try:
        peer.send(frame(b""), call(1, "Echo", value=1))
        assert answers(server, peer, 2)[1] == [1, 0, 1]
    finally:
        logger.removeHandler(handler)


def test_client_that_resets_its_connection(server, connect):
    """It closes and leaves an answer unread: the server reads ECONNRESET."""
    for _ in range(3):
        peer = connect(server)
        peer.call(1, "Echo", value=1)
        server.poll(Host())
        peer.send(call(2, "Echo", value=2))
        peer.close()
        settle(server)
    assert server.stats()["clients"] == 0


@pytest.mark.parametrize("size", [*range(1, 14), 200_000])
def test_hazard_31_client_that_dies_at_every_byte_of_its_frame(server, connect, size):
    peer = connect(server)
    frame_ = call(1, "Take", data=bytes(200_000))
    peer.send_what_fits(frame_[:size])
    server.poll(Host())
    peer.close()
    settle(server)
    assert server.stats()["clients"] == 0


@pytest.mark.parametrize("failure", [MemoryError(), OSError(12, "epoll_ctl"), RuntimeError("bug")])
@pytest.mark.parametrize("place", ["protocol.receive", "flush"])
def test_what_ipcpoll_did_not_foresee_costs_one_connection(
    server, connect, caplog, monkeypatch, failure, place
):
    peer, good = connect(server), connect(server)
    server.poll(Host())
    [touched, _] = server._clients.connections.values()

    def fail(*_):
        raise failure

    if place == "flush":
        for sends in ("flush", "send_alone"):
            monkeypatch.setattr(f"ipcpoll._server.connection.ServerConnection.{sends}", fail)
        peer.call(1, "Echo", value=1)
        server.poll(Host())
        monkeypatch.undo()
    else:
        touched.protocol.receive = touched.protocol.only_call = fail
        peer.call(1, "Echo", value=1)
        server.poll(Host())
    assert peer.received() == []
    assert peer.ended
    assert "poll met what it did not foresee" in caplog.text
    good.call(2, "Echo", value=2)
    assert answers(server, good, 1) == [[2, 0, 2]]


@pytest.mark.parametrize("kernel", ["this", "older than 6.16"])
def test_hazard_34_file_descriptors_that_are_passed_do_not_stay(
    make_server, connect, monkeypatch, kernel
):
    """5,000 of them, with calls, with half a frame, and with a bad one; nobody keeps a copy."""
    if kernel != "this":
        monkeypatch.setattr(listener, "_refuse_descriptors", lambda sock: None)
    server = make_server()
    peer = connect(server)
    refused = 0

    def pass_descriptors(data, count):
        nonlocal refused
        try:
            socket.send_fds(peer.socket, [data], [write] * count)
        except PermissionError:  # the server has said that it takes none
            refused += 1
            peer.send(data)

    read, write = os.pipe()
    try:
        server.poll(Host())
        before = len(os.listdir("/proc/self/fd"))
        for i in range(20):
            whole = call(i, "Echo", value=i)
            pass_descriptors(whole[:5], 100)
            server.poll(Host())
            pass_descriptors(whole[5:], 100)
            assert answers(server, peer, 1) == [[i, 0, i]]
            pass_descriptors(frame(b""), 50)
            assert answers(server, peer, 1)[0][:2] == [None, 1]
            assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(write)
        with open(read, "rb") as pipe:
            assert pipe.read() == b"", "the end of file: no other copy is open"
    if kernel != "this":
        assert refused == 0
    elif tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 16):
        assert refused == 60


# ---------------------------------------------------------------------------------------------
# What it raises, and that the server is whole afterwards


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_hazard_56_interrupted_command(server, connect, interrupt):
    def stop():
        raise interrupt

    peer, other = connect(server), connect(server)
    other.send(call(1, "Echo", value=1), call(2, "Echo", value=2))
    peer.send(call(3, "Do"), call(4, "Echo", value=4))
    host = Host(do=stop)
    with pytest.raises(interrupt):
        server.poll(host)
    [error] = peer.received()
    assert error[:2] == [3, 1]
    assert error[2] == {
        "code": "internal",
        "message": f"Do was interrupted by {interrupt.__name__}",
    }
    assert peer.ended, "its connection is closed"
    got = other.received()
    serve_until(server, lambda: got.extend(other.received()) or len(got) == 2, host)
    assert got == [[1, 0, 1], [2, 0, 2]]
    settle(server)
    assert host.log == [("do", 0), 1, 2]


def test_hazard_56_interrupted_notification(server, peer):
    def stop():
        raise KeyboardInterrupt

    peer.send(call(None, "Do"))
    with pytest.raises(KeyboardInterrupt):
        server.poll(Host(do=stop))
    assert peer.received() == []
    assert peer.ended
    settle(server)


def test_interrupt_in_a_nested_poll(server, connect):
    first, second = connect(server), connect(server)
    first.call(1, "Do", value=1)
    host = Host()

    def nested():
        def stop():
            raise KeyboardInterrupt

        host.do = stop
        second.call(2, "Do", value=2)
        server.poll(host)

    host.do = nested
    with pytest.raises(KeyboardInterrupt):
        server.poll(host)
    assert second.received()[0][2]["code"] == "internal"
    assert first.received()[0][2]["code"] == "internal"
    settle(server)
    third = connect(server)
    third.call(3, "Echo", value=3)
    assert answers(server, third, 1) == [[3, 0, 3]]


def test_poll_of_a_closed_server(server):
    server.close()
    with pytest.raises(UsageError, match="the server is closed"):
        server.poll(Host())


def test_hazard_60_poll_from_a_second_thread_while_a_command_runs(server, peer):
    raised = []

    def from_another_thread():
        def poll():
            for action in (lambda: server.poll(Host()), server.close):
                try:
                    action()
                except UsageError as error:
                    raised.append(str(error))

        thread = threading.Thread(target=poll)
        thread.start()
        thread.join()

    peer.call(1, "Do", value=1)
    assert answers(server, peer, 1, Host(do=from_another_thread)) == [[1, 0, 1]]
    assert raised == ["another thread is inside poll(); a server belongs to one thread"] * 2


def test_second_thread_that_comes_in_at_the_same_moment(server, peer):
    peer.call(1, "Echo", value=1)
    events = server._ready()
    server._inside[None] = -1, object()  # it was there first, after both had seen what is ready
    with pytest.raises(UsageError, match="another thread"):
        server._poll_outermost(events, Host(), None, None, server._round.serial)
    server._inside.clear()
    assert answers(server, peer, 1) == [[1, 0, 1]]


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"max_seconds": -1}, "max_seconds must be at least 0, not -1"),
        ({"max_seconds": float("nan")}, "max_seconds must be at least 0, not nan"),
        ({"max_commands": -1}, "max_commands must be at least 0, not -1"),
    ],
)
def test_budget_that_is_none(server, peer, budget, words):
    peer.call(1, "Echo", value=1)
    with pytest.raises(ValueError, match=words):
        server.poll(Host(), **budget)
    assert answers(server, peer, 1) == [[1, 0, 1]]


def in_child(action):
    """Fork; return what `action` returned in the child, as text."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(write, str(action()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with open(read, "rb") as pipe:
        text = pipe.read().decode()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return text


def test_hazard_61_forked_child_can_neither_poll_nor_harm(server, peer):
    server.poll(Host())

    def child():
        try:
            server.poll(Host())
        except UsageError as error:
            server.close()
            return (server.closed, server.fileno(), os.path.exists(server.address), str(error))

    assert in_child(child).startswith("(True, -1, True, 'this process was forked")
    assert os.path.exists(server.address)
    peer.call(1, "Echo", value=1)
    assert readable(server), "the parent is not deaf"
    assert answers(server, peer, 1) == [[1, 0, 1]]


def test_hazard_61_command_that_forks(server, peer):
    """The child leaves `process` as well; it must not answer, and its poll ends."""
    pids = []

    def fork():
        pid = os.fork()
        if pid:
            pids.append(pid)

    parent = os.getpid()
    peer.send(call(1, "Do", value=1), call(2, "Echo", value=2))
    host = Host(do=fork)
    try:
        server.poll(host)
    finally:
        if os.getpid() != parent:
            os._exit(0 if server.closed and host.log == [("do", 1)] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
    got = peer.received()
    serve_until(server, lambda: got.extend(peer.received()) or len(got) >= 2, host)
    assert got == [[1, 0, 1], [2, 0, 2]]


def test_client_of_the_parent_refuses_the_child(server):
    with Client(server.address) as client:

        def child():
            try:
                client.call(Echo(1))
            except UsageError as error:
                return error

        assert in_child(child).startswith("this process was forked")


def test_collected_server_warns_and_leaves_its_socket(directory):
    path = f"{directory}/s"
    server = Server(path, COMMANDS)
    with Peer(server):
        server.poll(Host())
        with pytest.warns(ResourceWarning, match="unclosed <ipcpoll.Server"):
            del server
    assert os.path.exists(path), "another process may own it by now"
    Server(path, COMMANDS).close()


def test_error_types_reach_the_client(server):
    """The whole way, with the library's own client in a thread of its own."""
    caught = []

    def ask():
        with Client(server.address, timeout=20) as client:
            try:
                client.call(Do(1))
            except InternalError as error:
                caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    serve_until(server, lambda: caught, Host(do=lambda: 1 / 0))
    thread.join()
    assert caught[0].code == "internal"
    assert caught[0].message == "Do raised ZeroDivisionError: division by zero"
