"""The server's life: birth at an address, what it refuses to touch, what it says of itself."""

from __future__ import annotations

import os
import resource
import select
import socket
import stat
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


def test_limits_reach_the_server(directory):
    with Server(f"{directory}/s", COMMANDS, limits=Limits(max_frame=50)) as server:
        with Peer(server) as peer:
            peer.call(1, "Take", data=bytes(100))
            [error] = answers(server, peer, 1)
            assert error[2]["code"] == "too-large"
        settle(server)
