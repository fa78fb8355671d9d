"""The server's life: birth at an address, what it refuses to touch, what it says of itself."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import stat
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import (
    COMMANDS,
    Echo,
    Host,
    Peer,
    Refuse,
    answers,
    full_backlog,
    readable,
    run_python,
    serve_process,
    settle,
)

import ipcpoll
from ipcpoll import (
    AlreadyRunning,
    Limits,
    Server,
    UnsafeAddress,
)
from ipcpoll._system import forks


@pytest.fixture
def runtime(directory, monkeypatch):
    """A private runtime directory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    return directory


def test_name_leads_to_the_runtime_directory(runtime):
    with Server("calc", Echo) as server:
        assert server.address == f"{runtime}/ipcpoll/calc.sock"
        assert server.address == str(ipcpoll.runtime_path("calc"))
        assert stat.S_IMODE(os.stat(f"{runtime}/ipcpoll").st_mode) == 0o700
        client = run_python(
            "import ipcpoll\nfrom harness import Echo\nprint(ipcpoll.send(Echo(5), 'calc'))"
        )
        assert serve_process(server, client) == "5\n"
    assert os.listdir(f"{runtime}/ipcpoll") == []


@pytest.mark.parametrize("arguments", [(), ("a",), ("a", Echo, Limits()), ("a", Echo, Refuse)])
def test_wrong_number_of_arguments_is_a_type_error_and_nothing_else(arguments):
    """And says no word about `__del__`: an exception that is ignored there fails a test."""
    with pytest.raises(TypeError, match=r"Server\.__init__\(\) "):
        Server(*arguments)
    Server.__new__(Server).__del__()


def test_path_may_be_a_str_or_a_path(directory):
    for address in (f"{directory}/a", Path(directory) / "b"):
        with Server(address, Echo) as server:
            assert server.address == str(address)


def test_hazard_13_relative_path_is_made_absolute(directory, monkeypatch):
    monkeypatch.chdir(directory)
    with Server("./s", Echo) as server:
        assert server.address == f"{directory}/s"
        monkeypatch.chdir("/")
    assert not os.path.exists(f"{directory}/s")


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_hazard_06_socket_has_mode_0600_whatever_the_umask_is(directory, umask):
    before = os.umask(umask)
    try:
        with Server(f"{directory}/s", Echo) as server:
            assert stat.S_IMODE(os.stat(server.address).st_mode) == 0o600
            assert os.umask(umask) == umask, "the umask is the process's own"
    finally:
        os.umask(before)


def test_hazard_02_live_server_is_not_disturbed(server):
    with pytest.raises(AlreadyRunning) as caught:
        Server(server.address, Echo)
    assert str(caught.value) == (
        f"a server runs at this address already (pid {os.getpid()}): {server.address}"
    )
    assert caught.value.pid == os.getpid()
    with Peer(server) as peer:
        peer.call(1, "Echo", value=1)
        assert answers(server, peer, 1) == [[1, 0, 1]]


def test_hazard_02_live_server_with_a_full_backlog_is_not_taken_for_dead(directory):
    path = f"{directory}/busy"
    with full_backlog(path):
        with pytest.raises(AlreadyRunning):
            Server(path, Echo)
        assert os.path.exists(path)


def test_hazard_10_dead_socket_of_our_own_is_replaced(directory):
    path = f"{directory}/s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    with Server(path, Echo) as server, Peer(server) as peer:
        peer.call(1, "Echo", value=1)
        assert answers(server, peer, 1) == [[1, 0, 1]]


def make_file(path):
    Path(path).write_text("precious")


def make_link_to_file(path):
    make_file(path + ".target")
    os.symlink(path + ".target", path)


def make_link_to_socket(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path + ".target")
    os.symlink(path + ".target", path)


@pytest.mark.parametrize(
    "make",
    [
        make_file,
        make_link_to_file,
        make_link_to_socket,
        os.mkfifo,
        os.mkdir,
        lambda path: os.symlink("/nowhere", path),
    ],
    ids=["file", "link to a file", "link to a socket", "fifo", "directory", "dangling link"],
)
def test_hazard_01_what_is_no_socket_is_not_touched(directory, make):
    path = f"{directory}/s"
    make(path)
    before = os.lstat(path)
    with pytest.raises(FileExistsError, match="this is not a socket; it was left as it is"):
        Server(path, Echo)
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_size) == (
        before.st_ino,
        before.st_mode,
        before.st_size,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_hazard_01_socket_of_another_user_is_not_touched(directory):
    path = f"{directory}/s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    os.chown(path, 12345, 12345)
    with pytest.raises(UnsafeAddress, match="the socket belongs to user 12345"):
        Server(path, Echo)
    assert os.path.exists(path)


def test_hazard_03_another_server_that_takes_the_address_in_between(directory, monkeypatch):
    path = f"{directory}/s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        monkeypatch.setattr("ipcpoll._address.listener._make_way", lambda place: None)
        with pytest.raises(AlreadyRunning, match="another program took this address just now"):
            Server(path, Echo)
        assert os.listdir(directory) == ["s"]


def test_probe_of_a_socket_that_vanishes(directory, monkeypatch):
    """It is removed between the look and the probe."""
    path = f"{directory}/s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    connect_ex = socket.socket.connect_ex

    def remove_and_connect(sock, address):
        os.unlink(path)
        return connect_ex(sock, address)

    monkeypatch.setattr(socket.socket, "connect_ex", remove_and_connect)
    Server(path, Echo).close()


def test_hazard_09_close_does_not_remove_a_socket_that_is_not_its_own(directory):
    path = f"{directory}/s"
    server = Server(path, Echo)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        server.close()
        assert os.listdir(directory) == ["s"]


def test_close_when_the_socket_is_gone_already(directory):
    server = Server(f"{directory}/s", Echo)
    os.unlink(server.address)
    server.close()


def test_hazard_12_path_that_is_too_long(directory):
    """A path of any length will do; it is the last part that has its limit then."""
    path = f"{directory}/{'x' * 120}"
    with pytest.raises(OSError, match="a socket's path may have 107 bytes, this has") as caught:
        Server(path, Echo)
    assert caught.value.filename == path
    assert os.listdir(directory) == []


def test_interrupt_while_it_is_bound_leaves_nothing_open(directory, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fchmod", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Server(f"{directory}/s", Echo)
    assert os.listdir(directory) == []


def test_hazard_12_longest_path(directory):
    path = f"{directory}/{'x' * (106 - len(directory))}"
    assert len(path) == 107
    Server(path, Echo).close()


def test_directory_that_is_not_there(directory):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError) as caught:
        Server(f"{directory}/nowhere/s", Echo)
    assert str(caught.value) == (
        "[Errno 2] no socket can be made here: No such file or directory; make the directory "
        f"first, it is never made for a path: '{directory}/nowhere'"
    )
    assert len(os.listdir("/proc/self/fd")) == before


def test_failure_at_birth_leaves_nothing_behind(directory, monkeypatch):
    path = f"{directory}/s"
    before = len(os.listdir("/proc/self/fd"))
    for target in ("ipcpoll._system.hub.make_poller", "ipcpoll._system.hub.Wakeup"):
        with monkeypatch.context() as patch:
            patch.setattr(target, lambda: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                Server(path, Echo)
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "listen", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Server(path, Echo)
    assert not os.path.exists(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_wrong_commands_are_found_before_anything_is_bound(directory):
    @dataclass
    class NoAnnotation:
        def process(self, ctx): ...

    path = f"{directory}/s"
    for commands in (NoAnnotation, [Echo, Echo], [], 5, [5]):
        with pytest.raises(TypeError):
            Server(path, commands)
    assert not os.path.exists(path)


@pytest.mark.parametrize("commands", [Echo, Echo | Refuse, [Echo, Refuse], (Echo,), iter([Echo])])
def test_shapes_of_commands(directory, commands):
    with Server(f"{directory}/s", commands) as server, Peer(server) as peer:
        peer.call(1, "Echo", value=3)
        assert answers(server, peer, 1) == [[1, 0, 3]]


def test_stats_and_repr(server, peer):
    peer.send(b"\xd8\x18\x40")
    peer.call(1, "Echo", value=1)
    answers(server, peer, 2)
    settle(server)
    assert server.stats() == {
        "clients": 1,
        "in_flight": 0,
        "accepted": 1,
        "refused": 0,
        "untrusted": 0,
        "evicted": 0,
        "turns": 2,
        "faults": 1,
        "dropped": 0,
    }
    assert repr(server) == f"<ipcpoll.Server {server.address} (1 clients)>"


def test_two_servers_in_one_program(make_server):
    first, second = make_server(), make_server()
    with Peer(first) as one, Peer(second) as two:
        one.call(1, "Echo", value=1)
        two.call(1, "Echo", value=2)
        assert answers(first, one, 1) == [[1, 0, 1]]
        assert answers(second, two, 1) == [[1, 0, 2]]


def test_hazard_52_descriptor_above_1023_is_served(directory):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1300:
        pytest.fail("the hard limit of descriptors is below 1,300: raise it (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1300), hard))
    burnt = [os.open(os.devnull, os.O_RDONLY) for _ in range(1030)]
    try:
        with Server(f"{directory}/s", COMMANDS) as server, Peer(server) as peer:
            assert server.fileno() > 1023
            assert peer.socket.fileno() > 1023
            peer.call(1, "Echo", value=1)
            with pytest.raises(ValueError, match="out of range"):
                select.select([server], [], [], 0)  # such a host must use poll or epoll
            with select.epoll() as epoll:
                epoll.register(server.fileno(), select.EPOLLIN)
                assert epoll.poll(0) == [(server.fileno(), select.EPOLLIN)]
            assert answers(server, peer, 1) == [[1, 0, 1]]  # by way of select.poll
    finally:
        for fd in burnt:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_descriptor_left():
    """RLIMIT_NOFILE is what is open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("descriptors", "wanted", "most"),
    [(1024, 256, 256), (1024, 257, 256), (400, 256, 100), (3, 256, 1), (4096, 1000, 1000)],
)
def test_hazard_24_clients_take_a_quarter_of_the_descriptors(
    make_server, monkeypatch, caplog, descriptors, wanted, most
):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (descriptors, 5000))
    server = make_server(max_clients=wanted)
    assert server._clients._most == most
    if most < wanted:
        assert caplog.messages == [
            f"no more than {most} clients, not {wanted}: a quarter of the {descriptors} "
            "descriptors that this process may have"
        ]
    else:
        assert not caplog.records


def test_hazard_24_descriptors_without_a_limit(make_server, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    assert make_server(max_clients=5000)._clients._most == 5000


def test_hazard_23_client_that_comes_when_no_descriptor_is_left_is_told(make_server, connect):
    """The reserve takes it in. Nothing spins, nothing waits, and the other client is served."""
    server = make_server()
    first = connect(server)
    first.call(1, "Echo", value=1)
    assert answers(server, first, 1) == [[1, 0, 1]]
    late = [connect(server) for _ in range(5)]
    for peer in late:
        peer.call(2, "Echo", value=2)
    with no_descriptor_left():
        host = Host()
        settle(server, host)
        assert host.log == []
        assert server.next_deadline() is None, "no pause was needed"
        for peer in late:
            [[call_id, kind, error]] = peer.received()
            assert (call_id, kind, error["code"]) == (None, 1, "busy")
            assert error["message"] == "the server has no descriptor left; try again later"
            assert peer.ended
        first.call(3, "Echo", value=3)
        assert answers(server, first, 1) == [[3, 0, 3]]
        assert not readable(server)
    assert server.stats()["refused"] == 5
    later = connect(server)
    later.call(4, "Echo", value=4)
    assert answers(server, later, 1) == [[4, 0, 4]]


def test_hazard_23_reserve_that_another_thread_takes(make_server, connect, monkeypatch):
    """Nobody is accepted, nothing spins; when a client leaves, the one that waits is served."""
    server = make_server(accept_pause_seconds=30.0)
    first = connect(server)
    first.call(1, "Echo", value=1)
    assert answers(server, first, 1) == [[1, 0, 1]]
    late = connect(server)
    late.call(2, "Echo", value=2)
    stolen = []
    acceptor = server._round._acceptor

    class Watched:
        """The reserve, and a thief who is waiting for it."""

        def close(self):
            spare.close()
            stolen.append(os.open(os.devnull, os.O_RDONLY))

    spare, acceptor._spare = acceptor._spare, Watched()
    with no_descriptor_left():
        server.poll(Host())
        assert not server.pending
        assert server.stats()["clients"] == 1
        assert server.next_deadline() is not None
        assert server.poll(Host()) == 0
    assert not readable(server)
    assert late.received() == []
    first.close()  # a descriptor is free again: the pause ends
    assert answers(server, late, 1) == [[2, 0, 2]]
    assert server.next_deadline() is None
    assert acceptor._spare is not None, "there is a reserve again"
    os.close(stolen[0])


def test_hazard_23_pause_ends_by_itself_though_every_descriptor_is_taken(make_server, connect):
    """The timer has a reserve of its own: a host that waits for the descriptor is woken."""
    server = make_server(accept_pause_seconds=0.05)
    late = connect(server)
    late.call(1, "Echo", value=1)
    acceptor = server._round._acceptor
    stolen = []

    class Watched:
        def close(self):
            spare.close()
            stolen.append(os.open(os.devnull, os.O_RDONLY))

    spare, acceptor._spare = acceptor._spare, Watched()
    with no_descriptor_left():
        server.poll(Host())
        assert server.next_deadline() is not None
        assert not readable(server)
        assert readable(server, 10), "the timer tells"
    assert answers(server, late, 1) == [[1, 0, 1]]
    os.close(stolen[0])


def test_descriptor_that_can_not_be_moved_is_closed_once(server, connect, monkeypatch):
    """Closing it twice could hit a file that another thread has just opened."""
    closed = []
    close = os.close

    def no_descriptor(fd):
        close(fd)
        closed.append(fd)
        raise OSError(errno.EMFILE, "Too many open files")

    connect(server)
    with monkeypatch.context() as patch:
        patch.setattr("ipcpoll._address.listener.above_stdio", no_descriptor)
        patch.setattr(
            "ipcpoll._address.listener.os.close", lambda fd: closed.append(fd) or close(fd)
        )
        server.poll(Host())
    assert len(closed) == len(set(closed))
    settle(server)


@pytest.mark.parametrize("step", ["vacate", "farewell", "poller", "wakeup"])
def test_close_that_is_interrupted_is_finished(directory, monkeypatch, step):
    """Ctrl-C in its midst: every step is taken all the same, and once more does no harm."""
    before = len(os.listdir("/proc/self/fd"))
    server = Server(f"{directory}/s", COMMANDS)
    peers = [Peer(server) for _ in range(3)]
    server.poll(Host())
    target, name = {
        "vacate": (server._listener, "vacate"),
        "farewell": (server._clients, "say_farewell"),
        "poller": (server._hub.poller, "unregister"),
        "wakeup": (server._hub, "close"),
    }[step]
    monkeypatch.setattr(target, name, _interrupt_once(getattr(target, name)))
    with pytest.raises(KeyboardInterrupt):
        server.close()
    server.close()
    assert server.closed
    for peer in peers:
        peer.received()
        assert peer.ended
        peer.close()
    assert len(os.listdir("/proc/self/fd")) == before
    Server(f"{directory}/s", COMMANDS).close()


def _interrupt_once(method):
    struck = []

    def call(*arguments):
        if not struck:
            struck.append(method)
            raise KeyboardInterrupt
        return method(*arguments)

    return call


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
def test_hazard_51_connection_that_can_not_be_watched_is_closed(
    server, connect, monkeypatch, caplog, number
):
    good = connect(server)
    server.poll(Host())
    peer = connect(server)

    def no_space(fd, mask):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(server._hub.poller, "register", no_space)
    settle(server)
    assert server.stats()["clients"] == 1
    assert f"a new connection can't be watched: [Errno {number}]" in caplog.text
    peer.received()
    assert peer.ended
    good.call(1, "Echo", value=1)
    assert answers(server, good, 1) == [[1, 0, 1]]
    monkeypatch.undo()
    late = connect(server)
    late.call(2, "Echo", value=2)
    assert answers(server, late, 1) == [[2, 0, 2]]


def test_connection_that_went_away_in_the_backlog_is_passed_over(server, connect, monkeypatch):
    peer = connect(server)
    peer.call(1, "Echo", value=1)
    accept = socket.socket._accept
    errors = [OSError(errno.ECONNABORTED, "aborted"), OSError(errno.EPROTO, "protocol")]

    def accept_after_errors(sock):
        if errors:
            raise errors.pop()
        return accept(sock)

    monkeypatch.setattr(socket.socket, "_accept", accept_after_errors, raising=False)
    assert answers(server, peer, 1) == [[1, 0, 1]]
    assert errors == []


def test_accept_that_is_forbidden_for_ever_does_not_block(server, connect, monkeypatch, caplog):
    """A sandbox says EPERM each time; a firewall says it of one connection."""
    peer = connect(server)
    peer.call(1, "Echo", value=1)

    def forbidden(sock):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "_accept", forbidden, raising=False)
        server.poll(Host())
    assert not readable(server), "there is a pause"
    assert "no new connection for" in caplog.text
    assert answers(server, peer, 1) == [[1, 0, 1]]


def test_client_that_is_turned_away_and_has_gone(make_server, connect, monkeypatch):
    server = make_server(max_clients=1)
    good = connect(server)
    good.call(1, "Echo", value=1)
    assert answers(server, good, 1) == [[1, 0, 1]]
    connect(server).close()
    settle(server)
    assert server.stats()["refused"] == 1


def test_child_of_a_fork_is_told(monkeypatch):
    told = []

    class Thing:
        def after_fork(self):
            told.append(self)

    thing = Thing()
    monkeypatch.setattr(forks, "_living", weakref.WeakSet())
    forks.watch(thing)
    forks._tell_all()
    forks._tell_all()
    assert told == [thing]


def test_limits_reach_the_server(directory):
    with Server(f"{directory}/s", COMMANDS, limits=Limits(max_frame=50)) as server:
        with Peer(server) as peer:
            peer.call(1, "Take", data=bytes(100))
            [error] = answers(server, peer, 1)
            assert error[2]["code"] == "too-large"
        settle(server)
