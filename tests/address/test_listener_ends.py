"""The socket's end: what a server removes, what it leaves, and what a killed one leaves behind.

The numbers of the hazards are those of the table in docs/security.md.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import tempfile

import pytest
from addresses import (
    a_place,
    descriptors,
    in_child,
    kill_self,
    lives,
    make_dangling_link,
    make_file,
    make_socket,
    snapshot,
)
from harness import (
    ROOT,
    Echo,
    run_python,
)

from ipcpoll import (
    AlreadyRunning,
    Server,
)
from ipcpoll._address import lockfile

pytestmark = pytest.mark.once


# ---------------------------------------------------------------------------------------------
# 9: another's newer socket


@pytest.fixture(params=["tmpfs", "disk"])
def place(request):
    """A private directory on each kind of file system: they give inode numbers differently."""
    with tempfile.TemporaryDirectory(dir=a_place(request.param), prefix="ipcpoll-") as path:
        yield path


def test_hazard_09_close_leaves_what_took_its_place(place):
    """An ext4 gives the inode number of a removed file to the next one."""
    path = f"{place}/s"
    for make in (make_file, make_socket, os.mkfifo, make_dangling_link):
        for also_the_lock in (False, True):
            server = Server(path, Echo)
            os.unlink(path)
            make(path)
            if also_the_lock:
                os.unlink(path + ".lock")
                make_file(path + ".lock")
            before = {name: snapshot(f"{place}/{name}") for name in os.listdir(place)}
            server.close()
            if not also_the_lock:
                before.pop("s.lock")  # that is its own
            assert {name: snapshot(f"{place}/{name}") for name in os.listdir(place)} == before
            for name in before:
                os.unlink(f"{place}/{name}")


def test_hazard_09_close_leaves_the_next_server_alone(place):
    """Somebody has removed socket and lock, and the next server is there already."""
    path = f"{place}/s"
    old = Server(path, Echo)
    os.unlink(path)
    os.unlink(path + ".lock")
    with Server(path, Echo) as new:
        assert not old.reachable()
        old.close()
        assert new.reachable()
        assert lives(new)
        with pytest.raises(AlreadyRunning):
            Server(path, Echo)
    assert os.listdir(place) == []


def test_hazard_09_socket_is_removed_under_the_lock_and_before_it_is_closed(place, monkeypatch):
    """A removed file keeps its number while the socket is open; and nobody else is at work."""
    unlink = os.unlink
    seen = []
    server = Server(f"{place}/s", Echo)
    fd = server._listener.fileno()

    def look_and_unlink(name, **named):
        try:
            lockfile.take(server._listener._place.directory, "s")
        except AlreadyRunning:
            seen.append((name, stat.S_ISSOCK(os.fstat(fd).st_mode)))
        unlink(name, **named)

    monkeypatch.setattr(os, "unlink", look_and_unlink)
    server.close()
    assert seen == [("s", True), ("s.lock", True)]


# ---------------------------------------------------------------------------------------------
# 10: SIGKILL


def test_hazard_10_start_after_a_kill_again_and_again(place):
    """Each starts over the dead socket of the one before."""
    path = f"{place}/s"

    def start_and_die():
        Server(path, Echo)
        kill_self()

    before = descriptors()
    for _ in range(100):
        assert in_child(start_and_die) == ""
        assert sorted(os.listdir(place)) == ["s", "s.lock"]
        assert lockfile.owner(path) != os.getpid()
    with Server(path, Echo) as server:
        assert lockfile.owner(path) == os.getpid()
        assert lives(server)
    assert os.listdir(place) == []
    assert descriptors() == before


# ---------------------------------------------------------------------------------------------
# 15: ends


EXIT = """
import gc, os, sys, threading, warnings
import ipcpoll
from harness import COMMANDS, Host, Peer, serve_until
path, how = sys.argv[1:]

def run(server, do):
    with Peer(server) as peer:
        peer.call(1, "Do", value=1)
        serve_until(server, peer.received, Host(do=do))

def fall():
    raise ZeroDivisionError

server = ipcpoll.Server(path, COMMANDS)
if how == "normal":
    with server:
        pass
elif how == "exception":
    with server:
        fall()
elif how == "os._exit":
    with server:
        os._exit(3)
elif how == "sys.exit in a handler":
    with server:
        run(server, lambda: sys.exit(4))
elif how == "os._exit in a handler":
    with server:
        run(server, lambda: os._exit(5))
elif how == "sys.exit in a handler, not closed":
    run(server, lambda: sys.exit(6))
elif how == "not closed":
    pass
elif how == "deleted":
    del server
elif how == "close in a handler":
    run(server, server.close)
elif how == "twice":
    server.close()
    server.close()
elif how == "in an atexit handler":
    import atexit
    atexit.register(server.close)
elif how == "in a thread that outlives the main one":
    thread = threading.Thread(target=lambda: (threading.main_thread().join(), server.close()))
    thread.start()
"""
TIDY: set[str] = set()
LEFT = {"s", "s.lock"}


@pytest.mark.parametrize(
    ("how", "code", "left", "warns"),
    [
        ("normal", 0, TIDY, False),
        ("exception", 1, TIDY, False),
        ("os._exit", 3, LEFT, False),
        ("sys.exit in a handler", 4, TIDY, False),
        ("os._exit in a handler", 5, LEFT, False),
        ("sys.exit in a handler, not closed", 6, LEFT, True),
        ("not closed", 0, LEFT, True),
        ("deleted", 0, LEFT, True),
        ("close in a handler", 0, TIDY, False),
        ("twice", 0, TIDY, False),
        ("in an atexit handler", 0, TIDY, False),
        ("in a thread that outlives the main one", 0, TIDY, False),
    ],
)
def test_hazard_15_who_removes_what_at_the_end(directory, how, code, left, warns):
    path = f"{directory}/s"
    process = run_python(EXIT, path, how)
    _, words = process.communicate(timeout=20)
    assert process.returncode == code, words
    assert set(os.listdir(directory)) == left
    assert ("ResourceWarning: unclosed <ipcpoll.Server" in words) == warns
    with Server(path, Echo) as server:
        assert lives(server)


def test_hazard_15_deleted_server_frees_its_address_and_removes_nothing(directory):
    path = f"{directory}/s"
    before = descriptors()
    server = Server(path, Echo)
    with pytest.warns(ResourceWarning, match=r"unclosed <ipcpoll\.Server"):
        del server
    assert set(os.listdir(directory)) == LEFT
    assert descriptors() == before
    Server(path, Echo).close()


def test_hazard_15_child_of_a_fork_removes_nothing_and_frees_nothing(server):
    before = snapshot(server.address), snapshot(server.address + ".lock")

    def close_and_try():
        words = f"{server.closed} {server.fileno()}"
        server.close()
        server.__exit__()
        server.__del__()
        try:
            Server(server.address, Echo)
        except AlreadyRunning as error:
            return f"{words} {error.pid}"

    assert in_child(close_and_try) == f"True -1 {os.getpid()}"
    assert (snapshot(server.address), snapshot(server.address + ".lock")) == before
    with pytest.raises(AlreadyRunning):
        Server(server.address, Echo)
    assert lives(server)


def test_hazard_15_child_of_a_fork_that_python_did_not_see(server, monkeypatch):
    """As by a C library: no hook has run, and the pid is another one."""
    before = snapshot(server.address), snapshot(server.address + ".lock")
    copy = os.dup(server._listener._place.lock._fd)  # what the parent has
    parent = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: parent + 1)
        server.close()
    assert server.closed
    assert (snapshot(server.address), snapshot(server.address + ".lock")) == before
    with pytest.raises(AlreadyRunning):
        Server(server.address, Echo)
    os.close(copy)
    Server(server.address, Echo).close()


def test_hazard_15_listener_alone_looks_whose_it_is(server, monkeypatch):
    """The deepest of the three guards: nothing below `Server` removes another process's files."""
    listener = server._listener
    parent = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: parent + 1)
        listener.vacate()
    assert server.reachable()
    assert lockfile.owner(server.address) == parent


def test_hazard_15_child_of_multiprocessing_that_ends(server):
    """It ends by itself, with all of Python's tidying up."""
    before = snapshot(server.address), snapshot(server.address + ".lock")
    process = multiprocessing.get_context("fork").Process(target=gc.collect)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (snapshot(server.address), snapshot(server.address + ".lock")) == before
    with pytest.raises(AlreadyRunning):
        Server(server.address, Echo)
    assert lives(server)


def test_hazard_15_child_that_outlives_its_parent_does_not_hold_the_address(directory):
    """The parent is killed; its child has let go of socket and lock, and lives on."""
    path = f"{directory}/s"
    source = """
import os, signal, sys
import ipcpoll
from harness import Echo
server = ipcpoll.Server(sys.argv[1], Echo)
if os.fork():
    os.kill(os.getpid(), signal.SIGKILL)
print("child", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", source, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests/support"},
    )
    with process:
        assert process.stdout.readline() == "child\n"
        assert process.wait() == -signal.SIGKILL
        with Server(path, Echo) as server:
            assert lives(server)
        process.stdin.close()
        assert process.stdout.read() == "", "the child has ended"
